// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The part of the verbs interface that we use, declared by ourselves: a build needs no RDMA
// package, and every machine gives the same wheel. Layouts and numbers are those that libibverbs.so.1 keeps
// by binary compatibility (symbol version IBVERBS_1.1 and later). tests/io/test_rdma_abi.py compares each
// size, offset and number here with infiniband/verbs.h where that is installed.
//
// Fields keep the names of the public interface; what we never touch is a reserved field.
#pragma once
#include <pthread.h>

#include <cstddef>
#include <cstdint>

namespace mori::verbs {

struct Context;
struct Device;
struct Cq;
struct Qp;
struct Srq;
struct Channel;

union Gid {
  uint64_t words[2];
  uint8_t raw[16];
};

enum PortState : int { kPortDown = 1, kPortActive = 4 };
enum Mtu : int { kMtu256 = 1, kMtu512, kMtu1024, kMtu2048, kMtu4096 };
enum LinkLayer : uint8_t { kLayerUnspecified = 0, kLayerInfiniband = 1, kLayerEthernet = 2 };
enum GidType : uint32_t { kGidIb = 0, kGidRoceV1 = 1, kGidRoceV2 = 2 };
enum QpState : int { kReset = 0, kInit, kReadyToReceive, kReadyToSend, kSqDrain, kSqError, kError };
enum QpType : int { kReliableConnected = 2 };
enum Opcode : int { kWrite = 0, kRead = 4, kCompareSwap = 5, kFetchAdd = 6 };
enum SendFlags : unsigned { kFence = 1 << 0, kSignaled = 1 << 1, kInline = 1 << 3 };
enum AccessFlags : int {
  kLocalWrite = 1,
  kRemoteWrite = 1 << 1,
  kRemoteRead = 1 << 2,
  kRemoteAtomic = 1 << 3
};

enum QpMask : int {
  kMaskState = 1 << 0,
  kMaskAccess = 1 << 3,
  kMaskPkeyIndex = 1 << 4,
  kMaskPort = 1 << 5,
  kMaskPath = 1 << 7,
  kMaskPathMtu = 1 << 8,
  kMaskTimeout = 1 << 9,
  kMaskRetry = 1 << 10,
  kMaskRnrRetry = 1 << 11,
  kMaskRqPsn = 1 << 12,
  kMaskReadDepth = 1 << 13,
  kMaskMinRnrTimer = 1 << 15,
  kMaskSqPsn = 1 << 16,
  kMaskServeDepth = 1 << 17,
  kMaskDestQp = 1 << 20,
};

enum WcStatus : int {
  kWcSuccess = 0,
  kWcLocLen = 1,
  kWcLocQpOp = 2,
  kWcLocProt = 4,
  kWcFlush = 5,
  kWcMwBind = 6,
  kWcBadResp = 7,
  kWcLocAccess = 8,
  kWcRemInvReq = 9,
  kWcRemAccess = 10,
  kWcRemOp = 11,
  kWcRetryExc = 12,
  kWcRnrRetryExc = 13,
  kWcRemAbort = 16,
  kWcFatal = 19,
  kWcRespTimeout = 20,
  kWcGeneral = 21,
};

enum EventType : int {
  kEventCqError = 0,
  kEventQpFatal = 1,
  kEventQpRequest = 2,
  kEventQpAccess = 3,
  kEventDeviceFatal = 8,
  kEventPortActive = 9,
  kEventPortError = 10,
};

struct DeviceAttr {
  char fw_ver[64];
  uint64_t node_guid;
  uint64_t sys_image_guid;
  uint64_t max_mr_size;
  uint64_t page_size_cap;
  uint32_t vendor_id;
  uint32_t vendor_part_id;
  uint32_t hw_ver;
  int max_qp;
  int max_qp_wr;
  unsigned device_cap_flags;
  int max_sge;
  int max_sge_rd;
  int max_cq;
  int max_cqe;
  int max_mr;
  int max_pd;
  int max_qp_rd_atom;
  int max_ee_rd_atom;
  int max_res_rd_atom;
  int max_qp_init_rd_atom;
  int max_ee_init_rd_atom;
  int atomic_cap;  ///< 0: none
  int reserved[14];
  uint16_t max_pkeys;
  uint8_t local_ca_ack_delay;
  uint8_t phys_port_cnt;
};

/// Longer than what the library's own ibv_query_port fills: it leaves the tail alone.
struct PortAttr {
  int state;
  int max_mtu;
  int active_mtu;
  int gid_tbl_len;
  uint32_t port_cap_flags;
  uint32_t max_msg_sz;
  uint32_t bad_pkey_cntr;
  uint32_t qkey_viol_cntr;
  uint16_t pkey_tbl_len;
  uint16_t lid;
  uint16_t sm_lid;
  uint8_t lmc;
  uint8_t max_vl_num;
  uint8_t sm_sl;
  uint8_t subnet_timeout;
  uint8_t init_type_reply;
  uint8_t active_width;
  uint8_t active_speed;
  uint8_t phys_state;
  uint8_t link_layer;
  uint8_t flags;
  uint16_t port_cap_flags2;
};

struct GidEntry {
  Gid gid;
  uint32_t gid_index;
  uint32_t port_num;
  uint32_t gid_type;
  uint32_t ndev_ifindex;
};

struct Pd {
  Context* context;
  uint32_t handle;
};

struct Mr {
  Context* context;
  Pd* pd;
  void* addr;
  size_t length;
  uint32_t handle;
  uint32_t lkey;
  uint32_t rkey;
};

struct Channel {
  Context* context;
  int fd;
  int refcnt;
};

struct Cq {
  Context* context;
  Channel* channel;
  void* cq_context;
  uint32_t handle;
  int cqe;
  pthread_mutex_t mutex;
  pthread_cond_t cond;
  uint32_t comp_events_completed;
  uint32_t async_events_completed;
};

struct Wc {
  uint64_t wr_id;
  int status;
  int opcode;
  uint32_t vendor_err;
  uint32_t byte_len;
  uint32_t imm_data;
  uint32_t qp_num;
  uint32_t src_qp;
  unsigned wc_flags;
  uint16_t pkey_index;
  uint16_t slid;
  uint8_t sl;
  uint8_t dlid_path_bits;
};

struct GlobalRoute {
  Gid dgid;
  uint32_t flow_label;
  uint8_t sgid_index;
  uint8_t hop_limit;
  uint8_t traffic_class;
};

struct AddressHandle {
  GlobalRoute grh;
  uint16_t dlid;
  uint8_t sl;
  uint8_t src_path_bits;
  uint8_t static_rate;
  uint8_t is_global;
  uint8_t port_num;
};

struct QpCap {
  uint32_t max_send_wr;
  uint32_t max_recv_wr;
  uint32_t max_send_sge;
  uint32_t max_recv_sge;
  uint32_t max_inline_data;
};

struct QpInitAttr {
  void* qp_context;
  Cq* send_cq;
  Cq* recv_cq;
  Srq* srq;
  QpCap cap;
  int qp_type;
  int sq_sig_all;
};

struct QpAttr {
  int qp_state;
  int cur_qp_state;
  int path_mtu;
  int path_mig_state;
  uint32_t qkey;
  uint32_t rq_psn;
  uint32_t sq_psn;
  uint32_t dest_qp_num;
  unsigned qp_access_flags;
  QpCap cap;
  AddressHandle ah_attr;
  AddressHandle alt_ah_attr;
  uint16_t pkey_index;
  uint16_t alt_pkey_index;
  uint8_t en_sqd_async_notify;
  uint8_t sq_draining;
  uint8_t max_rd_atomic;
  uint8_t max_dest_rd_atomic;
  uint8_t min_rnr_timer;
  uint8_t port_num;
  uint8_t timeout;
  uint8_t retry_cnt;
  uint8_t rnr_retry;
  uint8_t alt_port_num;
  uint8_t alt_timeout;
  uint32_t rate_limit;
};

struct Qp {
  Context* context;
  void* qp_context;
  Pd* pd;
  Cq* send_cq;
  Cq* recv_cq;
  Srq* srq;
  uint32_t handle;
  uint32_t qp_num;
  int state;
  int qp_type;
  pthread_mutex_t mutex;
  pthread_cond_t cond;
  uint32_t events_completed;
};

struct Sge {
  uint64_t addr;
  uint32_t length;
  uint32_t lkey;
};

struct SendWr {
  uint64_t wr_id;
  SendWr* next;
  Sge* sg_list;
  int num_sge;
  int opcode;
  unsigned send_flags;
  uint32_t imm_data;
  union {
    struct {
      uint64_t remote_addr;
      uint32_t rkey;
    } rdma;
    struct {
      uint64_t remote_addr;
      uint64_t compare_add;
      uint64_t swap;
      uint32_t rkey;
    } atomic;
  };
  uint64_t reserved[7];  ///< XRC, memory windows, segmentation offload
};

struct AsyncEvent {
  union {
    Cq* cq;
    Qp* qp;
    int port_num;
  } element;
  int event_type;
};

/// The calls that have no symbol: applications reach them through the context, as the public header's inline
/// functions do.
struct ContextOps {
  void* reserved0[11];
  int (*poll_cq)(Cq*, int, Wc*);
  int (*req_notify_cq)(Cq*, int);
  void* reserved1[12];
  int (*post_send)(Qp*, SendWr*, SendWr**);
  void* reserved2[6];
};

struct Context {
  Device* device;
  ContextOps ops;
  int cmd_fd;
  int async_fd;
  int num_comp_vectors;
  pthread_mutex_t mutex;
  void* abi_compat;
};

}  // namespace mori::verbs
