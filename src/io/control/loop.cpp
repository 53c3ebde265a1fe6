// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The control thread: sleeps in epoll_wait, without a timeout unless a handshake is under way.
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "src/io/control/impl.hpp"
#include "src/io/control/wire.hpp"

namespace mori::io::control {
namespace {

constexpr std::chrono::milliseconds kAcceptPause{100};

bool wildcard(const std::string& host) { return host.empty() || host == "0.0.0.0" || host == "::"; }

}  // namespace

void Control::Impl::run() {
  while (!closing_) {
    epoll_event events[64];
    const int count = ::epoll_wait(epoll_.get(), events, 64, next_timeout_ms());
    for (int i = 0; i < count && !closing_; ++i) on_event(events[i].data.u64, events[i].events);
    drop_overdue();
  }
  std::lock_guard lock(mutex_);
  for (auto& [id, connection] : connections_) connection->send(Type::bye, {});
}

int Control::Impl::next_timeout_ms() {
  Deadline first = accept_again_;
  for (const auto& [id, incoming] : incoming_) first = std::min(first, incoming.deadline);
  return poll_ms(first);
}

void Control::Impl::drop_overdue() {
  if (incoming_.empty() && accept_again_ == Deadline::max()) return;
  const auto time = Clock::now();
  refused_ += std::erase_if(incoming_, [&](const auto& item) { return item.second.deadline <= time; });
  if (accept_again_ <= time) {
    accept_again_ = Deadline::max();
    watch_fd(listener_.fd.get(), 1);
    if (unix_listener_) watch_fd(unix_listener_.get(), 2);
  }
}

void Control::Impl::on_event(uint64_t id, uint32_t events) {
  try {
    if (id == 0) return;  // closing_
    if (id == 1) return accept_all(listener_.fd.get(), false);
    if (id == 2) return accept_all(unix_listener_.get(), true);
    if (incoming_.contains(id)) return on_incoming(id);
    std::shared_ptr<Connection> connection;
    {
      std::lock_guard lock(mutex_);
      const auto found = connections_.find(id);
      if (found != connections_.end()) connection = found->second;
    }
    if (connection) return on_connection(connection, events);
    on_exit_of(id);
  } catch (const std::exception&) {
    ++handler_errors_;  // out of memory or descriptors: what it was about fails by its deadline
  }
}

void Control::Impl::accept_all(int listener, bool is_unix) {
  for (;;) {
    Fd fd(::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!fd) {
      if (errno == EINTR || errno == ECONNABORTED) continue;
      if (errno == EAGAIN) return;
      // Out of descriptors: the listener would stay readable, so look away for a while.
      ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, listener_.fd.get(), nullptr);
      if (unix_listener_) ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, unix_listener_.get(), nullptr);
      accept_again_ = Clock::now() + kAcceptPause;
      return;
    }
    Credentials credentials;
    if (is_unix) {
      credentials = peer_credentials(fd.get());
      if (credentials.uid != ::geteuid() || credentials.pid <= 0) {
        ++refused_;
        continue;
      }
    } else {
      tune(fd.get());
    }
    if (incoming_.size() >= kMaxIncoming) {
      incoming_.erase(incoming_.begin());  // ids ascend: the oldest
      ++refused_;
    }
    const uint64_t id = next_id_++;
    const int number = fd.get();
    incoming_.try_emplace(id, std::move(fd), is_unix, credentials, Clock::now() + options_.handshake_timeout);
    watch_fd(number, id);
  }
}

void Control::Impl::on_incoming(uint64_t id) {
  const auto found = incoming_.find(id);
  switch (found->second.advance(identity_)) {
    case Incoming::Result::waiting:
      return;
    case Incoming::Result::closed:
      break;  // as dialers do that go on over the Unix socket
    case Incoming::Result::failed:
      ++refused_;
      break;
    case Incoming::Result::proven:
      finish_incoming(found->second);
      break;
  }
  incoming_.erase(id);
}

