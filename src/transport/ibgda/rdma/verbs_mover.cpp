// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/transport/ibgda/rdma/verbs_mover.hpp"

#include <time.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <random>

#include "src/core/errors.hpp"
#include "src/transport/verbs/connect.hpp"
#include "src/transport/verbs/memory.hpp"

namespace mori::ibgda::rdma {
namespace {

constexpr uint32_t kDepth = 256;  // requests of a queue that the NIC has
constexpr uint32_t kSlot = 128;   // bytes of a copied inline payload: more than any family's entry holds
constexpr uint8_t kRetries = 6;
constexpr int kAccess = verbs::kLocalWrite | verbs::kRemoteWrite | verbs::kRemoteRead | verbs::kRemoteAtomic;

Fault fault_of(int status) {
  switch (status) {
    case verbs::kWcLocLen:
      return Fault::local_length;
    case verbs::kWcLocQpOp:
      return Fault::bad_entry;
    case verbs::kWcLocProt:
    case verbs::kWcLocAccess:
      return Fault::local_protection;
    case verbs::kWcBadResp:
      return Fault::bad_response;
    case verbs::kWcRemInvReq:
      return Fault::remote_invalid;
    case verbs::kWcRemAccess:
      return Fault::remote_access;
    case verbs::kWcRemOp:
    case verbs::kWcRemAbort:
      return Fault::remote_operation;
    case verbs::kWcRnrRetryExc:
      return Fault::rnr_exceeded;
    default:  // retries, time-outs, a NIC that failed, a queue pair that was flushed without a reason
      return Fault::retry_exceeded;
  }
}

/// The acknowledgement time-out of which all tries together take no longer than `time`.
uint8_t acknowledgement(std::chrono::milliseconds time) {
  uint8_t exponent = 8;  // 1 ms
  while (exponent < 20 && (kRetries + 1) * 0.004096 * (uint64_t(2) << exponent) < double(time.count()))
    ++exponent;
  return exponent;
}

}  // namespace

struct VerbsMover::Pair {
  uint32_t peer = 0;
  verbs::Cq* cq = nullptr;
  verbs::Qp* qp = nullptr;
  verbs::Mr* slots_mr = nullptr;
  std::vector<unsigned char> slots = std::vector<unsigned char>(kDepth * kSlot);
  uint32_t psn = 0;
  std::string who;  ///< the peer and the NICs
  RemoteWindow window;
  uint32_t rkey = 0;  ///< of the window, to the NIC
  uint64_t submitted = 0, finished = 0;
  bool failed = false;
};

VerbsMover::VerbsMover(const VerbsOptions& options) : options_(options) {
  std::string why;
  library_ = verbs::load(options.library, &why);
  if (library_ == nullptr) throw core::TransportError("mover verbs: " + why);
  if (options_.device.empty()) {
    int count = 0;
    verbs::Device** list = library_->get_device_list(&count);
    if (list != nullptr && count > 0) options_.device = library_->get_device_name(list[0]);
    if (list != nullptr) library_->free_device_list(list);
    if (options_.device.empty()) throw core::TransportError("mover verbs: this machine has no RDMA device");
  }
  who_ = "mover verbs: " + options_.device;
  try {
    context_ = verbs::open_device(*library_, options_.device, who_);
    if (library_->query_device(context_, &limits_) != 0) fail("it does not tell its limits", errno);
    port_ = verbs::choose_port({*library_, context_, options_.device, who_}, limits_, {});
    pd_ = library_->alloc_pd(context_);
    if (pd_ == nullptr) fail("no protection domain", errno);
  } catch (...) {
    release();
    throw;
  }
}

VerbsMover::~VerbsMover() { release(); }

void VerbsMover::fail(const std::string& what, int error) const {
  throw core::TransportError(who_ + ": " + what + ": " + std::strerror(error));
}

void VerbsMover::release() {
  for (const auto& pair : pairs_) {
    if (pair == nullptr) continue;
    if (pair->qp != nullptr) library_->destroy_qp(pair->qp);
    if (pair->cq != nullptr) library_->destroy_cq(pair->cq);
    if (pair->slots_mr != nullptr) library_->dereg_mr(pair->slots_mr);
  }
  for (const auto& [lkey, mr] : regions_) library_->dereg_mr(mr);
  if (pd_ != nullptr) library_->dealloc_pd(pd_);
  if (context_ != nullptr) library_->close_device(context_);
}

void VerbsMover::add_region(uint32_t lkey, uint64_t begin, uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  std::string why;
  verbs::Mr* mr = verbs::Registrar{*library_, pd_, kAccess, who_}.host(begin, bytes, &why);
  if (mr == nullptr) throw core::TransportError(why);
  if (regions_.empty() && first_rkey_ == 0) first_rkey_ = mr->rkey;
  regions_[lkey] = mr;
}

void VerbsMover::remove_region(uint32_t lkey) {
  const std::lock_guard lock(mutex_);
  const auto found = regions_.find(lkey);
  if (found == regions_.end()) return;
  library_->dereg_mr(found->second);
  regions_.erase(found);
}

void VerbsMover::add_queue(uint32_t queue, uint32_t peer) {
  if (pairs_.size() <= queue) pairs_.resize(queue + 1);
  pairs_[queue] = std::make_unique<Pair>();
  Pair& pair = *pairs_[queue];
  pair.peer = peer;
  pair.psn = std::random_device()() & 0xffffff;
  std::string why;
  pair.slots_mr = verbs::Registrar{*library_, pd_, verbs::kLocalWrite, who_}.host(
      reinterpret_cast<uint64_t>(pair.slots.data()), pair.slots.size(), &why);
  if (pair.slots_mr == nullptr) throw core::TransportError(why);
  pair.cq = library_->create_cq(context_, int(kDepth + 16), nullptr, nullptr, 0);
  if (pair.cq == nullptr) fail("no completion queue", errno);
  verbs::QpInitAttr attr{};
  attr.send_cq = attr.recv_cq = pair.cq;
  attr.cap = {
      .max_send_wr = kDepth, .max_recv_wr = 0, .max_send_sge = 1, .max_recv_sge = 0, .max_inline_data = 0};
  attr.qp_type = verbs::kReliableConnected;
  pair.qp = library_->create_qp(pd_, &attr);
  if (pair.qp == nullptr) fail("no queue pair of " + std::to_string(kDepth) + " requests", errno);
  verbs::to_init(*library_, pair.qp, port_.number, kAccess & ~verbs::kLocalWrite, who_);
}

QueueDoor VerbsMover::door(uint32_t queue) const {
  const std::lock_guard lock(mutex_);
  const Pair& pair = *pairs_[queue];
  return {.address = port_.address,
          .number = pair.qp->qp_num,
          .psn = pair.psn,
          .rkey = first_rkey_,
          .serves = uint32_t(std::clamp(limits_.max_qp_rd_atom, 1, 16))};
}

void VerbsMover::connect(uint32_t queue, const QueueDoor& door) {
  Pair& pair = *pairs_[queue];
  pair.rkey = door.rkey;
  pair.who = "rank " + std::to_string(pair.peer) + " at " + verbs::gid_text(door.address.gid) + " by NIC " +
             options_.device;
  const int mine = std::clamp(limits_.max_qp_init_rd_atom, 1, 16);
  verbs::to_ready(*library_, pair.qp,
                  {.mine = port_,
                   .theirs = door.address,
                   .remote_number = door.number,
                   .local_psn = pair.psn,
                   .remote_psn = door.psn,
                   .reads = uint8_t(std::clamp<uint32_t>(door.serves, 1, uint32_t(mine))),
                   .serves = uint8_t(std::clamp(limits_.max_qp_rd_atom, 1, 16)),
                   .timeout = acknowledgement(options_.timeout),
                   .retry_count = kRetries},
                  pair.who);
}

void VerbsMover::point(uint32_t queue, const RemoteWindow& window) {
  const std::lock_guard lock(mutex_);
  pairs_[queue]->window = window;
}

Outcome VerbsMover::submit(uint32_t queue, const Request& r) {
  const std::lock_guard lock(mutex_);
  Pair& pair = *pairs_[queue];
  if (pair.failed) return {.fault = Fault::retry_exceeded};
  const uint64_t into = r.remote - pair.window.address;
  if (r.rkey != pair.window.rkey || r.length > pair.window.bytes || into > pair.window.bytes - r.length)
    return {.fault = Fault::remote_access};
  if (const Fault fault = atomic_fault(r); fault != Fault::none) return {.fault = fault};
  if (is_atomic(r.op) && (r.length != 8 || (r.op != Op::fetch_add && r.op != Op::compare_swap)))
    return {.fault = Fault::remote_operation};  // verbs has none with masks or of 4 bytes
  if (pair.submitted - pair.finished >= kDepth) return {Outcome::State::busy};

  verbs::Sge piece{.addr = r.local, .length = r.length, .lkey = 0};
  if ((r.flags & kInline) != 0) {
    unsigned char* slot = &pair.slots[pair.submitted % kDepth * kSlot];
    if (r.length > kSlot) return {.fault = Fault::local_length};
    std::memcpy(slot, reinterpret_cast<const void*>(r.local), r.length);
    piece.addr = reinterpret_cast<uint64_t>(slot);
    piece.lkey = pair.slots_mr->lkey;
  } else {
    const auto region = regions_.find(r.lkey);
    if (region == regions_.end()) return {.fault = Fault::local_protection};
    piece.lkey = region->second->lkey;
  }
  verbs::SendWr wr{};
  wr.wr_id = pair.submitted;
  wr.sg_list = &piece;
  wr.num_sge = 1;
  wr.send_flags = verbs::kSignaled | ((r.flags & kFence) != 0 ? verbs::kFence : 0u);
  if (is_atomic(r.op)) {
    wr.opcode = r.op == Op::fetch_add ? verbs::kFetchAdd : verbs::kCompareSwap;
    wr.atomic = {.remote_addr = r.remote,
                 .compare_add = r.op == Op::fetch_add ? r.value : r.compare,
                 .swap = r.op == Op::fetch_add ? 0 : r.value,
                 .rkey = pair.rkey};
  } else {
    wr.opcode = r.op == Op::write ? verbs::kWrite : verbs::kRead;
    wr.rdma.remote_addr = r.remote;
    wr.rdma.rkey = pair.rkey;
  }
  verbs::SendWr* bad = nullptr;
  if (const int error = verbs::post_send(pair.qp, &wr, &bad); error != 0) {
    if (error == ENOMEM && pair.submitted != pair.finished) return {Outcome::State::busy};
    troubles_[pair.peer] = pair.who + ": it takes no request: " + std::strerror(error);
    return {.fault = Fault::bad_entry};
  }
  ++pair.submitted;
  return {Outcome::State::pending};
}

bool VerbsMover::poll(const Finished& finished) {
  bool worked = false;
  for (uint32_t queue = 0; queue < pairs_.size(); ++queue) {
    if (pairs_[queue] == nullptr) continue;
    Pair& pair = *pairs_[queue];
    if (pair.failed || pair.submitted == pair.finished) continue;
    std::array<verbs::Wc, 32> done;
    const int count = verbs::poll_cq(pair.cq, int(done.size()), done.data());
    worked = worked || count != 0;
    for (int i = 0; i < std::max(count, count < 0 ? 1 : 0) && !pair.failed; ++i) {
      const bool lost = count < 0 || done[size_t(i)].wr_id != pair.finished;
      const int status = lost ? int(verbs::kWcFatal) : done[size_t(i)].status;
      ++pair.finished;
      pair.failed = status != verbs::kWcSuccess;
      if (pair.failed) {
        const std::lock_guard lock(mutex_);
        troubles_[pair.peer] =
            pair.who + ": " + (lost ? "a completion is none of a request" : verbs::status_words(status));
      }
      finished(queue, pair.failed ? fault_of(status) : Fault::none);
    }
  }
  return worked;
}

/// The thread is not woken by completions: those of a device wake nobody who polls.
void VerbsMover::wait(std::chrono::microseconds time) {
  const bool busy = std::any_of(pairs_.begin(), pairs_.end(), [](const auto& p) {
    return p != nullptr && !p->failed && p->submitted != p->finished;
  });
  const timespec pause{0, busy ? 0 : time.count() * 1000};
  nanosleep(&pause, nullptr);
}

std::string VerbsMover::trouble(uint32_t peer) const {
  const std::lock_guard lock(mutex_);
  const auto found = troubles_.find(peer);
  return found == troubles_.end() ? "" : found->second;
}

}  // namespace mori::ibgda::rdma
