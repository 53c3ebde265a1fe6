// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// What is behind the pretended libibverbs (fake_verbs.cpp): memory, queue pairs and NICs, and the thread that
// carries out what was posted. One source file includes it.
#pragma once
#include <errno.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "src/transport/verbs/abi.hpp"

using namespace mori::verbs;
using Time = std::chrono::steady_clock::time_point;
using std::chrono::steady_clock;

namespace mori::verbs {
struct Device {
  int index;
  char name[16];
};
}  // namespace mori::verbs

struct FakeMr {
  Mr mr{};
  char* memory = nullptr;  ///< where mr.addr (as keys count) lies
  int access = 0;
  size_t mapped = 0;
  char* mapping = nullptr;
};

struct FakeCq {
  Cq cq{};
  int entries = 0;
  bool armed = false;
  uint32_t unacked = 0;
  std::deque<std::pair<Wc, uint64_t>> ready;  ///< with the sequence that it frees up to
};

struct Piece {
  uint64_t addr;
  uint32_t bytes, lkey;
};

struct FakeWr {
  uint64_t id, sequence, remote;
  uint32_t rkey;
  int opcode;
  bool signaled;
  std::vector<Piece> pieces;
  std::string data;  ///< inline
  Time due;
  uint64_t compare_add = 0, swap = 0;
};
inline bool is_atomic(int opcode) { return opcode == kFetchAdd || opcode == kCompareSwap; }

struct FakeQp {
  Qp qp{};
  QpAttr attr{};
  uint32_t depth = 0, max_sge = 0, max_inline = 0;
  uint64_t posted = 0, freed = 0;
  std::deque<FakeWr> queue;
  Time busy_until{};
};

struct FakeNic {
  Device device{};
  Context context{};
  bool open = false, up = true, plugged = true, dead = false;
  int retry_ms = 50;
  int fail_after = -1, fail_status = 0;
  uint64_t bytes = 0;
  std::deque<AsyncEvent> events;
};

struct Ghost {
  Time due;
  uint32_t target;
  uint64_t remote;
  uint32_t rkey;
  std::string data;
};

struct World {
  std::mutex mutex;
  std::condition_variable wake;
  std::vector<std::unique_ptr<FakeNic>> nics;
  std::map<Cq*, std::unique_ptr<FakeCq>> cqs;
  std::map<uint32_t, std::unique_ptr<FakeQp>> qps;
  std::map<uint32_t, std::unique_ptr<FakeMr>> mrs;
  std::map<Channel*, std::deque<Cq*>> channels;
  std::map<Pd*, std::unique_ptr<Pd>> pds;
  std::vector<Ghost> ghosts;
  uint32_t next_qp = 0x100, next_key = 0x1000;
  int latency_us = 5, ghost_ms = -1, through_closed = 0, refuse_post = -1, garbage = 0;
  int max_send_wr = 1 << 14, max_sge = 16, max_inline = 256, dmabuf = 1;
  int violations = 0, last_retry = -1, last_class = -1;
  uint64_t doorbells = 0, requests = 0, inlined = 0, gathers = 0, landed = 0;
  std::string last;
  std::thread worker;
  bool stop = false;

