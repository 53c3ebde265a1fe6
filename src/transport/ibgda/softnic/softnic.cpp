// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/transport/ibgda/softnic/softnic.hpp"

#include <sched.h>
#include <time.h>

#include <algorithm>
#include <cstring>
#include <deque>
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
constexpr std::chrono::microseconds kRest{50};
constexpr std::chrono::seconds kFarewell{2};  // for what peers have not answered when the NIC stops

template <class T>
T* at(uint64_t address) {
  return reinterpret_cast<T*>(address);
}

uint64_t power_of_two(uint64_t least) {
  uint64_t value = 1;
  while (value < least) value *= 2;
  return value;
}

}  // namespace

/// A request that its mover has.
struct SoftNic::Flying {
  uint64_t first;  ///< position
  bool signaled;
  bool over;  ///< needs no mover: it waits for what is in front of it
};

/// A queue as the NIC knows it: what it has done is its own business, not what the poster keeps in Queue.
struct SoftNic::Served {
  Queue* queue;
  Queue format;            ///< the constants, as they were made
  RemoteWindow remote;     ///< shm
  uint32_t number = 0;     ///< for the mover
  Mover* mover = nullptr;  ///< null: shm
  Doorbells bells;
  uint64_t executed = 0;        ///< position: what is in front of it was handed to the mover
  uint64_t messages = 0;        ///< requests handed on
  uint64_t finished = 0;        ///< of those, what is over
  std::deque<Flying> flying;    ///< handed on and not over
  uint32_t owed = 0;            ///< completions that those will bring
  Fault verdict = Fault::none;  ///< how the entry at `executed` ends once nothing flies any more
  uint64_t end = 0;             ///< position up to which the poster has rung
  uint64_t packets = 0;         ///< bnxt_re: the next PSN
  uint64_t completions = 0;     ///< written
  uint32_t blind = 0;           ///< looks for which no doorbell is seen (a fault)
  uint64_t lost = 0;            ///< the doorbell that is not seen (a fault)
  uint32_t lost_looks = 0;      ///< and for how many looks
  bool dead = false;

