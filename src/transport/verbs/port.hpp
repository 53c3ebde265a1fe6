// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Opening a device, and choosing its port, its address (GID) and its MTU. Failures: core::TransportError,
// which begins with `who`.
#pragma once
#include <cstdint>
#include <string>

#include "src/transport/verbs/library.hpp"

namespace mori::verbs {

/// How a port is reached.
struct Address {
  Gid gid{};
  uint16_t lid = 0;
  uint8_t layer = 0;  ///< LinkLayer
  uint8_t mtu = 0;    ///< Mtu
  bool operator==(const Address& o) const {
    return gid.words[0] == o.gid.words[0] && gid.words[1] == o.gid.words[1] && lid == o.lid &&
           layer == o.layer && mtu == o.mtu;
  }
};

struct PortWish {
  uint8_t port = 0;    ///< 0 = the first active one
  int gid_index = -1;  ///< -1: RoCE v2 over IPv4 first
  uint32_t mtu = 0;    ///< bytes; 0 = what the port has
};

struct Port {
  uint8_t number = 1;
  uint8_t gid_index = 0;
  uint64_t max_message = 1 << 20;
  Address address;
};

/// A device of this machine.
struct Opened {
  const Library& v;
  Context* context;
  std::string device;  ///< its name
  std::string who;     ///< for messages
};

Context* open_device(const Library& v, const std::string& device, const std::string& who);
/// An active port, its best GID, its MTU.
Port choose_port(const Opened& opened, const DeviceAttr& limits, const PortWish& wish);
/// Chooses the GID anew: `port.gid_index` and `port.address.gid`.
void choose_gid(const Opened& opened, const PortAttr& attr, int wished, Port& port);

}  // namespace mori::verbs