void Control::Impl::finish_incoming(Incoming& incoming) {
  const Hello& hello = incoming.hello();
  if (!hello.target.empty() && hello.target != options_.engine) {
    ++refused_;
    return incoming.refuse(StatusCode::err_not_found,
                           "engine '" + options_.engine + "' lives here, not '" + hello.target + "'");
  }
  if (hello.target_incarnation != 0 && hello.target_incarnation != options_.incarnation) {
    ++refused_;
    char words[160];
    std::snprintf(words, sizeof words, "it lives as incarnation %016llx, the descriptor is of %016llx",
                  static_cast<unsigned long long>(options_.incarnation),
                  static_cast<unsigned long long>(hello.target_incarnation));
    return incoming.refuse(StatusCode::err_bad_state, words);
  }
  const Session& session = incoming.session();
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, incoming.fd(), nullptr);
  if (hello.kind == Kind::stream) {
    const auto peer = hello.incarnation == 0 ? nullptr : [&] {
      std::lock_guard lock(mutex_);
      return find({hello.engine, hello.incarnation, {}, 0});
    }();
    if (!peer) {
      ++refused_;
      return incoming.refuse(StatusCode::err_bad_state, "a stream needs a control connection first");
    }
    incoming.done();
    try {
      handler_.accepted(*peer, hello.backend,
                        Stream{incoming.take(), session.listener_key(), session.dialer_key()});
    } catch (const std::exception&) {
      ++handler_errors_;
    }
    return;
  }
  incoming.done();
  ++accepted_;
  const std::string source = incoming.is_unix ? "127.0.0.1" : peer_host(incoming.fd());
  const std::string& home = wildcard(hello.listen_host) ? source : hello.listen_host;
  adopt(incoming.take(), incoming.is_unix, incoming.credentials, {hello.engine, hello.incarnation},
        session.listener_key(), session.dialer_key(), incoming.is_unix ? home : source, home,
        hello.listen_port, false);
}

void Control::Impl::on_connection(const std::shared_ptr<Connection>& connection, uint32_t events) {
  if (events & EPOLLOUT) connection->flush();
  if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR))) return;
  const auto peer = connection->peer.lock();
  bool open = false;
  try {
    open = peer && connection->receive([&](Frame& frame) {
      ++frames_in_;
      on_frame(peer, *connection, frame);
    });
  } catch (const std::exception& error) {
    connection->cut(std::string("this engine failed to serve it: ") + error.what());
  }
  if (!open) end(connection);
}

void Control::Impl::end(const std::shared_ptr<Connection>& connection) {
  {
    std::lock_guard lock(mutex_);
    connections_.erase(connection->id);
  }
  const auto peer = connection->peer.lock();
  const std::string reason = connection->reason();
  if (reason.starts_with("it sent ")) ++malformed_;
  if (peer && peer->lose(*connection, reason)) {
    ++lost_;
    try {
      handler_.lost(*peer, reason);
    } catch (const std::exception&) {
      ++handler_errors_;
    }
  }
  connection->close();
}

void Control::Impl::on_exit_of(uint64_t id) {
  std::shared_ptr<PeerState> peer;
  std::vector<std::shared_ptr<Connection>> its;
  {
    std::lock_guard lock(mutex_);
    const auto found = exits_.find(id);
    if (found == exits_.end()) return;
    peer = found->second.second.lock();
    exits_.erase(found);
    for (auto& [number, connection] : connections_)
      if (peer && connection->peer.lock() == peer) its.push_back(connection);
  }
  for (auto& connection : its) {
    on_connection(connection, EPOLLIN);  // what it said before it went
    if (!connection->broken()) connection->cut("its process ended");
  }
}

void Control::Impl::on_frame(const std::shared_ptr<PeerState>& peer, Connection& connection, Frame& frame) {
  Reader reader(frame.payload);
  const auto confirm = [&](uint64_t request) { connection.send(Type::answer, Writer().put(request).take()); };
  switch (frame.type) {
    case Type::answer: {
      const auto request = reader.get<uint64_t>();
      return peer->answered(request, Request::State::answered, StatusCode::success,
                            std::string(reader.rest()), std::move(frame.fds));
    }
    case Type::refuse: {
      const auto request = reader.get<uint64_t>();
      const auto code = static_cast<StatusCode>(reader.get<int32_t>());
      return peer->answered(request, Request::State::refused, code, std::string(reader.rest()), {});
    }
    case Type::ask: {
      const auto request = reader.get<uint64_t>();
      return on_ask(*peer, connection, frame, request, reader.rest());
    }
    case Type::tell: {
      const auto backend = reader.name();
      try {
        return handler_.told(*peer, backend, reader.rest());
      } catch (const std::exception&) {
        ++handler_errors_;
        return;
      }
    }
    case Type::open: {
      const auto request = reader.get<uint64_t>();
      return on_open(*peer, connection, request, reader.rest());
    }
    case Type::let_go: {
      const auto region = reader.get<uint64_t>();
      std::lock_guard lock(peer->mutex);
      peer->opened.erase(region);
      return;
    }
    case Type::revoke: {
      const auto request = reader.get<uint64_t>();
      const auto region = reader.get<uint64_t>();
      peer->mark_revoked(region);
      // The connection may be gone when the engine acknowledges: then the owner no longer waits.
      std::weak_ptr<Connection> back;
      {
        std::lock_guard lock(mutex_);
        back = connections_.at(connection.id);
      }
      const auto acknowledge = [back, request] {
        if (const auto alive = back.lock()) alive->send(Type::answer, Writer().put(request).take());
      };
      try {
        return handler_.revoked(*peer, region, acknowledge);
      } catch (const std::exception&) {
        ++handler_errors_;
        return;
      }
    }
    case Type::ping:
      return confirm(reader.get<uint64_t>());
    case Type::notify: {
      const auto number = reader.get<uint64_t>();
      const auto uid = reader.get<uint64_t>();
      const auto code = static_cast<StatusCode>(reader.get<int32_t>());
      if (peer->first_time(number)) {
        try {
          handler_.notified(*peer, uid, code, std::string(reader.rest()));
        } catch (const std::exception&) {
          ++handler_errors_;
        }
      }
      connection.send(Type::notified, Writer().put(number).take());
      return;
    }
    case Type::notified:
      return peer->confirmed(reader.get<uint64_t>());
    case Type::bye:
      return connection.cut("it closed");
  }
}

