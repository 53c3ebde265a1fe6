// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// libibverbs, found at run time: a table of its calls, and its numbers in words. Without the library there
// is no table, and a sentence that says what to install.
#pragma once
#include <memory>
#include <string>

#include "src/transport/verbs/abi.hpp"

namespace mori::verbs {

struct Library {
  Device** (*get_device_list)(int* count);
  void (*free_device_list)(Device**);
  const char* (*get_device_name)(Device*);
  Context* (*open_device)(Device*);
  int (*close_device)(Context*);
  int (*query_device)(Context*, DeviceAttr*);
  int (*query_port)(Context*, uint8_t port, PortAttr*);
  int (*query_gid)(Context*, uint8_t port, int index, Gid*);
  /// Null in releases before 32: the kind of a GID is then read from sysfs.
  int (*query_gid_ex)(Context*, uint32_t port, uint32_t index, GidEntry*, uint32_t flags, size_t bytes);
  Pd* (*alloc_pd)(Context*);
  int (*dealloc_pd)(Pd*);
  Mr* (*reg_mr)(Pd*, void* address, size_t bytes, int access);
  /// Null in releases before 34.
  Mr* (*reg_dmabuf_mr)(Pd*, uint64_t offset, size_t bytes, uint64_t iova, int fd, int access);
  int (*dereg_mr)(Mr*);
  Channel* (*create_comp_channel)(Context*);
  int (*destroy_comp_channel)(Channel*);
  Cq* (*create_cq)(Context*, int entries, void* user, Channel*, int vector);
  int (*destroy_cq)(Cq*);
  int (*get_cq_event)(Channel*, Cq**, void** user);
  void (*ack_cq_events)(Cq*, unsigned count);
  Qp* (*create_qp)(Pd*, QpInitAttr*);
  int (*modify_qp)(Qp*, QpAttr*, int mask);
  int (*destroy_qp)(Qp*);
  int (*get_async_event)(Context*, AsyncEvent*);
  void (*ack_async_event)(AsyncEvent*);
  int (*fork_init)();
};

/// Loads `path` (empty: libibverbs.so.1) and finds the calls; null with the reason in `why`. The library is
/// never unloaded: providers register themselves with it for the process's life.
std::shared_ptr<const Library> load(const std::string& path, std::string* why);

inline int post_send(Qp* qp, SendWr* wr, SendWr** bad) { return qp->context->ops.post_send(qp, wr, bad); }
inline int poll_cq(Cq* cq, int count, Wc* wc) { return cq->context->ops.poll_cq(cq, count, wc); }
inline int request_notify(Cq* cq) { return cq->context->ops.req_notify_cq(cq, 0); }

/// A failed completion for people: what it means and what to look at.
const char* status_words(int status);
const char* event_words(int event);
inline unsigned mtu_bytes(int mtu) { return 128u << mtu; }
/// "10.8.0.1" for an IPv4-mapped one, else eight groups of hex digits.
std::string gid_text(const Gid& gid);

}  // namespace mori::verbs
