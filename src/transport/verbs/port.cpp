// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/transport/verbs/port.hpp"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <fstream>

#include "src/core/errors.hpp"

namespace mori::verbs {
namespace {

[[noreturn]] void fail(const std::string& who, const std::string& what) {
  throw core::TransportError(who + ": " + what);
}

bool is_zero(const Gid& gid) { return gid.words[0] == 0 && gid.words[1] == 0; }

bool is_ipv4(const Gid& gid) {
  static constexpr uint8_t kMapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  return std::memcmp(gid.raw, kMapped, sizeof kMapped) == 0;
}

bool is_link_local(const Gid& gid) { return gid.raw[0] == 0xfe && (gid.raw[1] & 0xc0) == 0x80; }

/// Of GIDs that a RoCE port offers, the higher the better: routable and everywhere configured first.
int preference(uint32_t type, const Gid& gid) {
  if (type == kGidRoceV2) return is_ipv4(gid) ? 5 : is_link_local(gid) ? 3 : 4;
  return is_ipv4(gid) ? 2 : 1;
}

uint32_t gid_type(const Opened& opened, uint8_t port, unsigned index, const Gid& gid) {
  if (opened.v.query_gid_ex != nullptr) {
    GidEntry entry{};
    if (opened.v.query_gid_ex(opened.context, port, index, &entry, 0, sizeof entry) == 0)
      return entry.gid_type;
  }
  std::ifstream file("/sys/class/infiniband/" + opened.device + "/ports/" + std::to_string(port) +
                     "/gid_attrs/types/" + std::to_string(index));
  std::string text;
  std::getline(file, text);
  if (text.find("v2") != std::string::npos) return kGidRoceV2;
  return is_ipv4(gid) && text.empty() ? kGidRoceV2 : kGidRoceV1;
}

}  // namespace

Context* open_device(const Library& v, const std::string& device, const std::string& who) {
  int count = 0;
  Context* context = nullptr;
  Device** list = v.get_device_list(&count);
  errno = ENODEV;
  for (int i = 0; list != nullptr && i < count; ++i) {
    if (device == v.get_device_name(list[i])) context = v.open_device(list[i]);
  }
  const int error = errno;
  if (list != nullptr) v.free_device_list(list);
  if (context == nullptr) fail(who, std::string("cannot be opened: ") + std::strerror(error));
  return context;
}

Port choose_port(const Opened& opened, const DeviceAttr& limits, const PortWish& wish) {
  const unsigned ports = std::max<unsigned>(limits.phys_port_cnt, 1);
  if (wish.port > ports) {
    fail(opened.who,
         "port " + std::to_string(wish.port) + " does not exist, it has " + std::to_string(ports));
  }
  Port port;
  PortAttr attr{};
  bool found = false;
  for (unsigned p = 1; p <= ports && !found; ++p) {
    if (wish.port != 0 && p != wish.port) continue;
    PortAttr candidate{};
    if (opened.v.query_port(opened.context, uint8_t(p), &candidate) != 0) continue;
    if (wish.port == 0 && candidate.state != kPortActive) continue;
    port.number = uint8_t(p);
    attr = candidate;
    found = true;
  }
  if (!found || attr.state != kPortActive) fail(opened.who, "no active port");
  if (attr.max_msg_sz != 0) port.max_message = std::max<uint64_t>(attr.max_msg_sz, 4096);
  choose_gid(opened, attr, wish.gid_index, port);
  uint8_t mtu = uint8_t(std::clamp<int>(attr.active_mtu, kMtu256, kMtu4096));
  if (wish.mtu != 0) mtu = std::min<uint8_t>(mtu, uint8_t(std::bit_width(wish.mtu) - 8));
  port.address.mtu = mtu;
  port.address.layer = attr.link_layer;
  port.address.lid = attr.lid;
  return port;
}

void choose_gid(const Opened& opened, const PortAttr& attr, int wished, Port& port) {
  const Library& v = opened.v;
  if (wished >= 0) {
    if (wished >= attr.gid_tbl_len ||
        v.query_gid(opened.context, port.number, wished, &port.address.gid) != 0 ||
        is_zero(port.address.gid)) {
      fail(opened.who, "gid_index " + std::to_string(wished) + " is empty or does not exist");
    }
    port.gid_index = uint8_t(wished);
    return;
  }
  int best = 0, index = 0;
  Gid address{};
  for (int i = 0; i < std::min(attr.gid_tbl_len, 256); ++i) {
    Gid gid{};
    if (v.query_gid(opened.context, port.number, i, &gid) != 0 || is_zero(gid)) continue;
    const int worth = attr.link_layer == kLayerEthernet
                          ? preference(gid_type(opened, port.number, unsigned(i), gid), gid)
                          : 1;
    if (worth <= best) continue;
    best = worth;
    index = i;
    address = gid;
  }
  if (best == 0) fail(opened.who, "its port has no address (GID): give its network interface an IP address");
  port.address.gid = address;
  port.gid_index = uint8_t(index);
}

}  // namespace mori::verbs
