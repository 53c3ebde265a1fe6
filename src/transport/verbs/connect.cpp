// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/transport/verbs/connect.hpp"

#include <algorithm>
#include <cstring>

#include "src/core/errors.hpp"

namespace mori::verbs {
namespace {

constexpr int kInitMask = kMaskState | kMaskPkeyIndex | kMaskPort | kMaskAccess;
constexpr int kReceiveMask =
    kMaskState | kMaskPath | kMaskPathMtu | kMaskDestQp | kMaskRqPsn | kMaskServeDepth | kMaskMinRnrTimer;
constexpr int kSendMask =
    kMaskState | kMaskTimeout | kMaskRetry | kMaskRnrRetry | kMaskSqPsn | kMaskReadDepth;

[[noreturn]] void fail(const std::string& who, const std::string& what, int error) {
  throw core::TransportError(who + ": " + what + ": " + std::strerror(error));
}

}  // namespace

void to_init(const Library& v, Qp* qp, uint8_t port, int access, const std::string& who) {
  QpAttr attr{};
  attr.qp_state = kInit;
  attr.port_num = port;
  attr.qp_access_flags = unsigned(access);
  if (const int error = v.modify_qp(qp, &attr, kInitMask)) fail(who, "queue pair to INIT", error);
}

void to_ready(const Library& v, Qp* qp, const Join& join, const std::string& who) {
  const Address& mine = join.mine.address;
  QpAttr attr{};
  attr.qp_state = kReadyToReceive;
  attr.path_mtu = std::min(mine.mtu, join.theirs.mtu);
  attr.dest_qp_num = join.remote_number;
  attr.rq_psn = join.remote_psn;
  attr.max_dest_rd_atomic = join.serves;
  attr.min_rnr_timer = 12;
  AddressHandle& path = attr.ah_attr;
  // Within an InfiniBand subnet a LID is enough; between subnets and on Ethernet the GID leads.
  path.is_global = mine.layer == kLayerEthernet || mine.gid.words[0] != join.theirs.gid.words[0];
  path.grh.dgid = join.theirs.gid;
  path.grh.sgid_index = join.mine.gid_index;
  path.grh.hop_limit = join.hop_limit;
  path.grh.traffic_class = join.traffic_class;
  path.dlid = join.theirs.lid;
  path.sl = join.service_level;
  path.port_num = join.mine.number;
  if (const int error = v.modify_qp(qp, &attr, kReceiveMask)) {
    fail(who, "queue pair to READY TO RECEIVE from " + gid_text(join.theirs.gid), error);
  }
  attr = {};
  attr.qp_state = kReadyToSend;
  attr.timeout = join.timeout;
  attr.retry_cnt = join.retry_count;
  attr.rnr_retry = 6;
  attr.sq_psn = join.local_psn;
  attr.max_rd_atomic = join.reads;
  if (const int error = v.modify_qp(qp, &attr, kSendMask)) fail(who, "queue pair to READY TO SEND", error);
}

}  // namespace mori::verbs
