// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/io/control/control.hpp"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "src/io/control/impl.hpp"
#include "src/io/control/wire.hpp"

namespace mori::io::control {
namespace {

constexpr size_t kMaxPeersKept = 1024;

std::string random_name() {
  std::array<uint8_t, 16> bytes;
  fill_random(bytes.data(), bytes.size());
  std::string name = "mori-io-";
  for (uint8_t byte : bytes) {
    name += "0123456789abcdef"[byte >> 4];
    name += "0123456789abcdef"[byte & 15];
  }
  return name;
}

Options checked(Options options) {
  if (options.engine.empty() || options.engine.size() > 255)
    throw core::ConfigError("engine key has " + std::to_string(options.engine.size()) +
                            " bytes; 1 to 255 are allowed");
  if (options.incarnation == 0) throw core::ConfigError("incarnation=0 is not random");
  if (options.host.empty()) options.host = "127.0.0.1";
  if (options.secret && options.secret->size() < 16)
    throw core::ConfigError("secret has " + std::to_string(options.secret->size()) +
                            " bytes; at least 16 are needed, best random ones");
  if (!options.secret && !options.allow_insecure && !is_loopback(options.host))
    throw core::ConfigError(
        "host='" + options.host +
        "' is reachable from other machines: it needs a secret of at least 16 bytes (the same for "
        "all engines), or allow_insecure=True to do without");
  return options;
}

PeerState& state(Peer& peer) { return static_cast<PeerState&>(peer); }

}  // namespace

Control::Impl::Impl(Options options, Handler& handler)
    : options_(checked(std::move(options))), handler_(handler), pid_(::getpid()) {
  identity_ = {options_.engine, options_.incarnation, options_.secret, {}, {}};
  listener_ = listen_tcp(options_.host, options_.port);
  epoll_.reset(::epoll_create1(EPOLL_CLOEXEC));
  wake_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!epoll_ || !wake_) throw core::TransportError("epoll: " + errno_text(errno));
  if (options_.same_host) {
    identity_.unix_name = random_name();
    unix_listener_ = listen_unix(identity_.unix_name);
    if (unix_listener_) identity_.host_identity = host_identity();
  }
}

void Control::Impl::start() {
  watch_fd(wake_.get(), 0);
  watch_fd(listener_.fd.get(), 1);
  if (unix_listener_) watch_fd(unix_listener_.get(), 2);
  thread_ = std::thread([this] { run(); });
}

void Control::Impl::stop() {
  closing_ = true;
  const uint64_t one = 1;
  if (::write(wake_.get(), &one, sizeof one) < 0) {
    // The counter is full: it wakes anyway.
  }
  thread_.join();
  std::map<PeerKey, std::shared_ptr<PeerState>> peers;
  std::map<uint64_t, std::shared_ptr<Connection>> connections;
  {
    std::lock_guard lock(mutex_);
    peers.swap(peers_);
    connections.swap(connections_);
    exits_.clear();
  }
  for (auto& [id, connection] : connections) {
    if (auto peer = connection->peer.lock()) peer->lose(*connection, "this engine is closed");
    connection->close();
  }
  incoming_.clear();
  unix_listener_.reset();
  listener_.fd.reset();
}

bool Control::Impl::inherited() const { return ::getpid() != pid_; }

void Control::Impl::check_may_wait(const char* what) const {
  if (inherited())
    throw Refused(StatusCode::err_bad_state, "engine '" + options_.engine + "' belongs to process " +
                                                 std::to_string(pid_) + "; a forked child makes its own");
  if (std::this_thread::get_id() == thread_.get_id())
    throw core::Error(std::string(what) + " waits, which the control thread must not");
}

void Control::Impl::watch_fd(int fd, uint64_t id, uint32_t events) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = id;
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event);
}

std::shared_ptr<PeerState> Control::Impl::find(const Address& address) {
  const auto begin = peers_.lower_bound({address.engine, address.incarnation});
  for (auto it = begin; it != peers_.end() && it->first.first == address.engine; ++it) {
    if (address.incarnation != 0 && it->first.second != address.incarnation) break;
    if (it->second->connected()) return it->second;
  }
  return nullptr;
}

std::shared_ptr<PeerState> Control::Impl::adopt(Fd fd, bool is_unix, Credentials credentials,
                                                const PeerKey& key, const MacKey& send_key,
                                                const MacKey& receive_key, const std::string& address,
                                                const std::string& dial_host, uint16_t dial_port,
                                                bool dial_known) {
  auto connection =
      std::make_shared<Connection>(std::move(fd), send_key, receive_key, is_unix, next_id_++, epoll_.get());
  std::shared_ptr<PeerState> peer;
  {
    std::lock_guard lock(mutex_);
    if (closing_) throw PeerLost("this engine is closed");
    if (peers_.size() >= kMaxPeersKept) evict_idle();
    auto& slot = peers_[key];
    if (!slot) slot = std::make_shared<PeerState>(key.first, key.second, address, weak_from_this());
    peer = slot;
    {
      std::lock_guard peer_lock(peer->mutex);
      if (dial_known || peer->dial_host.empty()) {
        peer->dial_host = dial_host;
        peer->dial_port = dial_port;
      }
    }
    connections_[connection->id] = connection;
    peer->adopt(connection, is_unix ? credentials.pid : -1);
    if (is_unix) watch_exit(peer);
    connection->watch();
  }
  return peer;
}

