// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/transport/ibgda/tcp/caller.hpp"

#include <sys/epoll.h>
#include <sys/socket.h>

#include "src/core/errors.hpp"

namespace mori::ibgda::tcp {
namespace {

constexpr uint64_t kTurn = 1 << 20;                   // bytes of answers before others have their turn
constexpr uint64_t kCopied = 4 << 10;                 // of a write: more is sent from where it lies
constexpr std::chrono::milliseconds kDialling{2000};  // at least: a busy host takes a while
constexpr const char* kNoAnswer = "it sent what is no answer";

}  // namespace

Caller::Caller(const House& house, uint32_t peer, std::string who, std::chrono::milliseconds timeout)
    : peer_(peer), who_(std::move(who)), own_(house.secret), timeout_(timeout) {
  const Door& door = house.doors[peer];
  fd_ = dial(door.host, door.port, std::max(timeout, kDialling), who_);
  tune(fd_.get(), timeout);
  const Hello hello{.rank = house.rank, .world = house.world, .secret = door.secret};
  // the first bytes of a connection: the system takes them all
  if (::send(fd_.get(), &hello, sizeof hello, MSG_NOSIGNAL | MSG_DONTWAIT) != ssize_t(sizeof hello))
    throw core::TransportError(who_ + " takes no hello");
}

uint32_t Caller::wants() const { return uint32_t(EPOLLIN) | (blocked_ ? uint32_t(EPOLLOUT) : 0); }

Outcome Caller::submit(uint32_t queue, uint32_t lane, const Request& r) {
  if (!lost_.empty()) return {.fault = Fault::retry_exceeded};
  if (flying_.size() >= kMostFlying || outbox_.waiting() > kMostWaiting) return {Outcome::State::busy};
  if (flying_.empty()) alive_ = Clock::now();
  outbox_.add(RequestHead{.op = uint8_t(r.op),
                          .lane = uint8_t(lane),
                          .zero = 0,
                          .length = r.length,
                          .remote = r.remote,
                          .rkey = r.rkey,
                          .zero_too = 0});
  if (is_atomic(r.op)) {
    outbox_.add(Operands{r.value, r.compare, r.value_mask, r.compare_mask});
  } else if (r.op == Op::write && r.length <= 8 && (r.flags & kInline) == 0) {
    alignas(8) unsigned char word[8];  // read whole: somebody may be writing it
    move_bytes(reinterpret_cast<uint64_t>(word), r.local, r.length);
    outbox_.add(word, r.length);
  } else if (r.op == Op::write && (r.length <= kCopied || (r.flags & kInline) != 0)) {
    outbox_.add(reinterpret_cast<const void*>(r.local), r.length);
  } else if (r.op == Op::write) {
    outbox_.refer(r.local, r.length, r.lkey);
  }
  flying_.push_back({queue, lane, r.length, r.lkey, r.local, r.op});
  return {Outcome::State::pending};
}

bool Caller::work(const Regions& regions, const Mover::Finished& finished) {
  if (!fd_) return false;
  uint64_t sent = 0, budget = kTurn;
  try {
    if (!greeted_ && !greet()) budget = 0;
    while (budget > 0 && hear(regions, finished, budget)) {
    }
    unfinished_ = greeted_ && budget == 0;
    if (greeted_) {
      const uint64_t before = outbox_.waiting();
      sent = before > 0 ? outbox_.send(fd_.get(), regions) : 0;
      blocked_ = !outbox_.empty() && sent == 0;
    }
  } catch (const Broken& broken) {
    lose(finished, broken.why);
    return true;
  }
  if (sent > 0 || (greeted_ && budget < kTurn)) {
    alive_ = Clock::now();
    return true;
  }
  if (overdue()) {
    lose(finished, "it has not answered for " + std::to_string(timeout_.count()) + " ms");
    return true;
  }
  return false;
}

/// Whether the other side has shown that it is the peer.
bool Caller::greet() {
  const unsigned char* bytes = inbox_.take(sizeof(Hello));
  while (bytes == nullptr) {
    if (inbox_.fill(fd_.get()) == 0) return false;
    bytes = inbox_.take(sizeof(Hello));
  }
  Hello hello;
  std::memcpy(&hello, bytes, sizeof hello);
  if (hello.magic != kMagic || hello.rank != peer_ || !same(hello.secret, own_))
    throw Broken{"what listens there is not the rank's NIC"};
  return greeted_ = true;
}

/// One step: an answer, or bytes of one. False: nothing more is here.
bool Caller::hear(const Regions& regions, const Mover::Finished& finished, uint64_t& budget) {
  if (landing_.left > 0) {
    if (!landing_.go_on(fd_.get(), inbox_, regions, budget)) return false;
    over(finished, landing_.good ? Fault::none : Fault::local_protection);
    return true;
  }
  const unsigned char* bytes = inbox_.take(sizeof(AnswerHead));
  if (bytes == nullptr) return inbox_.fill(fd_.get()) > 0;
  budget -= std::min<uint64_t>(budget, sizeof(AnswerHead));
  AnswerHead head;
  std::memcpy(&head, bytes, sizeof head);
  if (flying_.empty()) throw Broken{kNoAnswer};
  const Flying& first = flying_.front();
  if (head.kind == Answer::done && head.count > 0 && head.count <= flying_.size()) {
    for (uint32_t i = 0; i < head.count; ++i) {
      if (flying_.front().op != Op::write) throw Broken{kNoAnswer};
      over(finished, Fault::none);
    }
  } else if (head.kind == Answer::data && first.op == Op::read && head.count == first.length) {
    landing_ = Landing(first.local, first.length, first.lkey, (failed_ >> first.lane & 1) == 0);
  } else if (head.kind == Answer::word && is_atomic(first.op)) {
    const bool good = regions.local_holds(first.lkey, first.local, first.length);
    if (good && (failed_ >> first.lane & 1) == 0) deliver_word(first.local, head.word, first.length);
    over(finished, good ? Fault::none : Fault::local_protection);
  } else if (head.kind == Answer::no && head.fault != 0 && head.fault <= uint8_t(Fault::flushed)) {
    over(finished, Fault(head.fault));
  } else {
    throw Broken{kNoAnswer};
  }
  return true;
}

void Caller::over(const Mover::Finished& finished, Fault fault) {
  const Flying done = flying_.front();
  flying_.pop_front();
  if ((failed_ >> done.lane & 1) != 0) return;
  if (fault != Fault::none) failed_ |= uint64_t(1) << done.lane;
  finished(done.queue, fault);
}

void Caller::lose(const Mover::Finished& finished, const std::string& why) {
  lost_ = who_ + ": " + why;
  while (!flying_.empty()) over(finished, Fault::retry_exceeded);
  outbox_ = {};
  fd_.reset();
  unfinished_ = blocked_ = false;
}

}  // namespace mori::ibgda::tcp