void Control::Impl::on_ask(PeerState& peer, Connection& connection, Frame&, uint64_t request,
                           std::string_view body) {
  const auto refuse = [&](StatusCode code, std::string_view words) {
    connection.send(
        Type::refuse,
        Writer().put(request).put(static_cast<int32_t>(code)).raw(words.substr(0, 4096 - 16)).take());
  };
  Reader reader(body);
  const auto backend = reader.name();
  try {
    std::vector<Fd> pass;
    const std::string answer = handler_.answer(peer, backend, reader.rest(), pass);
    if (answer.size() > kMaxMessage || pass.size() > kMaxFds)
      return refuse(StatusCode::err_transport, "its answer is too large");
    if (!pass.empty() && !connection.is_unix)
      return refuse(StatusCode::err_transport,
                    "file descriptors pass only between engines of one host and user");
    connection.send(Type::answer, Writer().put(request).raw(answer).take(), std::move(pass));
  } catch (const Malformed&) {
    throw;
  } catch (const Refused& error) {
    refuse(error.code, error.what());
  } catch (const std::exception& error) {
    refuse(StatusCode::err_transport, error.what());
  }
}

void Control::Impl::on_open(PeerState& peer, Connection& connection, uint64_t request,
                            std::string_view body) {
  Reader reader(body);
  const auto region = reader.get<uint64_t>();
  const auto key = reader.get_array<16>();
  const auto incarnation = reader.get<uint64_t>();
  const auto refuse = [&](StatusCode code, std::string_view words) {
    {
      std::lock_guard lock(peer.mutex);
      peer.opened.erase(region);
    }
    connection.send(
        Type::refuse,
        Writer().put(request).put(static_cast<int32_t>(code)).raw(words.substr(0, 4096 - 16)).take());
  };
  if (incarnation != options_.incarnation) {
    char words[160];
    std::snprintf(
        words, sizeof words, "it lives as incarnation %016llx, the memory's descriptor is of %016llx",
        static_cast<unsigned long long>(options_.incarnation), static_cast<unsigned long long>(incarnation));
    return refuse(StatusCode::err_bad_state, words);
  }
  bool before;
  {
    // Noted before the engine is asked: a revoke() that comes in between must find it.
    std::lock_guard lock(peer.mutex);
    before = !peer.opened.insert(region).second;
  }
  try {
    const Attachments attachments = handler_.open(peer, region, key);
    Writer answer;
    answer.put(request).put(static_cast<uint8_t>(attachments.size()));
    for (const auto& [backend, bytes] : attachments) answer.name(backend).text(bytes);
    const std::string bytes = answer.take();
    if (bytes.size() > kMaxMessage)
      return refuse(StatusCode::err_transport, "what opens the memory is too large");
    connection.send(Type::answer, bytes);
  } catch (const Refused& error) {
    refuse(error.code, error.what());
    if (before) {  // a wrong key does not undo an earlier right one
      std::lock_guard lock(peer.mutex);
      peer.opened.insert(region);
    }
  } catch (const std::exception& error) {
    refuse(StatusCode::err_transport, error.what());
  }
}

}  // namespace mori::io::control