void Control::Impl::watch_exit(const std::shared_ptr<PeerState>& peer) {
  // A process that is gone may have left its sockets to forked children, so that no end of stream comes.  if
  // (peer->pid() == pid_) return;
  for (const auto& [id, watched] : exits_)
    if (watched.second.lock() == peer) return;
  Fd fd(static_cast<int>(::syscall(SYS_pidfd_open, peer->pid(), 0)));
  if (!fd) return;
  const uint64_t id = next_id_++;
  const int number = fd.get();
  exits_[id] = {std::move(fd), peer};
  watch_fd(number, id);
}

void Control::Impl::evict_idle() {
  for (auto it = peers_.begin(); it != peers_.end();)
    it = it->second.use_count() == 1 && it->second->disposable() ? peers_.erase(it) : std::next(it);
}

std::vector<std::string> Control::Impl::revoke(uint64_t id, Deadline deadline) {
  check_may_wait("revoke()");
  struct Waiting {
    std::shared_ptr<PeerState> peer;
    std::shared_ptr<Request> request;
    uint64_t number = 0;
  };
  std::vector<Waiting> waiting;
  {
    std::lock_guard lock(mutex_);
    for (auto& [key, peer] : peers_) {
      std::unique_lock peer_lock(peer->mutex);
      if (peer->opened.erase(id) == 0) continue;
      peer_lock.unlock();
      Waiting one{peer, nullptr, 0};
      one.request = peer->start(Type::revoke, Writer().put(id).take(), 0, &one.number);
      if (one.request) waiting.push_back(std::move(one));
    }
  }
  std::vector<std::string> cut_off;
  for (auto& one : waiting) {
    if (one.peer->wait(one.request, deadline)) continue;
    one.peer->forget(one.number);
    one.peer->cut("it did not let go of a deregistered region before the deadline");
    cut_off.push_back(one.peer->engine());
  }
  return cut_off;
}

std::vector<std::pair<std::string, double>> Control::Impl::counters() const {
  std::lock_guard lock(mutex_);
  return {{"connections", static_cast<double>(connections_.size())},
          {"peers", static_cast<double>(peers_.size())},
          {"accepted", static_cast<double>(accepted_)},
          {"refused", static_cast<double>(refused_)},
          {"frames_received", static_cast<double>(frames_in_)},
          {"malformed", static_cast<double>(malformed_)},
          {"lost", static_cast<double>(lost_)},
          {"handler_errors", static_cast<double>(handler_errors_)}};
}

// ---- Control
// -----------------------------------------------------------------------------------------------

Control::Control(Options options, Handler& handler)
    : impl_(std::make_shared<Impl>(std::move(options), handler)) {
  impl_->start();
}

Control::~Control() {
  if (!impl_->inherited()) {
    impl_->stop();
    return;
  }
  // A forked child has no control thread, and a lock may be held by a thread that does not exist here: leave
  // everything as it is. Its sockets are the parent's too, so nothing is shut down.
  new std::shared_ptr<Impl>(std::move(impl_));
}

const std::string& Control::host() const { return impl_->listener().host; }
uint16_t Control::port() const { return impl_->listener().port; }

std::shared_ptr<Peer> Control::connect(const Address& address, Deadline deadline) {
  return impl_->connect(address, deadline);
}

Attachments Control::open(Peer& owner, uint64_t id, const RegionKey& key, uint64_t incarnation,
                          Deadline deadline) {
  const std::string answer =
      state(owner).request(Type::open, Writer().put(id).put(key).put(incarnation).take(), deadline,
                           "what opens its memory", nullptr, id);
  try {
    Attachments attachments;
    Reader reader(answer);
    for (auto count = reader.get<uint8_t>(); count > 0; --count) {
      std::string backend(reader.name());
      attachments.emplace_back(std::move(backend), reader.text());
    }
    reader.end();
    return attachments;
  } catch (const Malformed& error) {
    state(owner).cut(std::string("it sent ") + error.what());
    throw PeerLost("lost " + state(owner).name() + ": it sent " + error.what());
  }
}

void Control::let_go(Peer& owner, uint64_t id) { state(owner).send(Type::let_go, Writer().put(id).take()); }

std::vector<std::string> Control::revoke(uint64_t id, Deadline deadline) {
  return impl_->revoke(id, deadline);
}

void Control::notify(Peer& peer, uint64_t uid, StatusCode code, std::string_view message) {
  if (impl_->inherited()) impl_->check_may_wait("notify()");
  state(peer).notify(uid, code, message);
}

bool Control::alive(Peer& peer, Deadline deadline) {
  try {
    PeerState& known = state(peer);
    if (!known.connected()) {
      Address address{known.engine(), known.incarnation(), {}, 0};
      {
        std::lock_guard lock(known.mutex);
        address.host = known.dial_host;
        address.port = known.dial_port;
      }
      impl_->connect(address, deadline);
    }
    known.request(Type::ping, {}, deadline, "a sign of life");
    return true;
  } catch (const core::TransportError&) {
    return false;
  }
}

void Control::disconnect(Peer& peer) {
  if (impl_->inherited()) return;
  state(peer).send(Type::bye, {});
  state(peer).cut("this engine disconnected");
}

std::vector<std::pair<std::string, double>> Control::counters() const { return impl_->counters(); }

}  // namespace mori::io::control
