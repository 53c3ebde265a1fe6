// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/transport/verbs/library.hpp"

#include <arpa/inet.h>
#include <dlfcn.h>

#include <cstring>

#include "src/core/runtime/gpu_driver.hpp"

namespace mori::verbs {

std::shared_ptr<const Library> load(const std::string& path, std::string* why) {
  const char* name = path.empty() ? "libibverbs.so.1" : path.c_str();
  void* handle = ::dlopen(name, RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    const char* words = ::dlerror();
    *why = std::string("no RDMA library (Debian: apt-get install libibverbs1 ibverbs-providers): ") +
           (words != nullptr ? words : name);
    return nullptr;
  }
  why->clear();
  auto v = std::make_shared<Library>();
  core::Symbols symbols(handle, name, why);
  symbols.need(v->get_device_list, "ibv_get_device_list");
  symbols.need(v->free_device_list, "ibv_free_device_list");
  symbols.need(v->get_device_name, "ibv_get_device_name");
  symbols.need(v->open_device, "ibv_open_device");
  symbols.need(v->close_device, "ibv_close_device");
  symbols.need(v->query_device, "ibv_query_device");
  symbols.need(v->query_port, "ibv_query_port");
  symbols.need(v->query_gid, "ibv_query_gid");
  symbols.want(v->query_gid_ex, "_ibv_query_gid_ex");
  symbols.need(v->alloc_pd, "ibv_alloc_pd");
  symbols.need(v->dealloc_pd, "ibv_dealloc_pd");
  symbols.need(v->reg_mr, "ibv_reg_mr");
  symbols.want(v->reg_dmabuf_mr, "ibv_reg_dmabuf_mr");
  symbols.need(v->dereg_mr, "ibv_dereg_mr");
  symbols.need(v->create_comp_channel, "ibv_create_comp_channel");
  symbols.need(v->destroy_comp_channel, "ibv_destroy_comp_channel");
  symbols.need(v->create_cq, "ibv_create_cq");
  symbols.need(v->destroy_cq, "ibv_destroy_cq");
  symbols.need(v->get_cq_event, "ibv_get_cq_event");
  symbols.need(v->ack_cq_events, "ibv_ack_cq_events");
  symbols.need(v->create_qp, "ibv_create_qp");
  symbols.need(v->modify_qp, "ibv_modify_qp");
  symbols.need(v->destroy_qp, "ibv_destroy_qp");
  symbols.need(v->get_async_event, "ibv_get_async_event");
  symbols.need(v->ack_async_event, "ibv_ack_async_event");
  symbols.need(v->fork_init, "ibv_fork_init");
  if (!why->empty()) return nullptr;
  // Kernels before 5.12 move a pinned page away from the NIC when the parent writes to it after fork(); this
  // marks such pages so that they stay. Elsewhere it does nothing. Fails only once verbs were used: then
  // whoever used them first has decided.
  v->fork_init();
  return v;
}

const char* status_words(int status) {
  switch (status) {
    case kWcSuccess:
      return "success";
    case kWcLocLen:
      return "local length error";
    case kWcLocQpOp:
      return "local queue pair error (this side's port or route is gone)";
    case kWcLocProt:
      return "local protection error (the local memory is no longer mapped or registered)";
    case kWcFlush:
      return "flushed (the queue pair went to the error state)";
    case kWcMwBind:
      return "memory window error";
    case kWcBadResp:
      return "bad response from the peer's NIC";
    case kWcLocAccess:
      return "local access error";
    case kWcRemInvReq:
      return "the peer's NIC calls the request invalid";
    case kWcRemAccess:
      return "the peer's NIC refused the access (memory deregistered, or out of its range)";
    case kWcRemOp:
      return "the peer's NIC could not complete the operation";
    case kWcRetryExc:
      return "no answer from the peer's NIC within the retry budget (cable, switch, port or host down)";
    case kWcRnrRetryExc:
      return "the peer was not ready for too long";
    case kWcRemAbort:
      return "the peer aborted the operation";
    case kWcFatal:
      return "fatal error of this NIC";
    case kWcRespTimeout:
      return "response time-out";
    case kWcGeneral:
      return "general error of this NIC";
    default:
      return "unknown completion status";
  }
}

const char* event_words(int event) {
  switch (event) {
    case kEventCqError:
      return "a completion queue failed";
    case kEventQpFatal:
      return "a queue pair failed";
    case kEventQpRequest:
      return "a queue pair got an invalid request";
    case kEventQpAccess:
      return "a queue pair got a request without permission";
    case kEventDeviceFatal:
      return "the NIC failed";
    case kEventPortActive:
      return "the port is up";
    case kEventPortError:
      return "the port is down";
    default:
      return "another event";
  }
}

std::string gid_text(const Gid& gid) {
  static constexpr uint8_t kMapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  char text[INET6_ADDRSTRLEN] = "?";
  if (std::memcmp(gid.raw, kMapped, sizeof kMapped) == 0) {
    ::inet_ntop(AF_INET, gid.raw + 12, text, sizeof text);
  } else {
    ::inet_ntop(AF_INET6, gid.raw, text, sizeof text);
  }
  return text;
}

}  // namespace mori::verbs