  uint32_t unit() const { return format.family == Family::bnxt_re ? BnxtRe::kSlots : 1; }
  bool goes_on() const { return !dead && verdict == Fault::none; }
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

uint32_t SoftNic::create_queue(Queue* queue, const QueueOptions& o) {
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
  served->number = uint32_t(queues_.size());
  served->mover = o.mover;
  if (o.mover != nullptr && std::find(movers_.begin(), movers_.end(), o.mover) == movers_.end()) {
    movers_.push_back(o.mover);
    o.mover->open(regions_);
  }
  served->format = *queue;
  served->bells.begin(*queue, first, o.first_completion);
  served->executed = first;
  served->messages = served->finished = served->packets = o.first_entry;
  served->completions = o.first_completion;
  queues_.push_back(std::move(served));
  return queues_.back()->number;
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
  for (Mover* mover : movers_) worked = poll(*mover) || worked;
  return worked;
}

void SoftNic::run() {
  uint32_t idle = 0;
  while (!leaving_.load(std::memory_order_acquire)) {
    idle = step() ? 0 : idle + 1;
    if (idle > 2000) {  // some milliseconds without work
      rest(kRest);
    } else if (idle > 50) {
      sched_yield();  // whoever posts may share this core
    }
  }
  // What was announced before is executed: peers wait for the last signals of a rank that leaves.
  for (uint32_t round = 0; round < 100'000 && step(); ++round) {
  }
  const auto enough = std::chrono::steady_clock::now() + kFarewell;
  while (pending() && std::chrono::steady_clock::now() < enough) {
    if (!step()) rest(kRest);
  }
  const Held held(*this);
  for (Mover* mover : movers_) mover->close();
}

bool SoftNic::pending() const {
  return std::any_of(queues_.begin(), queues_.end(), [](const auto& q) { return !q->flying.empty(); });
}

/// Nothing to do: for a while, or until a mover has something.
void SoftNic::rest(std::chrono::microseconds time) {
  if (!movers_.empty()) return movers_.front()->wait(time);
  const timespec pause{0, time.count() * 1000};
  nanosleep(&pause, nullptr);
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
  if (!served.bells.news(served.executed) || (!served.dead && !served.goes_on())) return false;
  if (put_off(served)) return true;
  while (asking_.load(std::memory_order_relaxed) != 0) sched_yield();
  const std::lock_guard lock(work_);
  const Queue& q = served.format;
  std::string wrong;
  const uint64_t end = served.end = served.bells.look(served.executed, wrong);
  if (served.dead) {  // what is rung for a dead queue comes back
    if (wrong.empty() && end != served.executed) flush(served, served.executed, end);
    return true;
  }
  if (wrong.empty()) wrong = served.bells.look_at_completions(served.completions);
  if (!wrong.empty()) {
    violated(served, wrong);
    end_with(served, Fault::bad_entry);
  }
  for (uint32_t i = 0; i < kBatch && served.executed < end && served.goes_on(); ++i) {
    Entry entry;
    if (wrong.empty()) entry = decode(q, served.executed, wrong);
    if (wrong.empty() && q.family == Family::bnxt_re) wrong = wrong_line(served, entry.request);
    if (wrong.empty() && served.executed + entry.units > end) wrong = "the doorbell names half of an entry";
    if (wrong.empty() && (entry.request.flags & kSignaled) != 0 &&
        served.bells.room(served.completions) <= served.owed)
      wrong = "the completion ring is full";
    if (!wrong.empty()) {
      violated(served, wrong);
      end_with(served, Fault::bad_entry);
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
      end_with(served, faults_.fail_with);
      break;
    }
    const Outcome outcome = execute(served, request);
    if (outcome.state == Outcome::State::busy) return i != 0;
    if (outcome.fault != Fault::none) {
      end_with(served, outcome.fault);
      break;
    }
    const uint64_t first = served.executed;
    const bool signaled = (request.flags & kSignaled) != 0;
    served.executed += entry.units;
    ++served.messages;
    if (q.family == Family::bnxt_re) served.packets += BnxtRe::packets(request.op, request.length, q.mtu);
    served.bells.done(first);
    with_family(q.family, [&](auto family) {
      for (uint64_t p = first; p < served.executed; ++p)
        std::memset(at<char>(q.sq + p % q.depth * family.kUnit), kPoison, family.kUnit);
    });
    executed_.store(number + 1, std::memory_order_relaxed);
    if (outcome.state == Outcome::State::pending || !served.flying.empty()) {
      served.flying.push_back({first, signaled, outcome.state == Outcome::State::done});
      served.owed += signaled ? 1 : 0;
    } else {
      ++served.finished;
      if (signaled) complete(served, first, Fault::none);
    }
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
  if (!served.goes_on()) return true;
  if (chance(&Faults::again)) served.bells.forget();
  if (chance(&Faults::stale) && !served.bells.stale(served.executed))
    violated(served, "a doorbell that came again was taken for one of entries not rung yet");
  return true;
}

/// The entry at `executed` fails, behind everything that flies: then the queue is dead.
void SoftNic::end_with(Served& served, Fault fault) {
  served.verdict = fault;
  if (!served.flying.empty()) return;
  complete(served, served.executed, fault);
  if (served.end > served.executed) flush(served, served.executed + served.unit(), served.end);
}

/// The NIC reports each entry from `begin` to `end` as flushed, as far as the ring has room.
void SoftNic::flush(Served& served, uint64_t begin, uint64_t end) {
  static_cast<void>(served.bells.look_at_completions(served.completions));
  for (uint64_t p = begin; p < end && served.bells.room(served.completions) > 0; p += served.unit()) {
    ++served.finished;
    complete(served, p, Fault::flushed);
  }
  served.executed = end;
}

bool SoftNic::poll(Mover& mover) {
  while (asking_.load(std::memory_order_relaxed) != 0) sched_yield();
  const std::lock_guard lock(work_);
  return mover.poll([this](uint32_t queue, Fault fault) { finish(*queues_[queue], fault); });
}

/// The oldest request that the queue's mover had is over; with it, what waited behind it alone.
void SoftNic::finish(Served& served, Fault fault) {
  const uint64_t first = served.flying.front().first;
  if (fault != Fault::none) {
    served.flying.clear();
    complete(served, first, fault);
    return flush(served, first + served.unit(), served.executed);
  }
  do {
    const Flying done = served.flying.front();
    served.flying.pop_front();
    ++served.finished;
    if (!done.signaled) continue;
    --served.owed;
    complete(served, done.first, Fault::none);
  } while (!served.flying.empty() && served.flying.front().over);
  if (served.flying.empty() && served.verdict != Fault::none) end_with(served, served.verdict);
}

std::string SoftNic::wrong_line(Served& served, const Request& r) const {
  const Queue& q = served.format;
  const uint64_t line = at<uint64_t>(q.msn)[served.messages & (q.msn_entries - 1)];
  const uint64_t next = served.packets + BnxtRe::packets(r.op, r.length, q.mtu);
  const uint64_t wanted =
      (served.packets & 0xffffff) | (next & 0xffffff) << 24 | served.executed % q.depth << 48;
  return line == wanted ? "" : "the line of the MSN table is not that of this request";
}

Outcome SoftNic::execute(Served& served, const Request& r) {
  if (r.op == Op::nop || r.length == 0) return {};
  if ((r.flags & kInline) == 0 && !regions_.local_holds(r.lkey, r.local, r.length))
    return {.fault = Fault::local_protection};
  if (served.mover != nullptr) return served.mover->submit(served.number, r);
  const bool scattered = r.op == Op::write && r.length > 16 && chance(&Faults::scatter);
  return {.fault = move_by_shm(served.remote, r, scattered ? random_ : 0)};
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
    *at<uint32_t>(entry + 8) = uint32_t(served.finished + (status != 0 ? 1 : 0)) & (held - 1);
    __atomic_store_n(at<uint64_t>(entry + 24), phase | uint64_t(status) << 8, __ATOMIC_RELEASE);
    return;
  }
  *at<uint32_t>(entry + 4) = __builtin_bswap32(uint32_t(served.finished) & 0xffffff);
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
