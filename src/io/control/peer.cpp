// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/io/control/peer.hpp"

#include <algorithm>
#include <cstdio>

#include "src/io/control/wire.hpp"
namespace mori::io::control {
namespace {

constexpr size_t kMaxUnconfirmed = 64 << 20;

void check_size(std::string_view message, const char* what) {
  if (message.size() > kMaxMessage)
    throw core::ConfigError(std::string(what) + " has " + std::to_string(message.size()) +
                            " bytes; at most " + std::to_string(kMaxMessage));
}

}  // namespace

std::string PeerState::name() const {
  char incarnation[24];
  std::snprintf(incarnation, sizeof incarnation, "%016llx", static_cast<unsigned long long>(incarnation_));
  return "engine '" + engine_ + "' (" + incarnation + ")";
}

bool PeerState::connected() const {
  std::lock_guard lock(mutex);
  return !connections_.empty() && !connections_.front()->broken();
}

bool PeerState::disposable() const {
  std::lock_guard lock(mutex);
  return connections_.empty() && last_notice_ == 0;
}

std::string PeerState::ask(std::string_view backend, std::string_view request_text, Deadline deadline,
                           std::vector<Fd>* fds) {
  check_size(request_text, "request");
  return request(Type::ask, Writer().name(backend).raw(request_text).take(), deadline,
                 "an answer of its backend " + std::string(backend), fds);
}

bool PeerState::tell(std::string_view backend, std::string_view message) {
  check_size(message, "message");
  return send(Type::tell, Writer().name(backend).raw(message).take());
}

Stream PeerState::open_stream(std::string_view backend, Deadline deadline) {
  const auto dialler = dialler_.lock();
  if (!dialler) throw PeerLost(name() + ": this engine is closed");
  dialler->check_may_wait("open_stream()");
  return dialler->dial_stream(*this, backend, deadline);
}

std::string PeerState::request(Type type, std::string_view body, Deadline deadline, const std::string& what,
                               std::vector<Fd>* fds, uint64_t opening) {
  if (const auto dialler = dialler_.lock()) dialler->check_may_wait("a request to a peer");
  uint64_t number = 0;
  const auto pending = start(type, body, opening, &number);
  if (!pending) {
    std::lock_guard lock(mutex);
    throw PeerLost("lost " + name() + ": " + lost_reason_);
  }
  if (!wait(pending, deadline)) {
    forget(number);
    throw TimeoutError(name() + " did not send " + what + " before the deadline");
  }
  switch (pending->state) {
    case Request::State::answered:
      break;
    case Request::State::refused:
      throw Refused(pending->code, name() + ": " + pending->text);
    default:
      throw PeerLost("lost " + name() + ": " + pending->text);
  }
  if (pending->revoked) throw Refused(StatusCode::err_not_found, name() + ": the region was deregistered");
  if (fds) *fds = std::move(pending->fds);
  return std::move(pending->text);
}

std::shared_ptr<Request> PeerState::start(Type type, std::string_view body, uint64_t opening,
                                          uint64_t* number) {
  std::lock_guard lock(mutex);
  if (connections_.empty()) return nullptr;
  const uint64_t own = next_request_++;
  auto pending = std::make_shared<Request>();
  pending->opening = opening;
  requests_[own] = pending;
  if (number) *number = own;
  // A broken connection is found by the control thread, which fails what waits here.
  connections_.front()->send(type, Writer().put(own).raw(body).take());
  return pending;
}

bool PeerState::wait(const std::shared_ptr<Request>& pending, Deadline deadline) {
  std::unique_lock lock(mutex);
  const auto done = [&] { return pending->state != Request::State::waiting; };
  if (deadline == Deadline::max()) {
    pending->changed.wait(lock, done);
    return true;
  }
  return pending->changed.wait_until(lock, deadline, done);
}

void PeerState::forget(uint64_t number) {
  std::lock_guard lock(mutex);
  requests_.erase(number);
}

void PeerState::notify(uint64_t uid, StatusCode code, std::string_view message) {
  check_size(message, "notification");
  std::lock_guard lock(mutex);
  if (unconfirmed_bytes_ + message.size() > kMaxUnconfirmed)
    throw core::CapacityError(name() + " has not taken " + std::to_string(unconfirmed_bytes_ >> 20) +
                              " MiB of notifications; at most 64 wait for it");
  const uint64_t number = ++last_notice_;
  unconfirmed_.push_back(
      {number, Writer().put(number).put(uid).put(static_cast<int32_t>(code)).raw(message).take()});
  unconfirmed_bytes_ += unconfirmed_.back().payload.size();
  if (!connections_.empty()) connections_.front()->send(Type::notify, unconfirmed_.back().payload);
}

void PeerState::cut(const std::string& reason) {
  std::vector<std::shared_ptr<Connection>> all;
  {
    std::lock_guard lock(mutex);
    all = connections_;
  }
  for (const auto& connection : all) connection->cut(reason);
}

bool PeerState::send(Type type, std::string_view payload) {
  std::lock_guard lock(mutex);
  return !connections_.empty() && connections_.front()->send(type, payload);
}

void PeerState::adopt(std::shared_ptr<Connection> connection, int64_t pid) {
  std::lock_guard lock(mutex);
  if (pid > 0) pid_ = pid;
  connection->peer = weak_from_this();
  connections_.push_back(connection);
  if (connections_.size() > 1) return;
  for (const Notice& notice : unconfirmed_) connection->send(Type::notify, notice.payload);
}

void PeerState::answered(uint64_t number, Request::State state, StatusCode code, std::string text,
                         std::vector<Fd> fds) {
  std::lock_guard lock(mutex);
  const auto found = requests_.find(number);
  if (found == requests_.end()) return;  // its deadline came first
  Request& pending = *found->second;
  pending.state = state;
  pending.code = code;
  pending.text = std::move(text);
  pending.fds = std::move(fds);
  pending.changed.notify_all();
  requests_.erase(found);
}

bool PeerState::lose(const Connection& broken, const std::string& reason) {
  std::vector<std::shared_ptr<Connection>> all;
  {
    std::lock_guard lock(mutex);
    const auto mine = [&](const auto& connection) { return connection.get() == &broken; };
    if (std::none_of(connections_.begin(), connections_.end(), mine)) return false;
    all.swap(connections_);
    lost_reason_ = reason;
    for (auto& [number, pending] : requests_) {
      pending->state = Request::State::lost;
      pending->text = reason;
      pending->changed.notify_all();
    }
    requests_.clear();
    opened.clear();
  }
  for (const auto& connection : all) connection->cut(reason);
  return true;
}

bool PeerState::first_time(uint64_t number) {
  std::lock_guard lock(mutex);
  if (number <= delivered_notice_) return false;
  delivered_notice_ = number;
  return true;
}

void PeerState::confirmed(uint64_t number) {
  std::lock_guard lock(mutex);
  while (!unconfirmed_.empty() && unconfirmed_.front().number <= number) {
    unconfirmed_bytes_ -= unconfirmed_.front().payload.size();
    unconfirmed_.pop_front();
  }
}

void PeerState::mark_revoked(uint64_t region) {
  std::lock_guard lock(mutex);
  for (auto& [number, pending] : requests_)
    if (pending->opening == region) pending->revoked = true;
}

}  // namespace mori::io::control
