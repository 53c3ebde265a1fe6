// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/transport/ibgda/control/nic.hpp"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <random>

#include "src/core/errors.hpp"
#include "src/transport/verbs/connect.hpp"

namespace mori::ibgda {
namespace {

constexpr int kAccess = verbs::kLocalWrite | verbs::kRemoteWrite | verbs::kRemoteRead;
constexpr uint32_t kMinDepth = 64, kMaxDepth = 1 << 15;  ///< 16 bits of a position are on mlx5's wire

uint8_t within_16(int limit) { return uint8_t(std::clamp(limit, 1, 16)); }

}  // namespace

struct HardwareNic::Made {
  const Queue* queue = nullptr;
  verbs::Cq* cq = nullptr;
  verbs::Qp* qp = nullptr;
  uint32_t psn = 0;
  uint32_t max_inline = 0;
  DirectView view;
};

HardwareNic::HardwareNic(std::unique_ptr<Mapper> mapper, const NicOptions& options)
    : options_(options), who_("ibgda: " + options.name), mapper_(std::move(mapper)) {
  try {
    open();
  } catch (...) {
    release();
    throw;
  }
}

HardwareNic::~HardwareNic() { release(); }

void HardwareNic::fail(const std::string& what) const { throw core::TransportError(who_ + ": " + what); }

void HardwareNic::release() {
  mapper_.reset();  // while what it maps is there
  for (const auto& made : queues_) drop(*made);
  for (verbs::Mr* mr : regions_) library_->dereg_mr(mr);
  if (pd_ != nullptr) library_->dealloc_pd(pd_);
  if (context_ != nullptr) library_->close_device(context_);
}

void HardwareNic::drop(Made& made) {
  if (made.qp != nullptr) library_->destroy_qp(made.qp);
  if (made.cq != nullptr) library_->destroy_cq(made.cq);
  made.qp = nullptr;
  made.cq = nullptr;
}

void HardwareNic::open() {
  std::string why;
  library_ = verbs::load(options_.verbs_library, &why);
  if (library_ == nullptr) fail(why);
  context_ = verbs::open_device(*library_, options_.name, who_);
  if (library_->query_device(context_, &limits_) != 0) fail("does not tell its limits");
  direct_ = open_direct(limits_.vendor_id, context_->device, who_, options_.direct_library);
  if (options_.atomics && limits_.atomic_cap == 0) {
    fail("says that it has no atomics (atomic_cap 0), which SHMEM's atomics and signals that add need");
  }
  port_ = verbs::choose_port({*library_, context_, options_.name, who_}, limits_, options_.port);
  access_ = kAccess | (limits_.atomic_cap != 0 ? verbs::kRemoteAtomic : 0);
  pd_ = library_->alloc_pd(context_);
  if (pd_ == nullptr) fail(std::string("no protection domain: ") + std::strerror(errno));
}

RegionKeys HardwareNic::add_region(uint64_t begin, uint64_t bytes, bool on_gpu) {
  std::string why, refusal;
  const auto memory = on_gpu ? verbs::export_dmabuf(mapper_->gpu(), begin, bytes, &refusal) : std::nullopt;
  const auto with = [&](int access) {
    const verbs::Registrar registrar{*library_, pd_, access, options_.name};
    return on_gpu ? registrar.gpu(memory, refusal, begin, bytes, &why) : registrar.host(begin, bytes, &why);
  };
  verbs::Mr* mr = with(access_);
  // GPU memory behind some bridges takes no atomics; writes and reads may still work
  if (mr == nullptr && !options_.atomics && access_ != kAccess) mr = with(kAccess);
  if (mr == nullptr) fail("memory cannot be registered: " + why);
  regions_.push_back(mr);
  return {mr->lkey, mr->rkey};
}

void HardwareNic::remove_region(uint32_t local_key) {
  std::erase_if(regions_, [&](verbs::Mr* mr) {
    if (mr->lkey != local_key) return false;
    library_->dereg_mr(mr);
    return true;
  });
}

uint64_t HardwareNic::region_bytes(uint32_t local_key) const {
  for (const verbs::Mr* mr : regions_) {
    if (mr->lkey == local_key) return mr->length;
  }
  return 0;
}

void HardwareNic::stop() {
  for (const auto& made : queues_) {
    verbs::QpAttr attr{};
    attr.qp_state = verbs::kError;
    library_->modify_qp(made->qp, &attr, verbs::kMaskState);
  }
}

/// False: the completion ring came out too small for the send ring.
bool HardwareNic::try_queue(Made& made, uint32_t completions, uint32_t works) {
  made.cq = library_->create_cq(context_, int(completions), nullptr, nullptr, 0);
  if (made.cq == nullptr) {
    fail("no completion queue of " + std::to_string(completions) + " entries (it has up to " +
         std::to_string(limits_.max_cqe) + "): " + std::strerror(errno));
  }
  verbs::QpInitAttr attr{};
  attr.send_cq = attr.recv_cq = made.cq;
  attr.cap = {works, 1, 1, 1, 0};
  attr.qp_type = verbs::kReliableConnected;
  attr.sq_sig_all = 0;  // with all of them signalled a NIC may put fetched bytes into completions
  // What does not fit into an entry is refused as a whole: 28 bytes fit into all families' smallest.
  for (const uint32_t inlined : {28u, 16u, 0u}) {
    attr.cap.max_inline_data = inlined;
    made.qp = library_->create_qp(pd_, &attr);
    if (made.qp != nullptr) break;
  }
  if (made.qp == nullptr) {
    fail("no queue pair of " + std::to_string(works) + " work requests (it has up to " +
         std::to_string(limits_.max_qp_wr) + "): " + std::strerror(errno));
  }
  made.view = direct_->view(made.qp, made.cq);
  made.max_inline = std::min(made.view.max_inline, attr.cap.max_inline_data);
  return made.view.cq_depth >= made.view.depth;
}

void HardwareNic::create_queue(Queue* queue, const QueueWish& wish) {
  if (wish.depth < kMinDepth || wish.depth > kMaxDepth) {
    throw core::ConfigError("depth=" + std::to_string(wish.depth) + " is not in " +
                            std::to_string(kMinDepth) + ".." + std::to_string(kMaxDepth));
  }
  auto made = std::make_unique<Made>();
  made->queue = queue;
  const uint32_t depth = std::bit_ceil(wish.depth);
  try {
    // The library rounds both rings up; what it made says how far.
    uint32_t completions = depth, works = depth / 4;
    for (int attempt = 0; !try_queue(*made, completions - 1, works) || made->view.depth < depth; ++attempt) {
      if (attempt == 4) fail("its rings come out as no pair that kernels can use");
      completions = std::max(completions, made->view.depth);
      if (made->view.depth < depth) works *= 2;
      drop(*made);
    }
    verbs::to_init(*library_, made->qp, port_.number, access_ & ~verbs::kLocalWrite, who_);
    const DirectView& view = made->view;
    std::memset(static_cast<void*>(queue), 0, sizeof *queue);
    queue->sq = mapper_->memory(view.sq, view.sq_bytes);
    queue->cq = mapper_->memory(view.cq, view.cq_bytes);
    queue->record = mapper_->memory(view.record, 8);
    queue->cq_doorbell = mapper_->memory(view.cq_record, 4);
    queue->doorbell = mapper_->registers(view.doorbell);
    queue->family = direct_->family();
    queue->qpn = made->qp->qp_num;
    queue->cqn = view.cqn;
    queue->depth = view.depth;
    queue->cq_depth = view.cq_depth;
    queue->peer = wish.peer;
    queue->blueflame = view.blueflame;
    queue->max_inline = made->max_inline;
    static thread_local std::mt19937 random{std::random_device{}()};
    made->psn = random() & 0xffffff;
  } catch (...) {
    drop(*made);
    throw;
  }
  queues_.push_back(std::move(made));
}

HardwareNic::Made& HardwareNic::made_of(const Queue* queue) const {
  for (const auto& made : queues_) {
    if (made->queue == queue) return *made;
  }
  throw core::ConfigError("queue: not made by this NIC");
}

verbs::Qp* HardwareNic::pair(const Queue* queue) const { return made_of(queue).qp; }

QueueEnd HardwareNic::end(const Queue* queue) const {
  const Made& made = made_of(queue);
  return {.address = port_.address,
          .number = made.qp->qp_num,
          .psn = made.psn,
          .reads = within_16(limits_.max_qp_init_rd_atom),
          .serves = within_16(limits_.max_qp_rd_atom)};
}

void HardwareNic::connect(Queue* queue, const QueueEnd& theirs) {
  const Made& made = made_of(queue);
  if (theirs.address.layer != port_.address.layer) {
    fail("the peer's port is of another kind of network (InfiniBand and Ethernet do not meet)");
  }
  const QueueEnd mine = end(queue);
  verbs::to_ready(*library_, made.qp,
                  {.mine = port_,
                   .theirs = theirs.address,
                   .remote_number = theirs.number,
                   .local_psn = mine.psn,
                   .remote_psn = theirs.psn,
                   .reads = std::min(mine.reads, theirs.serves),
                   .serves = std::min(mine.serves, theirs.reads),
                   .traffic_class = options_.traffic_class,
                   .service_level = options_.service_level,
                   .timeout = options_.timeout,
                   .retry_count = options_.retry_count},
                  who_);
  queue->mtu = verbs::mtu_bytes(std::min(port_.address.mtu, theirs.address.mtu));
}

}  // namespace mori::ibgda
