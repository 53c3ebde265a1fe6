// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/transport/ibgda/tcp/guest.hpp"

#include <sys/epoll.h>

#include "src/transport/ibgda/softnic/shm_mover.hpp"

namespace mori::ibgda::tcp {
namespace {

constexpr uint64_t kTurn = 1 << 20;    // bytes of requests before others have their turn
constexpr uint64_t kCopied = 8 << 10;  // of a read: more is sent from where it lies

}  // namespace

bool same(const Secret& left, const Secret& right) {
  unsigned differ = 0;
  for (size_t i = 0; i < left.size(); ++i) differ |= unsigned(left[i] ^ right[i]);
  return differ == 0;
}

uint32_t Guest::wants() const {
  return (full() ? 0 : uint32_t(EPOLLIN)) | (outbox_.empty() ? 0 : uint32_t(EPOLLOUT));
}

bool Guest::work(const House& house, const Regions& regions) {
  uint64_t moved = outbox_.send(fd_.get(), regions);
  if (!known_ && !greet(house)) return false;
  holding_ = holding_ && !outbox_.empty();
  uint64_t budget = kTurn;
  while (budget > 0 && !full()) {
    if (!execute(regions, budget)) break;
  }
  unfinished_ = budget == 0;
  if (done_ > 0) {
    answer(Answer::done, done_);
    done_ = 0;
  }
  moved += outbox_.send(fd_.get(), regions);
  holding_ = holding_ && !outbox_.empty();
  return moved > 0 || budget < kTurn;
}

/// Whoever does not know this NIC's secret gets no word.
bool Guest::greet(const House& house) {
  const unsigned char* bytes = inbox_.take(sizeof(Hello));
  while (bytes == nullptr) {
    if (inbox_.fill(fd_.get()) == 0) return false;
    bytes = inbox_.take(sizeof(Hello));
  }
  Hello hello;
  std::memcpy(&hello, bytes, sizeof hello);
  if (hello.magic != kMagic) throw Broken{"its first bytes are no hello of this version"};
  if (!same(hello.secret, house.secret)) throw Broken{"it does not know the secret"};
  if (hello.world != house.world || hello.rank >= house.world || hello.rank == house.rank)
    throw Broken{"it says that it is rank " + std::to_string(hello.rank) + " of " +
                 std::to_string(hello.world)};
  if (house.inside[hello.rank]) throw Broken{"its rank is connected already"};
  rank_ = hello.rank;
  known_ = true;
  hello.rank = house.rank;
  hello.secret = house.doors[rank_].secret;
  outbox_.add(hello);
  return true;
}

/// One step: a head, or what belongs to it. False: nothing more is here.
bool Guest::execute(const Regions& regions, uint64_t& budget) {
  if (landing_.left > 0) {
    if (!landing_.go_on(fd_.get(), inbox_, regions, budget)) return false;
    over(fault_ == Fault::none && !landing_.good ? Fault::remote_access : fault_);
    return true;
  }
  Request r;
  const bool atomic = has_head_ && is_atomic(Op(head_.op));
  const uint64_t wanted = atomic ? sizeof(Operands) : sizeof head_;
  const unsigned char* bytes = inbox_.take(wanted);
  if (bytes == nullptr) return inbox_.fill(fd_.get()) > 0;
  budget -= std::min(budget, wanted);
  if (!has_head_) {
    std::memcpy(&head_, bytes, sizeof head_);
    has_head_ = true;
    const Op op = Op(head_.op);
    const bool known = op == Op::write || op == Op::read || is_atomic(op);
    if (!known || head_.lane >= kLanes || head_.zero != 0 || head_.zero_too != 0 || head_.length == 0)
      throw Broken{"it sent what is no request"};
    if (is_atomic(op)) return true;
  } else {
    Operands o;
    std::memcpy(&o, bytes, sizeof o);
    r.value = o.value, r.compare = o.compare, r.value_mask = o.value_mask, r.compare_mask = o.compare_mask;
  }
  r.op = Op(head_.op);
  r.length = head_.length;
  r.remote = head_.remote;
  r.rkey = head_.rkey;
  has_head_ = false;
  Fault fault = atomic_fault(r);
  if (!regions.remote_holds(r.rkey, r.remote, r.length)) fault = Fault::remote_access;
  if ((dead_ >> head_.lane & 1) != 0) fault = Fault::flushed;
  if (r.op == Op::write) {
    fault_ = fault;
    landing_ = Landing(r.remote, r.length, Regions::local_of(r.rkey), fault == Fault::none);
  } else if (fault != Fault::none) {
    over(fault);
  } else if (r.op == Op::read) {
    read(r, regions);
  } else {
    answer(Answer::word, 0, change_word(r.remote, r));
  }
  return true;
}

void Guest::read(const Request& r, const Regions& regions) {
  answer(Answer::data, r.length);
  if (r.length <= 8) {
    alignas(8) unsigned char word[8];
    move_bytes(reinterpret_cast<uint64_t>(word), r.remote, r.length);
    outbox_.add(word, r.length);
  } else if (r.length <= kCopied) {
    outbox_.add(reinterpret_cast<const void*>(r.remote), r.length);
  } else {
    outbox_.refer(r.remote, r.length, Regions::local_of(r.rkey));
    outbox_.send(fd_.get(), regions);
    holding_ = !outbox_.empty();
  }
}

/// A write is done, or a request has a fault.
void Guest::over(Fault fault) {
  if (fault == Fault::none) {
    ++done_;
    return;
  }
  dead_ |= uint64_t(1) << head_.lane;
  answer(Answer::no, 0, 0, fault);
}

/// Answers come in the order of requests: those of writes that are done first.
void Guest::answer(Answer kind, uint32_t count, uint64_t word, Fault fault) {
  if (kind != Answer::done && done_ > 0) {
    outbox_.add(AnswerHead{.kind = Answer::done, .fault = 0, .zero = 0, .count = done_, .word = 0});
    done_ = 0;
  }
  outbox_.add(AnswerHead{.kind = kind, .fault = uint8_t(fault), .zero = 0, .count = count, .word = word});
}

}  // namespace mori::ibgda::tcp
