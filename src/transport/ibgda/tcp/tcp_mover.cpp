// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/transport/ibgda/tcp/tcp_mover.hpp"

#include <poll.h>
#include <sys/random.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "src/core/errors.hpp"

namespace mori::ibgda::tcp {
namespace {

constexpr size_t kMostStrangers = 64;  // connections that have not said their hello
constexpr size_t kMostSentences = 100;
constexpr std::chrono::seconds kPatience{5};         // for a hello
constexpr std::chrono::milliseconds kFarewell{500};  // for answers that peers have not taken

std::string name(uint32_t rank, const Door& door) {
  return "rank " + std::to_string(rank) + " at " + words(door.host, door.port);
}

}  // namespace

TcpMover::TcpMover(const TcpOptions& options) : options_(options) {
  house_.rank = options.rank;
  house_.world = options.world;
  house_.doors.resize(options.world);
  house_.inside.resize(options.world);
  lanes_of_.resize(options.world);
  callers_.resize(options.world);
  troubles_.resize(options.world);
  if (options.address.size() >= sizeof door_.host)
    throw core::ConfigError("address='" + options.address + "': a numeric address is allowed");
  listener_ = listen_at(options.address, door_.port);
  std::memcpy(door_.host, options.address.c_str(), options.address.size());
  if (::getrandom(house_.secret.data(), house_.secret.size(), 0) != ssize_t(house_.secret.size()))
    throw core::TransportError(std::string("getrandom: ") + std::strerror(errno));
  door_.secret = house_.secret;
  epoll_ = core::Fd(::epoll_create1(EPOLL_CLOEXEC));
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = uint64_t(Kind::door) << 32;
  if (!epoll_ || ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, listener_.get(), &event) != 0)
    throw core::TransportError(std::string("epoll: ") + std::strerror(errno));
}

void TcpMover::add_queue(uint32_t queue, uint32_t peer) {
  if (lanes_.size() <= queue) lanes_.resize(queue + 1);
  if (lanes_of_[peer] == kLanes)
    throw core::ConfigError("more than " + std::to_string(kLanes) + " queues to one peer");
  lanes_[queue] = {.peer = peer, .lane = lanes_of_[peer]++};
}

void TcpMover::connect(uint32_t peer, const Door& door) {
  if (callers_[peer].of != nullptr) return;
  if (std::memchr(door.host, 0, sizeof door.host) == nullptr || door.port == 0) {
    throw core::ConfigError("rank " + std::to_string(peer) +
                            " offers no address: its mover is another one than tcp");
  }
  house_.doors[peer] = door;
  callers_[peer].of = std::make_unique<Caller>(house_, peer, name(peer, door), options_.timeout);
  watch(callers_[peer], Kind::caller, peer);
  for (Lane& lane : lanes_) {
    if (lane.peer == peer) lane.caller = callers_[peer].of.get();
  }
}

/// Tells epoll what a connection waits for, if that has changed.
template <class T>
void TcpMover::watch(Watched<T>& watched, Kind kind, uint64_t index) {
  if (watched.of == nullptr || watched.of->fd() < 0) return;
  const uint32_t wants = watched.of->wants();
  if (wants == watched.events) return;
  epoll_event event{};
  event.events = wants;
  event.data.u64 = uint64_t(kind) << 32 | index;
  const int what = watched.events == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
  ::epoll_ctl(epoll_.get(), what, watched.of->fd(), &event);
  watched.events = wants;
}

Outcome TcpMover::submit(uint32_t queue, const Request& request) {
  const Lane& lane = lanes_[queue];
  return lane.caller->submit(queue, lane.lane, request);
}

bool TcpMover::poll(const Finished& finished) {
  epoll_event events[64];
  const int count = ::epoll_wait(epoll_.get(), events, 64, 0);
  for (int i = 0; i < count; ++i) note(events[i]);
  const bool called = serve_callers(finished);
  return serve_guests() || called;
}

void TcpMover::note(const epoll_event& event) {
  const auto index = uint32_t(event.data.u64);
  switch (Kind(event.data.u64 >> 32)) {
    case Kind::door:
      return welcome();
    case Kind::caller:
      callers_[index].ready = true;
      return;
    case Kind::guest:
      guests_[index].ready = true;
  }
}

