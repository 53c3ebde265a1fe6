// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/transport/ibgda/softnic/softnic.hpp"

#include <sched.h>
#include <time.h>

#include <algorithm>
#include <cstring>
#include <random>

#include "src/core/errors.hpp"
#include "src/transport/ibgda/providers/table.hpp"
#include "src/transport/ibgda/softnic/decode.hpp"
#include "src/transport/ibgda/softnic/doorbells.hpp"

namespace mori::ibgda {
namespace {

constexpr unsigned char kPoison = 0xEE;  // of executed entries
constexpr size_t kMostViolations = 100;
constexpr uint32_t kBatch = 64;  // entries of a queue before the next one's turn
constexpr uint32_t kBlind = 20;  // looks for which a late doorbell is not seen
constexpr uint32_t kLost = 200;  // and a lost one, when no other comes

template <class T>
T* at(uint64_t address) {
  return reinterpret_cast<T*>(address);
}

/// Words arrive whole: somebody may be polling one, or reading it as it is written.
void move(uint64_t to, uint64_t from, uint64_t bytes) {
  const uint64_t both = to | from;
  if (bytes == 8 && both % 8 == 0) {
    __atomic_store_n(at<uint64_t>(to), __atomic_load_n(at<uint64_t>(from), __ATOMIC_ACQUIRE),
                     __ATOMIC_RELEASE);
  } else if (bytes == 4 && both % 4 == 0) {
    __atomic_store_n(at<uint32_t>(to), __atomic_load_n(at<uint32_t>(from), __ATOMIC_ACQUIRE),
                     __ATOMIC_RELEASE);
  } else {
    std::memcpy(at<void>(to), at<void>(from), bytes);
  }
}
void place(uint64_t to, const unsigned char* payload, uint32_t bytes) {
  if (bytes == 8 && to % 8 == 0) {
    uint64_t word;
    std::memcpy(&word, payload, 8);
    __atomic_store_n(at<uint64_t>(to), word, __ATOMIC_RELEASE);
  } else if (bytes == 4 && to % 4 == 0) {
    uint32_t word;
    std::memcpy(&word, payload, 4);
    __atomic_store_n(at<uint32_t>(to), word, __ATOMIC_RELEASE);
  } else {
    std::memcpy(at<void>(to), payload, bytes);
  }
}

/// Addition in fields: a bit of `boundary` is the last of a field and carries nothing on.
template <class T>
T add_in_fields(T left, T right, T boundary) {
  if (boundary == 0) return T(left + right);
  T sum = 0, carry = 0;
  for (uint32_t i = 0; i < 8 * sizeof(T); ++i) {
    const T bits = T((left >> i & 1) + (right >> i & 1) + carry);
    sum |= T((bits & 1) << i);
    carry = (boundary >> i & 1) != 0 ? T(0) : T(bits >> 1);
  }
  return sum;
}

template <class T>
T change(uint64_t address, const Request& r) {
  T* word = at<T>(address);
  T old = __atomic_load_n(word, __ATOMIC_ACQUIRE);
  for (;;) {
    T next = old;
    switch (r.op) {
      case Op::fetch_add:
        next = T(old + T(r.value));
        break;
      case Op::masked_fetch_add:
        next = add_in_fields(old, T(r.value), T(r.compare_mask));
        break;
      case Op::compare_swap:
        if (old != T(r.compare)) return old;
        next = T(r.value);
        break;
      default:
        if (((old ^ T(r.compare)) & T(r.compare_mask)) != 0) return old;
        next = T((old & T(~r.value_mask)) | (T(r.value) & T(r.value_mask)));
    }
    if (__atomic_compare_exchange_n(word, &old, next, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) return old;
  }
}

uint64_t power_of_two(uint64_t least) {
  uint64_t value = 1;
  while (value < least) value *= 2;
  return value;
}

}  // namespace

uint32_t status_of(Family family, Fault fault) {
  static constexpr uint32_t kTable[4][11] = {
      {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
      {0, 0x02, 0x01, 0x04, 0x10, 0x12, 0x13, 0x14, 0x15, 0x16, 0x05},  // mlx5: syndromes
      {0, 3, 2, 4, 1, 6, 7, 8, 10, 9, 11},                              // bnxt_re: requester status
      {0, 2, 1, 3, 6, 8, 9, 10, 11, 12, 4},                             // ionic
  };
  return kTable[uint32_t(family)][uint32_t(fault)];
}

/// A queue as the NIC knows it: what it has done is its own business, not what the poster keeps in Queue.
struct SoftNic::Served {
  Queue* queue;
  Queue format;  ///< the constants, as they were made
  RemoteWindow remote;
  Doorbells bells;
  uint64_t executed = 0;     ///< position
  uint64_t messages = 0;     ///< requests executed
  uint64_t packets = 0;      ///< bnxt_re: the next PSN
  uint64_t completions = 0;  ///< written
  uint32_t blind = 0;        ///< looks for which no doorbell is seen (a fault)
  uint64_t lost = 0;         ///< the doorbell that is not seen (a fault)
  uint32_t lost_looks = 0;   ///< and for how many looks
  bool dead = false;
};

/// The lock of whoever changes regions: the NIC goes on when nobody asks any more.
struct SoftNic::Held {
  explicit Held(SoftNic& nic) : nic_(nic) {
    nic_.asking_.fetch_add(1);
    nic_.work_.lock();
  }
  ~Held() {
    nic_.work_.unlock();
    nic_.asking_.fetch_sub(1);
  }
  SoftNic& nic_;
};

SoftNic::SoftNic(Memory memory)
    : memory_(std::move(memory)), next_number_(0x100 + std::random_device()() % 0x80000) {}
SoftNic::~SoftNic() { stop(); }

RegionKeys SoftNic::add_region(uint64_t address, uint64_t bytes) {
  const Held held(*this);
  return regions_.add(address, bytes);
}

void SoftNic::resize_region(uint32_t local_key, uint64_t bytes) {
  const Held held(*this);
  regions_.resize(local_key, bytes);
}

void SoftNic::remove_region(uint32_t local_key) {
  const Held held(*this);
  regions_.remove(local_key);
}

void SoftNic::create_queue(Queue* queue, const QueueOptions& o) {
  auto served = std::make_unique<Served>();
  const uint64_t entries = power_of_two(std::max(o.depth, 8u));
  const uint64_t first = o.first_entry * (o.family == Family::bnxt_re ? BnxtRe::kSlots : 1);
  if (o.rings != nullptr) {
    *queue = *o.rings;
    queue->blueflame = 0;
    queue->doorbell = memory_(64);
  } else {
    *queue = Queue{};
    queue->family = o.family;
    queue->qpn = next_number_++;
    queue->cqn = next_number_++;
    queue->mtu = o.mtu;
    with_family(o.family, [&](auto family) {
      queue->depth = uint32_t(entries * (o.family == Family::bnxt_re ? BnxtRe::kSlots : 1));
      queue->cq_depth = uint32_t(power_of_two(queue->depth));
      queue->max_inline = family.kMaxInline;
      queue->sq = memory_(uint64_t(queue->depth) * family.kUnit);
      queue->cq = memory_(uint64_t(queue->cq_depth) * family.kCompletionBytes);
    });
    queue->doorbell = memory_(64);
    queue->cq_doorbell = memory_(64);
    if (o.family == Family::mlx5) queue->record = memory_(64);
    if (o.family == Family::bnxt_re) {
      queue->msn_entries = uint32_t(entries);
      queue->msn = memory_(entries * 8);
    }
  }
  queue->peer = o.peer;
  queue->first_position = queue->reserved = queue->published = queue->rung = queue->completed = first;
  queue->messages = queue->packets = queue->completed_messages = o.first_entry;
  queue->consumed = o.first_completion;
  if (o.family == Family::mlx5) {
    at<uint32_t>(queue->record)[1] = __builtin_bswap32(uint32_t(first) & 0xffffu);
    at<uint32_t>(queue->cq_doorbell)[0] = __builtin_bswap32(uint32_t(o.first_completion) & 0xffffffu);
    // the owner bit of an entry that is not written yet is that of the lap before
    for (uint64_t i = 0; i < queue->cq_depth; ++i) {
      const uint64_t count = o.first_completion + i, lap = count / queue->cq_depth;
      at<unsigned char>(queue->cq)[(count & (queue->cq_depth - 1)) * Mlx5::kCompletionBytes + 63] =
          static_cast<unsigned char>(Mlx5::kInvalid << 4 | ((lap & 1) ^ 1));
    }
  } else if (o.family == Family::ionic) {
    *at<uint64_t>(queue->doorbell) = uint64_t(queue->qpn) << 24 | first % queue->depth;
  }
  // bnxt_re and ionic: an entry is there when its phase is 1 in even laps, 0 in odd ones; before, it is not
  for (uint64_t i = 0; o.family != Family::mlx5 && i < queue->cq_depth; ++i) {
    const uint64_t count = o.first_completion + i, lap = count / queue->cq_depth;
    at<unsigned char>(
        queue->cq)[(count & (queue->cq_depth - 1)) * 32 + (o.family == Family::ionic ? 31 : 24)] =
        static_cast<unsigned char>(lap & 1);
  }
  served->queue = queue;
  served->format = *queue;
  served->bells.begin(*queue, first, o.first_completion);
  served->executed = first;
  served->messages = served->packets = o.first_entry;
  served->completions = o.first_completion;
  queues_.push_back(std::move(served));
}

void SoftNic::connect(const Queue* queue, const RemoteWindow& peer) {
  const Held held(*this);
  for (auto& served : queues_) {
    if (served->queue == queue) served->remote = peer;
  }
}

void SoftNic::start() {
  leaving_.store(false, std::memory_order_release);
  if (!thread_.joinable()) thread_ = std::thread([this] { run(); });
}

void SoftNic::stop() {
  leaving_.store(true, std::memory_order_release);
  if (!thread_.joinable()) return;
  thread_.join();
  for (const auto& served : queues_) {
    if (served->dead) continue;
    violated(*served, served->bells.unrung());
    violated(*served, served->bells.look_at_completions(served->completions));
  }
}

bool SoftNic::step() {
  bool worked = false;
  for (auto& served : queues_) worked = serve(*served) || worked;
  return worked;
}

void SoftNic::run() {
  uint32_t idle = 0;
  while (!leaving_.load(std::memory_order_acquire)) {
    idle = step() ? 0 : idle + 1;
    if (idle > 2000) {  // some milliseconds without work
      const timespec pause{0, 50'000};
      nanosleep(&pause, nullptr);
    } else if (idle > 50) {
      sched_yield();  // whoever posts may share this core
    }
  }
  // What was announced before is executed: peers wait for the last signals of a rank that leaves.
  for (uint32_t round = 0; round < 100'000 && step(); ++round) {
  }
}

/// Whether a fault comes true this time.
bool SoftNic::chance(uint32_t Faults::* which) {
  if (faults_.*which == 0) return false;
  random_ ^= random_ << 13;  // xorshift
  random_ ^= random_ >> 7;
  random_ ^= random_ << 17;
  const bool comes = random_ % 1024 < faults_.*which;
  happened_.*which += comes ? 1 : 0;
  return comes;
}

/// Whether a fault keeps the queue from its turn.
bool SoftNic::put_off(Served& served) {
  if (served.blind != 0) {
    --served.blind;
    return true;
  }
  if (chance(&Faults::skip)) return true;
  if (chance(&Faults::late_doorbell)) served.blind = kBlind;
  if (served.lost_looks == 0 && served.bells.rung() != served.lost && chance(&Faults::lost)) {
    served.lost = served.bells.rung();
    served.lost_looks = kLost;
  }
  if (served.lost_looks != 0 && served.bells.rung() != served.lost) served.lost_looks = 0;
  if (served.lost_looks != 0) --served.lost_looks;
  return served.blind != 0 || served.lost_looks != 0;
}

bool SoftNic::serve(Served& served) {
  if (!served.bells.news(served.executed)) return false;
  if (put_off(served)) return true;
  while (asking_.load(std::memory_order_relaxed) != 0) sched_yield();
  const std::lock_guard lock(work_);
  const Queue& q = served.format;
  std::string wrong;
  const uint64_t end = served.bells.look(served.executed, wrong);
  if (served.dead) {  // what is rung for a dead queue comes back
    if (wrong.empty() && end != served.executed) flush(served, served.executed, end);
    return true;
  }
  if (wrong.empty()) wrong = served.bells.look_at_completions(served.completions);
  if (!wrong.empty()) {
    violated(served, wrong);
    complete(served, served.executed, Fault::bad_entry);
  }
  for (uint32_t i = 0; i < kBatch && served.executed < end && !served.dead; ++i) {
    Entry entry;
    if (wrong.empty()) entry = decode(q, served.executed, wrong);
    if (wrong.empty() && q.family == Family::bnxt_re) wrong = wrong_line(served, entry.request);
    if (wrong.empty() && served.executed + entry.units > end) wrong = "the doorbell names half of an entry";
    if (wrong.empty() && (entry.request.flags & kSignaled) != 0 && served.bells.room(served.completions) == 0)
      wrong = "the completion ring is full";
    if (!wrong.empty()) {
      violated(served, wrong);
      complete(served, served.executed, Fault::bad_entry);
      break;
    }
    if (chance(&Faults::retry)) return true;  // the receiver is not ready
    if (chance(&Faults::delay)) {
      const timespec pause{0, long(faults_.delay_us) * 1000};
      nanosleep(&pause, nullptr);
    }
    Request request = entry.request;
    if (entry.payload != nullptr) request.local = reinterpret_cast<uint64_t>(entry.payload);
    const uint64_t number = executed_.load(std::memory_order_relaxed);
    if (number == faults_.fail_at && !failed_on_purpose_) {
      failed_on_purpose_ = true;  // the number stays: the next entry of another queue is not meant
      complete(served, served.executed, faults_.fail_with);
      break;
    }
    execute(served, request);
    if (served.dead) break;
    const uint64_t first = served.executed;
    served.executed += entry.units;
    ++served.messages;
    if (q.family == Family::bnxt_re) served.packets += BnxtRe::packets(request.op, request.length, q.mtu);
    served.bells.done(first);
    with_family(q.family, [&](auto family) {
      for (uint64_t p = first; p < served.executed; ++p)
        std::memset(at<char>(q.sq + p % q.depth * family.kUnit), kPoison, family.kUnit);
    });
    executed_.store(number + 1, std::memory_order_relaxed);
    if ((request.flags & kSignaled) != 0) complete(served, first, Fault::none);
    if (chance(&Faults::early)) {  // what is behind the doorbell may be half written: nobody minds
      unsigned char thrown_away[64];
      for (uint64_t k = 0; k < sizeof thrown_away; k += 8) {
        const uint64_t word =
            __atomic_load_n(at<uint64_t>(q.sq + end % q.depth * (q.family == Family::bnxt_re ? 16 : 64) +
                                         (q.family == Family::bnxt_re ? k % 16 : k)),
                            __ATOMIC_RELAXED);
        std::memcpy(thrown_away + k, &word, 8);
      }
    }
  }
  if (served.dead) {
    const uint32_t unit = q.family == Family::bnxt_re ? BnxtRe::kSlots : 1;
    if (end > served.executed) flush(served, served.executed + unit, end);
    return true;
  }
  if (chance(&Faults::again)) served.bells.forget();
  if (chance(&Faults::stale) && !served.bells.stale(served.executed))
    violated(served, "a doorbell that came again was taken for one of entries not rung yet");
  return true;
}

/// The NIC reports each entry from `begin` to the doorbell as flushed, as far as the ring has room.
void SoftNic::flush(Served& served, uint64_t begin, uint64_t end) {
  const uint32_t unit = served.format.family == Family::bnxt_re ? BnxtRe::kSlots : 1;
  static_cast<void>(served.bells.look_at_completions(served.completions));
  for (uint64_t p = begin; p < end && served.bells.room(served.completions) > 0; p += unit) {
    ++served.messages;
    complete(served, p, Fault::flushed);
  }
  served.executed = end;
}

std::string SoftNic::wrong_line(Served& served, const Request& r) const {
  const Queue& q = served.format;
  const uint64_t line = at<uint64_t>(q.msn)[served.messages & (q.msn_entries - 1)];
  const uint64_t next = served.packets + BnxtRe::packets(r.op, r.length, q.mtu);
  const uint64_t wanted =
      (served.packets & 0xffffff) | (next & 0xffffff) << 24 | served.executed % q.depth << 48;
  return line == wanted ? "" : "the line of the MSN table is not that of this request";
}

void SoftNic::execute(Served& served, const Request& r) {
  const bool inlined = (r.flags & kInline) != 0;
  if (r.op == Op::nop || r.length == 0) return;
  Fault fault = Fault::none;
  const uint64_t into = r.remote - served.remote.address;
  const bool atomic = r.op != Op::write && r.op != Op::read;
  if (!inlined && !regions_.local_holds(r.lkey, r.local, r.length)) {
    fault = Fault::local_protection;
  } else if (r.rkey != served.remote.rkey || r.length > served.remote.bytes ||
             into > served.remote.bytes - r.length) {
    fault = Fault::remote_access;
  } else if (atomic && ((r.length != 4 && r.length != 8) || r.remote % r.length != 0)) {
    fault = Fault::remote_invalid;
  }
  if (fault != Fault::none) return complete(served, served.executed, fault);
  const uint64_t there = served.remote.mapped + into;
  if (r.op == Op::write) {
    if (r.length > 16 && chance(&Faults::scatter)) {
      place_scattered(there, r.local, r.length);
    } else {
      inlined ? place(there, at<unsigned char>(r.local), r.length) : move(there, r.local, r.length);
    }
  } else if (r.op == Op::read) {
    move(r.local, there, r.length);
  } else if (r.length == 8) {
    __atomic_store_n(at<uint64_t>(r.local), change<uint64_t>(there, r), __ATOMIC_RELEASE);
  } else {  // these NICs return fetched words of 4 bytes as they travel
    __atomic_store_n(at<uint32_t>(r.local), __builtin_bswap32(change<uint32_t>(there, r)), __ATOMIC_RELEASE);
  }
}

/// In pieces, the last first, or from the middle: nobody may rely on the order inside a message.
void SoftNic::place_scattered(uint64_t to, uint64_t from, uint64_t bytes) {
  const uint64_t pieces = 2 + random_ % 7, start = random_ >> 8, piece = (bytes / pieces + 8) / 8 * 8;
  for (uint64_t i = 0; i < pieces; ++i) {
    const uint64_t begin = (start + pieces - i) % pieces * piece;
    if (begin < bytes)
      std::memcpy(at<char>(to + begin), at<char>(from + begin), std::min(piece, bytes - begin));
  }
}

/// Writes the completion of the entry at `first`; with a status the queue is dead. Body first, what makes it
/// valid last.
void SoftNic::complete(Served& served, uint64_t first, Fault fault) {
  const Queue& q = served.format;
  const uint32_t status = status_of(q.family, fault);
  const uint64_t index = served.completions & (q.cq_depth - 1), lap = served.completions / q.cq_depth;
  ++served.completions;
  served.dead = served.dead || status != 0;
  if (q.family == Family::mlx5) {
    const uint64_t entry = q.cq + index * Mlx5::kCompletionBytes;
    unsigned char* bytes = at<unsigned char>(entry);
    bytes[54] = 0;
    bytes[55] = static_cast<unsigned char>(status);
    const uint32_t code = status != 0 ? Mlx5::kRequesterError : Mlx5::kRequester;
    const uint32_t tail = (first >> 8 & 0xff) | (first & 0xff) << 8 | uint32_t(code << 4 | (lap & 1)) << 24;
    __atomic_store_n(at<uint32_t>(entry + 60), tail, __ATOMIC_RELEASE);
    return;
  }
  const uint64_t entry = q.cq + index * 32, phase = (lap & 1) ^ 1;
  if (q.family == Family::bnxt_re) {
    const uint32_t held = q.depth / BnxtRe::kSlots;
    *at<uint32_t>(entry + 8) = uint32_t(served.messages + (status != 0 ? 1 : 0)) & (held - 1);
    __atomic_store_n(at<uint64_t>(entry + 24), phase | uint64_t(status) << 8, __ATOMIC_RELEASE);
    return;
  }
  *at<uint32_t>(entry + 4) = __builtin_bswap32(uint32_t(served.messages) & 0xffffff);
  const uint32_t last = q.qpn << 8 | Ionic::kSendMsn << 5 | (status != 0 ? 2u : 0u) | uint32_t(phase);
  const uint64_t tail = __builtin_bswap32(status) | uint64_t(__builtin_bswap32(last)) << 32;
  __atomic_store_n(at<uint64_t>(entry + 24), tail, __ATOMIC_RELEASE);
}

void SoftNic::violated(const Served& served, const std::string& what) {
  if (what.empty()) return;
  const std::lock_guard lock(said_);
  if (violations_.size() >= kMostViolations) return;
  violations_.push_back("queue " + std::to_string(served.format.qpn) + " to rank " +
                        std::to_string(served.format.peer) + ", position " + std::to_string(served.executed) +
                        ": " + what);
}

std::vector<std::string> SoftNic::violations() const {
  const std::lock_guard lock(said_);
  return violations_;
}

}  // namespace mori::ibgda
