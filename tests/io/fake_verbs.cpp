// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// A libibverbs without NICs: memory is registered, queue pairs are connected by number, a thread carries out
// WRITEs and READs after a latency, in order per queue pair, checks keys and bounds, and misbehaves as
// ordered (fake_verbs.hpp). Says nothing about NICs; it shows what the caller does with what a NIC may
// answer.
#include "fake_verbs.hpp"

#include <poll.h>

#include "fake_network.hpp"

namespace {

int fake_poll(Cq* cq, int count, Wc* out) {
  World& w = world();
  Guard guard(w.mutex);
  FakeCq& f = *w.cqs.at(cq);
  if (w.garbage > 0 && count > 0) {
    --w.garbage;
    out[0] = {};
    out[0].wr_id = 0x7fff'0000'1234'5678;
    return 1;
  }
  int n = 0;
  while (n < count && !f.ready.empty()) {
    out[n] = f.ready.front().first;
    const auto at = w.qps.find(out[n].qp_num);
    if (at != w.qps.end()) at->second->freed = std::max(at->second->freed, f.ready.front().second);
    f.ready.pop_front();
    ++n;
  }
  return n;
}

int fake_notify(Cq* cq, int) {
  Guard guard(world().mutex);
  world().cqs.at(cq)->armed = true;
  return 0;
}

int fake_post(Qp* qp, SendWr* wr, SendWr** bad) {
  World& w = world();
  Guard guard(w.mutex);
  FakeQp& q = *w.qps.at(qp->qp_num);
  ++w.doorbells;
  if (w.refuse_post >= 0 && w.refuse_post-- == 0) {
    *bad = wr;
    return ENOMEM;
  }
  for (; wr != nullptr; wr = wr->next) {
    *bad = wr;
    if (q.posted - q.freed >= q.depth) {
      w.violate("send queue overrun");
      return ENOMEM;
    }
    if (wr->num_sge < 1 || wr->num_sge > int(q.max_sge)) {
      w.violate("too many pieces");
      return EINVAL;
    }
    q.busy_until = std::max(q.busy_until, steady_clock::now()) + std::chrono::microseconds(w.latency_us);
    const bool atomic = is_atomic(wr->opcode);
    FakeWr f{wr->wr_id,
             q.posted++,
             wr->rdma.remote_addr,
             atomic ? wr->atomic.rkey : wr->rdma.rkey,
             wr->opcode,
             (wr->send_flags & kSignaled) != 0,
             {},
             {},
             q.busy_until,
             atomic ? wr->atomic.compare_add : 0,
             atomic ? wr->atomic.swap : 0};
    w.gathers += wr->num_sge > 1;
    for (int i = 0; i < wr->num_sge; ++i) {
      const Sge& s = wr->sg_list[i];
      if ((wr->send_flags & kInline) != 0) {
        f.data.append(reinterpret_cast<const char*>(s.addr), s.length);
      } else {
        f.pieces.push_back({s.addr, s.length, s.lkey});
      }
    }
    if ((wr->send_flags & kInline) != 0) {
      ++w.inlined;
      if (wr->opcode != kWrite || f.data.size() > q.max_inline) w.violate("inline of what cannot be");
    }
    q.queue.push_back(std::move(f));
  }
  if (q.qp.state == kError) w.flush(q);
  w.wake.notify_all();
  return 0;
}

}  // namespace