  void violate(const std::string& what) {
    ++violations;
    last = what;
  }
  FakeNic& of(Context* c) {
    for (auto& nic : nics) {
      if (&nic->context == c) return *nic;
    }
    std::abort();
  }
  FakeMr* key(uint32_t k) {
    const auto at = mrs.find(k);
    return at == mrs.end() ? nullptr : at->second.get();
  }
  char* reach(uint32_t k, uint64_t address, uint64_t bytes, int access, Pd* pd) {
    FakeMr* m = key(k);
    const uint64_t base = m == nullptr ? 0 : reinterpret_cast<uintptr_t>(m->mr.addr);
    if (m == nullptr || (m->access & access) != access || address < base || bytes > m->mr.length ||
        address - base > m->mr.length - bytes || (pd != nullptr && m->mr.pd != pd)) {
      return nullptr;
    }
    return m->memory + (address - base);
  }
  void complete(FakeQp& q, const FakeWr& wr, int status) {
    if (status == kWcSuccess && !wr.signaled) return;
    FakeCq& cq = *cqs.at(q.qp.send_cq);
    if (int(cq.ready.size()) >= cq.entries) violate("completion queue overrun");
    Wc wc{};
    wc.wr_id = wr.id;
    wc.status = status;
    wc.qp_num = q.qp.qp_num;
    wc.vendor_err = status == kWcSuccess ? 0 : 0x77;
    cq.ready.emplace_back(wc, wr.sequence + 1);
    if (cq.armed && cq.cq.channel != nullptr) {
      cq.armed = false;
      ++cq.unacked;
      channels[cq.cq.channel].push_back(&cq.cq);
      const uint64_t one = 1;
      if (::write(cq.cq.channel->fd, &one, 8) < 0) violate("channel");
    }
  }
  void flush(FakeQp& q) {
    for (FakeWr& wr : q.queue) {
      if (ghost_ms >= 0 && wr.opcode == kWrite) {
        std::string data = wr.data;
        for (const Piece& p : wr.pieces) {
          if (const char* from = reach(p.lkey, p.addr, p.bytes, 0, nullptr)) data.append(from, p.bytes);
        }
        ghosts.push_back({steady_clock::now() + std::chrono::milliseconds(ghost_ms), q.attr.dest_qp_num,
                          wr.remote, wr.rkey, data});
      }
      complete(q, wr, kWcFlush);
    }
    q.queue.clear();
  }
  void event(FakeNic& nic, int type) {
    AsyncEvent e{};
    e.element.port_num = 1;
    e.event_type = type;
    nic.events.push_back(e);
    const uint64_t one = 1;
    if (nic.open && ::write(nic.context.async_fd, &one, 8) < 0) violate("async");
  }
  int carry_out(FakeQp& q, FakeWr& wr) {
    FakeNic& nic = of(q.qp.context);
    ++requests;
    if (nic.fail_after >= 0 && nic.fail_after-- == 0) return nic.fail_status;
    const auto at = qps.find(q.attr.dest_qp_num);
    FakeQp* target = at == qps.end() ? nullptr : at->second.get();
    if (target == nullptr || target->qp.state < kReadyToReceive || target->qp.state >= kError ||
        target->attr.dest_qp_num != q.qp.qp_num || target->attr.rq_psn != q.attr.sq_psn) {
      return kWcRetryExc;
    }
    const int need = is_atomic(wr.opcode) ? kRemoteAtomic : wr.opcode == kWrite ? kRemoteWrite : kRemoteRead;
    uint64_t bytes = wr.data.size();
    for (const Piece& p : wr.pieces) bytes += p.bytes;
    char* there = reach(wr.rkey, wr.remote, bytes, need, target->qp.pd);
    if (there == nullptr || (target->attr.qp_access_flags & unsigned(need)) == 0) return kWcRemAccess;
    if (is_atomic(wr.opcode)) {
      char* here = reach(wr.pieces[0].lkey, wr.pieces[0].addr, bytes, kLocalWrite, q.qp.pd);
      if (here == nullptr) return kWcLocProt;
      if (bytes != 8 || wr.remote % 8 != 0) return kWcRemInvReq;
      uint64_t old, next;
      std::memcpy(&old, there, 8);
      next = wr.opcode == kFetchAdd ? old + wr.compare_add : old == wr.compare_add ? wr.swap : old;
      std::memcpy(there, &next, 8);
      std::memcpy(here, &old, 8);
      return kWcSuccess;
    }
    if (!wr.data.empty()) std::memcpy(there, wr.data.data(), wr.data.size());
    for (const Piece& p : wr.pieces) {
      char* here = reach(p.lkey, p.addr, p.bytes, wr.opcode == kRead ? kLocalWrite : 0, q.qp.pd);
      if (here == nullptr) return kWcLocProt;
      if (wr.opcode == kWrite) {
        std::memcpy(there, here, p.bytes);
      } else {
        std::memcpy(here, there, p.bytes);
      }
      there += p.bytes;
    }
    nic.bytes += bytes;
    return kWcSuccess;
  }
  bool reachable(FakeQp& q) {
    const auto at = qps.find(q.attr.dest_qp_num);
    const bool far = at == qps.end() || (of(at->second->qp.context).plugged && of(at->second->qp.context).up);
    FakeNic& nic = of(q.qp.context);
    return nic.plugged && nic.up && far;
  }
  Time step(Time now) {
    Time next = now + std::chrono::seconds(3600);
    for (auto& [number, q] : qps) {
      while (!q->queue.empty() && q->qp.state == kReadyToSend) {
        FakeWr& wr = q->queue.front();
        int status = kWcRetryExc;
        if (reachable(*q)) {
          if (wr.due > now) {
            next = std::min(next, wr.due);
            break;
          }
          status = carry_out(*q, wr);
        } else {
          const Time given_up = wr.due + std::chrono::milliseconds(of(q->qp.context).retry_ms);
          if (given_up > now) {
            next = std::min(next, given_up);
            break;
          }
        }
        complete(*q, wr, status);
        const FakeWr failed = std::move(wr);
        q->queue.pop_front();
        if (status != kWcSuccess) {
          q->qp.state = kError;
          if (ghost_ms >= 0 && failed.opcode == kWrite) q->queue.push_front(failed), flush_ghost_only(*q);
          flush(*q);
        }
      }
    }
    for (size_t i = 0; i < ghosts.size();) {
      if (ghosts[i].due > now) {
        next = std::min(next, ghosts[i++].due);
        continue;
      }
      const Ghost& g = ghosts[i];
      char* there = reach(g.rkey, g.remote, g.data.size(), kRemoteWrite, nullptr);
      if (there != nullptr && (through_closed != 0 || qps.contains(g.target))) {
        std::memcpy(there, g.data.data(), g.data.size());
        ++landed;
      }
      ghosts.erase(ghosts.begin() + long(i));
    }
    return next;
  }
  void flush_ghost_only(FakeQp& q) {  // the failing request's own packets
    std::string data = q.queue.front().data;
    for (const Piece& p : q.queue.front().pieces) {
      if (const char* from = reach(p.lkey, p.addr, p.bytes, 0, nullptr)) data.append(from, p.bytes);
    }
    ghosts.push_back({steady_clock::now() + std::chrono::milliseconds(ghost_ms), q.attr.dest_qp_num,
                      q.queue.front().remote, q.queue.front().rkey, data});
    q.queue.pop_front();
  }
  void run() {
    std::unique_lock lock(mutex);
    while (!stop) {
      const Time next = step(steady_clock::now());
      wake.wait_until(lock, next);
    }
  }
  ~World() {
    {
      std::lock_guard lock(mutex);
      stop = true;
    }
    wake.notify_all();
    if (worker.joinable()) worker.join();
  }
};

inline World& world() {
  static World w;
  return w;
}
using Guard = std::lock_guard<std::mutex>;