void TcpMover::welcome() {
  core::Fd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (!fd) return;
  const auto strangers = std::count_if(guests_.begin(), guests_.end(),
                                       [](const auto& g) { return g.of != nullptr && !g.of->known(); });
  if (size_t(strangers) >= kMostStrangers) return;
  tune(fd.get(), options_.timeout);
  auto place = std::find_if(guests_.begin(), guests_.end(), [](const auto& g) { return g.of == nullptr; });
  if (place == guests_.end()) place = guests_.emplace(place);
  *place = {std::make_unique<Guest>(std::move(fd), Clock::now() + kPatience)};
  watch(*place, Kind::guest, uint64_t(place - guests_.begin()));
}

bool TcpMover::serve_callers(const Finished& finished) {
  bool worked = false;
  for (uint32_t peer = 0; peer < callers_.size(); ++peer) {
    Watched<Caller>& watched = callers_[peer];
    if (watched.of == nullptr || !watched.of->lost().empty()) continue;
    Caller& caller = *watched.of;
    if (!watched.ready && !caller.eager() && !caller.unfinished() && !caller.overdue()) continue;
    watched.ready = false;
    worked = caller.work(*regions_, finished) || worked;
    if (caller.lost().empty()) {
      watch(watched, Kind::caller, peer);
    } else {
      const std::lock_guard lock(said_);
      troubles_[peer] = caller.lost();
    }
  }
  return worked;
}

bool TcpMover::serve_guests() {
  bool worked = false;
  for (uint32_t i = 0; i < guests_.size(); ++i) {
    Watched<Guest>& watched = guests_[i];
    if (watched.of == nullptr) continue;
    Guest& guest = *watched.of;
    const bool known = guest.known();
    if (known && !watched.ready && !guest.unfinished()) continue;
    watched.ready = false;
    try {
      worked = guest.work(house_, *regions_) || worked;
      if (guest.known()) {
        house_.inside[guest.rank()] = true;
      } else if (Clock::now() > guest.patience()) {
        throw Broken{"it said no hello"};
      }
      watch(watched, Kind::guest, i);
    } catch (const Broken& broken) {
      if (!known) {
        const std::lock_guard lock(said_);
        if (turned_away_.size() < kMostSentences)
          turned_away_.push_back(peer_words(guest.fd()) + ": " + broken.why);
      }
      if (guest.known()) house_.inside[guest.rank()] = false;
      watched = {};
    }
  }
  return worked;
}

void TcpMover::wait(std::chrono::microseconds time) {
  const bool more =
      std::any_of(callers_.begin(), callers_.end(),
                  [](const auto& c) { return c.of != nullptr && (c.of->eager() || c.of->unfinished()); }) ||
      std::any_of(guests_.begin(), guests_.end(),
                  [](const auto& g) { return g.of != nullptr && g.of->unfinished(); });
  if (more) return;
  pollfd waiting{epoll_.get(), POLLIN, 0};
  const timespec limit{time.count() / 1'000'000, time.count() % 1'000'000 * 1000};
  ::ppoll(&waiting, 1, &limit, nullptr);
}

/// What was executed is answered; then both sides' connections end.
void TcpMover::close() {
  const Clock::time_point enough = Clock::now() + kFarewell;
  const auto owes = [](const auto& g) { return g.of != nullptr && g.of->owes(); };
  while (std::any_of(guests_.begin(), guests_.end(), owes) && Clock::now() < enough) {
    wait(std::chrono::milliseconds(1));
    serve_guests();
  }
  for (auto& guest : guests_) {
    if (guest.of != nullptr) ::shutdown(guest.of->fd(), SHUT_WR);
  }
  guests_.clear();
  for (auto& caller : callers_) {
    if (caller.of != nullptr) caller.of->hang_up();
  }
  listener_.reset();
}

std::string TcpMover::trouble(uint32_t peer) const {
  const std::lock_guard lock(said_);
  return peer < troubles_.size() ? troubles_[peer] : "";
}

std::vector<std::string> TcpMover::turned_away() const {
  const std::lock_guard lock(said_);
  return turned_away_;
}

}  // namespace mori::ibgda::tcp