extern "C" {

#define API __attribute__((visibility("default")))

API Device** ibv_get_device_list(int* count) {
  World& w = world();
  Guard guard(w.mutex);
  auto** list = static_cast<Device**>(std::calloc(w.nics.size() + 1, sizeof(Device*)));
  for (size_t i = 0; i < w.nics.size(); ++i) list[i] = &w.nics[i]->device;
  if (count != nullptr) *count = int(w.nics.size());
  return list;
}
API void ibv_free_device_list(Device** list) { std::free(list); }
API const char* ibv_get_device_name(Device* d) { return d->name; }
API int ibv_fork_init() { return 0; }

API Context* ibv_open_device(Device* d) {
  World& w = world();
  Guard guard(w.mutex);
  FakeNic& nic = *w.nics[size_t(d->index)];
  nic.open = true;
  nic.context.device = d;
  nic.context.async_fd = ::eventfd(0, EFD_SEMAPHORE | EFD_NONBLOCK);
  nic.context.ops.poll_cq = fake_poll;
  nic.context.ops.req_notify_cq = fake_notify;
  nic.context.ops.post_send = fake_post;
  return &nic.context;
}
API int ibv_close_device(Context* c) {
  Guard guard(world().mutex);
  ::close(c->async_fd);
  world().of(c).open = false;
  return 0;
}
API int ibv_query_device(Context*, DeviceAttr* a) {
  *a = {};
  a->max_qp_wr = world().max_send_wr;
  a->max_sge = world().max_sge;
  a->max_cqe = 1 << 20;
  a->max_qp_rd_atom = a->max_qp_init_rd_atom = 8;
  a->phys_port_cnt = 1;
  return 0;
}
API int ibv_query_port(Context* c, uint8_t, PortAttr* a) {
  Guard guard(world().mutex);
  std::memset(a, 0, offsetof(PortAttr, port_cap_flags2));
  a->state = world().of(c).up ? kPortActive : kPortDown;
  a->active_mtu = a->max_mtu = kMtu4096;
  a->gid_tbl_len = 8;
  a->max_msg_sz = 1 << 30;
  a->link_layer = kLayerEthernet;
  return 0;
}
// 0: RoCE v1, 1: v2 over link-local IPv6, 2: empty, 3: v2 over IPv4, 4: v1 over IPv4
API int ibv_query_gid(Context* c, uint8_t, int index, Gid* gid) {
  const int n = world().of(c).device.index;
  *gid = {};
  if (index == 0 || index == 1) {
    gid->raw[0] = 0xfe;
    gid->raw[1] = 0x80;
    gid->raw[15] = uint8_t(n + 1);
  } else if (index == 3 || index == 4) {
    const uint8_t mapped[16] = {
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, uint8_t(n / 2), 0, uint8_t(1 + n % 2)};
    std::memcpy(gid->raw, mapped, 16);
  }
  return 0;
}
API int _ibv_query_gid_ex(Context* c, uint32_t, uint32_t index, GidEntry* e, uint32_t, size_t) {
  ibv_query_gid(c, 1, int(index), &e->gid);
  e->gid_type = index == 1 || index == 3 ? kGidRoceV2 : kGidRoceV1;
  return 0;
}
API Pd* ibv_alloc_pd(Context* c) {
  Guard guard(world().mutex);
  auto pd = std::make_unique<Pd>();
  pd->context = c;
  Pd* raw = pd.get();
  world().pds[raw] = std::move(pd);
  return raw;
}
API int ibv_dealloc_pd(Pd* pd) {
  Guard guard(world().mutex);
  world().pds.erase(pd);
  return 0;
}
static Mr* add_mr(Pd* pd, uint64_t iova, char* memory, size_t bytes, int access, char* mapping,
                  size_t mapped) {
  World& w = world();
  auto m = std::make_unique<FakeMr>();
  m->mr.context = pd->context;
  m->mr.pd = pd;
  m->mr.addr = reinterpret_cast<void*>(iova);
  m->mr.length = bytes;
  m->mr.lkey = m->mr.rkey = w.next_key++;
  m->memory = memory;
  m->access = access;
  m->mapping = mapping;
  m->mapped = mapped;
  Mr* raw = &m->mr;
  w.mrs[raw->lkey] = std::move(m);
  return raw;
}
API Mr* ibv_reg_mr(Pd* pd, void* address, size_t bytes, int access) {
  Guard guard(world().mutex);
  if ((access & ~15) != 0) world().violate("an access flag beyond local write, remote write, read, atomic");
  if (reinterpret_cast<uintptr_t>(address) < 4096 || bytes == 0) {  // "GPU memory" without peer memory
    errno = EFAULT;
    return nullptr;
  }
  return add_mr(pd, reinterpret_cast<uintptr_t>(address), static_cast<char*>(address), bytes, access, nullptr,
                0);
}
API Mr* ibv_reg_dmabuf_mr(Pd* pd, uint64_t offset, size_t bytes, uint64_t iova, int fd, int access) {
  Guard guard(world().mutex);
  if (world().dmabuf == 0) {
    errno = EOPNOTSUPP;
    return nullptr;
  }
  void* map = ::mmap(nullptr, offset + bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (map == MAP_FAILED) return nullptr;
  char* base = static_cast<char*>(map);
  return add_mr(pd, iova, base + offset, bytes, access, base, offset + bytes);
}
API int ibv_dereg_mr(Mr* mr) {
  World& w = world();
  Guard guard(w.mutex);
  FakeMr* m = w.key(mr->lkey);
  if (m->mapping != nullptr) ::munmap(m->mapping, m->mapped);
  w.mrs.erase(mr->lkey);
  return 0;
}
API Channel* ibv_create_comp_channel(Context* c) {
  auto* channel = new Channel{c, ::eventfd(0, EFD_SEMAPHORE | EFD_NONBLOCK), 0};
  Guard guard(world().mutex);
  world().channels[channel];
  return channel;
}
API int ibv_destroy_comp_channel(Channel* channel) {
  Guard guard(world().mutex);
  ::close(channel->fd);
  world().channels.erase(channel);
  delete channel;
  return 0;
}
API Cq* ibv_create_cq(Context* c, int entries, void*, Channel* channel, int) {
  auto f = std::make_unique<FakeCq>();
  f->cq.context = c;
  f->cq.channel = channel;
  f->entries = entries;
  Cq* raw = &f->cq;
  Guard guard(world().mutex);
  world().cqs[raw] = std::move(f);
  return raw;
}
API int ibv_destroy_cq(Cq* cq) {  // as the real one, it waits for the acknowledgement of events
  World& w = world();
  for (int i = 0; i < 1000; ++i) {
    {
      Guard guard(w.mutex);
      FakeCq& f = *w.cqs.at(cq);
      if (cq->channel != nullptr) {  // not taken yet: the real one drops them
        auto& waiting = w.channels[cq->channel];
        const auto before = waiting.size();
        waiting.erase(std::remove(waiting.begin(), waiting.end(), cq), waiting.end());
        f.unacked -= uint32_t(before - waiting.size());
      }
      if (f.unacked == 0) {
        w.cqs.erase(cq);
        return 0;
      }
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  Guard guard(w.mutex);
  w.violate("events never acknowledged");
  return EBUSY;
}
API int ibv_get_cq_event(Channel* channel, Cq** cq, void** user) {
  World& w = world();
  uint64_t count = 0;
  if (::read(channel->fd, &count, 8) != 8) return -1;
  Guard guard(w.mutex);
  auto& waiting = w.channels[channel];
  if (waiting.empty()) return -1;
  *cq = waiting.front();
  *user = nullptr;
  waiting.pop_front();
  return 0;
}
API void ibv_ack_cq_events(Cq* cq, unsigned count) {
  Guard guard(world().mutex);
  world().cqs.at(cq)->unacked -= count;
}
API Qp* ibv_create_qp(Pd* pd, QpInitAttr* a) {
  World& w = world();
  Guard guard(w.mutex);
  if (int(a->cap.max_send_sge) > w.max_sge || int(a->cap.max_inline_data) > w.max_inline ||
      int(a->cap.max_send_wr) > w.max_send_wr || a->qp_type != kReliableConnected) {
    errno = EINVAL;
    return nullptr;
  }
  auto q = std::make_unique<FakeQp>();
  q->qp.context = pd->context;
  q->qp.pd = pd;
  q->qp.send_cq = a->send_cq;
  q->qp.qp_num = w.next_qp++;
  q->depth = a->cap.max_send_wr;
  q->max_sge = a->cap.max_send_sge;
  q->max_inline = a->cap.max_inline_data;
  Qp* raw = &q->qp;
  w.qps[raw->qp_num] = std::move(q);
  return raw;
}
API int ibv_modify_qp(Qp* qp, QpAttr* a, int mask) {
  World& w = world();
  Guard guard(w.mutex);
  FakeQp& q = *w.qps.at(qp->qp_num);
  const auto needs = [&](int bits) {
    if ((mask & bits) != bits) w.violate("an attribute is missing");
  };
  switch (a->qp_state) {
    case kInit:
      needs(kMaskState | kMaskPkeyIndex | kMaskPort | kMaskAccess);
      q.attr.qp_access_flags = a->qp_access_flags;
      break;
    case kReadyToReceive:
      if (q.qp.state != kInit) return EINVAL;
      needs(kMaskPath | kMaskPathMtu | kMaskDestQp | kMaskRqPsn | kMaskServeDepth | kMaskMinRnrTimer);
      q.attr.dest_qp_num = a->dest_qp_num;
      q.attr.rq_psn = a->rq_psn;
      w.last_class = a->ah_attr.grh.traffic_class;
      if (a->ah_attr.is_global == 0 || a->ah_attr.grh.sgid_index != 3)
        w.violate("not the IPv4 RoCE v2 address");
      break;
    case kReadyToSend:
      if (q.qp.state != kReadyToReceive) return EINVAL;
      needs(kMaskTimeout | kMaskRetry | kMaskRnrRetry | kMaskSqPsn | kMaskReadDepth);
      q.attr.sq_psn = a->sq_psn;
      w.last_retry = a->retry_cnt;
      break;
    case kError:
      q.qp.state = kError;
      w.flush(q);
      return 0;
    default:
      return EINVAL;
  }
  q.qp.state = a->qp_state;
  return 0;
}
API int ibv_destroy_qp(Qp* qp) {
  World& w = world();
  Guard guard(w.mutex);
  FakeQp& q = *w.qps.at(qp->qp_num);
  if (w.cqs.contains(qp->send_cq)) {
    auto& ready = w.cqs.at(qp->send_cq)->ready;
    ready.erase(std::remove_if(ready.begin(), ready.end(),
                               [&](const auto& e) { return e.first.qp_num == q.qp.qp_num; }),
                ready.end());
  }
  w.qps.erase(qp->qp_num);
  return 0;
}
API int ibv_get_async_event(Context* c, AsyncEvent* event) {
  World& w = world();
  uint64_t count = 0;
  if (::read(c->async_fd, &count, 8) != 8) return -1;
  Guard guard(w.mutex);
  FakeNic& nic = w.of(c);
  if (nic.events.empty()) return -1;
  *event = nic.events.front();
  nic.events.pop_front();
  return 0;
}
API void ibv_ack_async_event(AsyncEvent*) {}

// ---- orders --------------------------------------------------------------------------------------------

API void fake_reset(int nics) {
  World& w = world();
  Guard guard(w.mutex);
  w.nics.clear();
  for (int i = 0; i < nics; ++i) {
    w.nics.push_back(std::make_unique<FakeNic>());
    w.nics.back()->device.index = i;
    std::snprintf(w.nics.back()->device.name, 16, "fake%d", i);
  }
  if (!w.worker.joinable()) w.worker = std::thread([&w] { w.run(); });
}
API void fake_latency(int us) {
  Guard guard(world().mutex);
  world().latency_us = us;
}
API void fake_fail(int nic, int after, int status) {
  Guard guard(world().mutex);
  world().nics[size_t(nic)]->fail_after = after;
  world().nics[size_t(nic)]->fail_status = status;
}
API void fake_unplug(int nic, int retry_ms) {
  Guard guard(world().mutex);
  world().nics[size_t(nic)]->plugged = false;
  for (auto& n : world().nics) n->retry_ms = retry_ms;
  world().wake.notify_all();
}
API void fake_plug(int nic) {
  Guard guard(world().mutex);
  world().nics[size_t(nic)]->plugged = true;
  world().wake.notify_all();
}
API void fake_port(int nic, int up) {
  Guard guard(world().mutex);
  FakeNic& n = *world().nics[size_t(nic)];
  n.up = up != 0;
  world().event(n, up != 0 ? kEventPortActive : kEventPortError);
  world().wake.notify_all();
}
API void fake_die(int nic) {
  Guard guard(world().mutex);
  world().nics[size_t(nic)]->plugged = false;
  world().event(*world().nics[size_t(nic)], kEventDeviceFatal);
}
API void fake_ghosts(int ms, int through_closed) {
  Guard guard(world().mutex);
  world().ghost_ms = ms;
  world().through_closed = through_closed;
}
API uint64_t fake_ghosts_landed() {
  Guard guard(world().mutex);
  return world().landed;
}
API void fake_limits(int max_send_wr, int max_sge, int max_inline, int dmabuf) {
  World& w = world();
  Guard guard(w.mutex);
  w.max_send_wr = max_send_wr;
  w.max_sge = max_sge;
  w.max_inline = max_inline;
  w.dmabuf = dmabuf;
}
API void fake_refuse_post(int after) {
  Guard guard(world().mutex);
  world().refuse_post = after;
}
API void fake_garbage_completion() {
  Guard guard(world().mutex);
  world().garbage = 1;
}
API int fake_violations(const char** last) {
  Guard guard(world().mutex);
  *last = world().last.c_str();
  return world().violations;
}
API int fake_open_objects() {
  World& w = world();
  Guard guard(w.mutex);
  size_t n = w.cqs.size() + w.qps.size() + w.mrs.size() + w.channels.size() + w.pds.size();
  for (auto& nic : w.nics) n += nic->open;
  return int(n);
}
#define COUNTER(name, field)    \
  API uint64_t name() {         \
    Guard guard(world().mutex); \
    return world().field;       \
  }
COUNTER(fake_doorbells, doorbells)
COUNTER(fake_requests, requests)
COUNTER(fake_inline_requests, inlined)
COUNTER(fake_gathers, gathers)
API uint64_t fake_bytes(int nic) {
  Guard guard(world().mutex);
  return world().nics[size_t(nic)]->bytes;
}
API int fake_last_retry() {
  Guard guard(world().mutex);
  return world().last_retry;
}
API int fake_last_traffic_class() {
  Guard guard(world().mutex);
  return world().last_class;
}
}
