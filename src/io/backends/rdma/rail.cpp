// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/io/backends/rdma/rail.hpp"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <random>
#include <thread>

#include "src/io/errors.hpp"
#include "src/transport/verbs/connect.hpp"

namespace mori::io::rdma {
namespace {

constexpr size_t kMaxRailsPerPeer = 64;
constexpr uint32_t kSpareCompletions = 16;
[[noreturn]] void fail(const Nic& nic, const std::string& what, int error) {
  throw core::TransportError(nic.who() + ": " + what + ": " + std::strerror(error));
}

uint32_t random_psn() {
  static thread_local std::mt19937 generator{std::random_device{}()};
  return generator() & 0xffffff;
}

uint8_t read_depth(const Nic& nic) { return uint8_t(std::clamp(nic.limits().max_qp_init_rd_atom, 1, 16)); }
uint8_t serve_depth(const Nic& nic) { return uint8_t(std::clamp(nic.limits().max_qp_rd_atom, 1, 16)); }

struct Ends {
  Address mine, theirs;
  QueueEnd local, remote;
  uint8_t reads = 1;   ///< this side's, in flight
  uint8_t serves = 1;  ///< the peer's
};

void to_ready(const Nic& nic, verbs::Qp* qp, const Ends& ends, const Config& config) {
  verbs::to_ready(nic.v(), qp,
                  {.mine = nic.end(ends.mine),
                   .theirs = ends.theirs,
                   .remote_number = ends.remote.number,
                   .local_psn = ends.local.psn,
                   .remote_psn = ends.remote.psn,
                   .reads = ends.reads,
                   .serves = ends.serves,
                   .traffic_class = config.traffic_class,
                   .service_level = config.service_level,
                   .timeout = config.timeout,
                   .retry_count = config.retry_count},
                  nic.who());
}

}  // namespace

// ---- the initiator's end -------------------------------------------------------------------------------

Rail::Rail(Nic& from, const NicCard& to, uint64_t number, const Config& config)
    : nic(from), remote(to), epoch(number), address(from.address()) {
  const uint32_t count = std::clamp<uint32_t>(config.qp_per_transfer, 1, kMaxQueuesPerRail);
  // Each flushed work request completes, signalled or not: the completion queue has room for all of them.
  const uint32_t entries =
      std::min(config.max_cqe, uint32_t(std::max(nic.limits().max_cqe, int(2 * kSpareCompletions))));
  uint32_t depth = std::min(config.max_send_wr, uint32_t(std::max(nic.limits().max_qp_wr, 1)));
  depth = std::max(1u, std::min(depth, (entries - std::min(entries / 2, kSpareCompletions)) / count));
  max_sge =
      uint32_t(std::clamp(std::min(nic.limits().max_sge, nic.limits().max_sge_rd > 0 ? nic.limits().max_sge_rd
                                                                                     : nic.limits().max_sge),
                          1, int(config.max_sge)));
  inline_bytes = config.inline_bytes;
  queues.resize(count);
  try {
    cq = nic.v().create_cq(nic.context(), int(depth * count + kSpareCompletions), nullptr, nic.channel(), 0);
    if (cq == nullptr) fail(nic, "no completion queue", errno);
    for (Queue& queue : queues) make_queue(queue, depth, config);
  } catch (...) {
    release();
    throw;
  }
}

void Rail::make_queue(Queue& queue, uint32_t depth, const Config& config) {
  // What a NIC cannot have it refuses as a whole, so the wishes shrink one by one.
  const std::pair<uint32_t, uint32_t> wishes[] = {
      {max_sge, inline_bytes}, {max_sge, 0}, {std::min(max_sge, 2u), 0}, {1, 0}};
  for (uint32_t room = depth; room > 0; room = room > 16 ? room / 2 : 0) {
    for (const auto& [sge, inlined] : wishes) {
      verbs::QpInitAttr attr{};
      attr.send_cq = attr.recv_cq = cq;
      attr.cap = {room, 1, sge, 1, inlined};
      attr.qp_type = verbs::kReliableConnected;
      queue.qp = nic.v().create_qp(nic.pd(), &attr);
      if (queue.qp == nullptr) continue;
      max_sge = sge;
      inline_bytes = std::min(inlined, attr.cap.max_inline_data);
      queue.depth = room;
      queue.psn = random_psn();
      queue.ring.resize(std::bit_ceil(room));
      verbs::to_init(nic.v(), queue.qp, nic.port(), 0, nic.who());
      return;
    }
  }
  fail(nic,
       "no queue pair of " + std::to_string(depth) +
           " work requests (max_send_wr=" + std::to_string(config.max_send_wr) + ")",
       errno);
}

Rail::~Rail() { release(); }

void Rail::release() {
  for (Queue& queue : queues) {
    if (queue.qp != nullptr) nic.v().destroy_qp(queue.qp);
  }
  if (cq != nullptr) nic.v().destroy_cq(cq);
}

RailEnd Rail::end() const {
  RailEnd e;
  e.epoch = epoch;
  e.nic = remote.index;
  e.read_depth = read_depth(nic);
  e.address = address;
  for (const Queue& queue : queues) e.queues.push_back({queue.qp->qp_num, queue.psn});
  return e;
}

void Rail::connect(const RailEnd& peer, const Config& config) {
  if (peer.queues.size() != queues.size() || peer.epoch != epoch) {
    throw core::TransportError("rdma: the peer answered for another rail");
  }
  for (size_t i = 0; i < queues.size(); ++i) {
    const uint8_t reads = std::clamp<uint8_t>(peer.read_depth, 1, read_depth(nic));
    to_ready(nic, queues[i].qp,
             {address, peer.address, {queues[i].qp->qp_num, queues[i].psn}, peer.queues[i], reads, 1},
             config);
  }
}

void Rail::probe(const RailEnd& peer, Deadline deadline) {
  size_t open = queues.size();
  for (Queue& queue : queues) {
    verbs::Sge piece{nic.pad()->addr ? uint64_t(reinterpret_cast<uintptr_t>(nic.pad()->addr)) : 0, 8,
                     nic.pad()->lkey};
    verbs::SendWr wr{};
    wr.sg_list = &piece;
    wr.num_sge = 1;
    wr.opcode = verbs::kWrite;
    wr.send_flags = verbs::kSignaled;
    wr.rdma.remote_addr = peer.pad;
    wr.rdma.rkey = peer.pad_rkey;
    verbs::SendWr* bad = nullptr;
    if (const int error = verbs::post_send(queue.qp, &wr, &bad)) fail(nic, "first write", error);
  }
  const auto spin_until = Clock::now() + std::chrono::microseconds(200);
  while (open > 0) {
    verbs::Wc wc{};
    const int got = verbs::poll_cq(cq, 1, &wc);
    if (got < 0) fail(nic, "completion queue", EIO);
    if (got > 0 && wc.status != verbs::kWcSuccess) {
      throw core::TransportError("rdma: " + nic.name() + " -> " + remote.name + ": " +
                                 verbs::status_words(wc.status));
    }
    open -= size_t(got);
    if (got > 0) continue;
    const auto now = Clock::now();
    if (now >= deadline)
      throw TimeoutError("rdma: " + nic.name() + " -> " + remote.name + ": no answer to the first write");
    if (now > spin_until) std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
}

void Rail::break_off() noexcept {
  for (Queue& queue : queues) {
    verbs::QpAttr attr{};
    attr.qp_state = verbs::kError;
    nic.v().modify_qp(queue.qp, &attr, verbs::kMaskState);
  }
}

bool Rail::drained() const {
  return std::all_of(queues.begin(), queues.end(), [](const Queue& q) { return q.drained(); });
}

uint64_t Rail::under_way() const {
  uint64_t n = 0;
  for (const Queue& queue : queues) n += queue.posted - queue.confirmed;
  return n;
}

// ---- the target's end ----------------------------------------------------------------------------------

struct PassiveRails::End {
  explicit End(Nic& on) : nic(on) {}
  ~End() {
    for (verbs::Qp* qp : queues) nic.v().destroy_qp(qp);
  }
  Nic& nic;
  std::vector<verbs::Qp*> queues;
};

PassiveRails::PassiveRails(const Config& config) : config_(config) {}
PassiveRails::~PassiveRails() = default;

RailEnd PassiveRails::open(Nic& nic, const Peer& peer, const RailEnd& wished) {
  std::lock_guard lock(mutex_);
  const Key key{peer.engine(), peer.incarnation()};
  const auto known = ends_.find(key);
  if (known != ends_.end() && known->second.size() >= kMaxRailsPerPeer) {
    throw core::TransportError("rdma: " + peer.engine() + " has " + std::to_string(kMaxRailsPerPeer) +
                               " rails already");
  }
  if (known != ends_.end() && known->second.contains(wished.epoch))
    throw core::TransportError("rdma: this rail was opened before");
  auto end = std::make_unique<End>(nic);
  RailEnd answer;
  answer.epoch = wished.epoch;
  answer.nic = nic.index();
  answer.address = nic.address();
  answer.read_depth = std::min(wished.read_depth, serve_depth(nic));
  answer.pad = uint64_t(reinterpret_cast<uintptr_t>(nic.pad()->addr));
  answer.pad_rkey = nic.pad()->rkey;
  for (const QueueEnd& theirs : wished.queues) {
    verbs::QpInitAttr attr{};
    attr.send_cq = attr.recv_cq = nic.passive_cq();
    attr.cap = {1, 1, 1, 1, 0};
    attr.qp_type = verbs::kReliableConnected;
    verbs::Qp* qp = nic.v().create_qp(nic.pd(), &attr);
    if (qp == nullptr) fail(nic, "no queue pair for " + peer.engine(), errno);
    end->queues.push_back(qp);
    const QueueEnd mine{qp->qp_num, random_psn()};
    verbs::to_init(nic.v(), qp, nic.port(), verbs::kRemoteWrite | verbs::kRemoteRead, nic.who());
    to_ready(nic, qp,
             {answer.address, wished.address, mine, theirs, 1, std::max<uint8_t>(answer.read_depth, 1)},
             config_);
    answer.queues.push_back(mine);
  }
  ends_[key].emplace(wished.epoch, std::move(end));
  return answer;
}

void PassiveRails::close(const Peer& peer, uint64_t epoch) {
  std::lock_guard lock(mutex_);
  const auto at = ends_.find({peer.engine(), peer.incarnation()});
  if (at == ends_.end()) return;
  at->second.erase(epoch);
  if (at->second.empty()) ends_.erase(at);
}

void PassiveRails::drop(const Peer& peer) {
  std::lock_guard lock(mutex_);
  ends_.erase({peer.engine(), peer.incarnation()});
}

size_t PassiveRails::count() const {
  std::lock_guard lock(mutex_);
  size_t n = 0;
  for (const auto& entry : ends_) n += entry.second.size();
  return n;
}

}  // namespace mori::io::rdma
