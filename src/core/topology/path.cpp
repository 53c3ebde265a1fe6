// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Paths between devices and between ranks. A PCIe path is found by comparing the two ways up to the host
// bridge: where they part tells its kind, the narrowest link below tells its rate.
#include <algorithm>
#include <limits>

#include "src/core/errors.hpp"
#include "src/core/topology/topology.hpp"

namespace mori::core {

namespace {

constexpr uint32_t kPciBridge = 0x0604;

const PciDevice& require_pci(const Topology& t, std::string_view address) {
  if (const PciDevice* d = find_pci(t, address)) return *d;
  std::string known;
  for (const Gpu& gpu : t.gpus) known += (known.empty() ? "" : ", ") + gpu.pci;
  for (const Nic& nic : t.nics) {
    if (!nic.pci.empty()) known += (known.empty() ? "" : ", ") + nic.pci + " (" + nic.name + ")";
  }
  throw ConfigError("no PCI device '" + std::string(address) +
                    "' in this topology; GPUs and NICs are: " + (known.empty() ? "none" : known));
}

/// One lane, one direction, behind the line code: 8b/10b, 128b/130b, or the flits of 64 GT/s.
double lane_gbytes_per_s(double gt_s) {
  if (gt_s <= 5) return gt_s * 0.8 / 8;
  if (gt_s <= 32) return gt_s * 128 / 130 / 8;
  return gt_s * 242 / 256 / 8;
}

/// The link between a device and the port above it; infinity if it is unknown.
double link_gbytes_per_s(const PciDevice& device, const PciDevice* port) {
  double speed = device.max_speed_gt_s > 0 ? device.max_speed_gt_s : device.speed_gt_s;
  if (port && port->max_speed_gt_s > 0) speed = std::min(speed, port->max_speed_gt_s);
  const uint32_t width = device.width ? device.width : device.max_width;
  if (speed <= 0 || width == 0) return std::numeric_limits<double>::infinity();
  return lane_gbytes_per_s(speed) * width;
}

/// The slowest link from below path[depth] down to the device.
double slowest_below(const Topology& t, const PciDevice& device, size_t depth) {
  double slowest = std::numeric_limits<double>::infinity();
  for (size_t i = depth; i <= device.path.size(); ++i) {
    const PciDevice* here = i < device.path.size() ? find_pci(t, device.path[i]) : &device;
    const PciDevice* port = i > 0 ? find_pci(t, device.path[i - 1]) : nullptr;
    if (here) slowest = std::min(slowest, link_gbytes_per_s(*here, port));
  }
  return slowest;
}

/// Ports between path[depth] and the device, without a switch that sits on the device's own card (it has the
/// device's vendor: BlueField, Pollara, Radeon).
size_t ports_below(const Topology& t, const PciDevice& device, size_t depth) {
  size_t end = device.path.size();
  while (end > depth + 1) {
    const PciDevice* port = find_pci(t, device.path[end - 1]);
    if (!port || port->vendor != device.vendor) break;
    --end;
  }
  return end - std::min(depth, end);
}

bool same_numa(const Topology& t, int a, int b) {
  if (t.numa_nodes.size() <= 1) return true;
  return a >= 0 && a == b;
}

Path pcie_path(const Topology& t, const PciDevice& a, const PciDevice& b) {
  std::vector<std::string> x = a.path, y = b.path;
  // A device may be above the other one (a NIC that is also a switch).
  x.push_back(a.address), y.push_back(b.address);
  const size_t common =
      static_cast<size_t>(std::mismatch(x.begin(), x.end(), y.begin(), y.end()).first - x.begin());
  Path path;
  if (common == 0) {
    path.kind = same_numa(t, a.numa_node, b.numa_node) ? PathKind::node : PathKind::sys;
  } else if (const PciDevice* meet = find_pci(t, x[common - 1]);
             meet && meet->class_code >> 8 == kPciBridge) {
    // Below the switch's upward port each side has one downward port; more are further switches. A shared
    // port with no ports below is the slot of a device with several functions.
    const size_t most = std::max(ports_below(t, a, common), ports_below(t, b, common));
    path.kind = most <= 1 ? PathKind::pix : PathKind::pxb;
  } else {
    path.kind = PathKind::phb;
  }
  const double slowest = std::min(slowest_below(t, a, common), slowest_below(t, b, common));
  if (slowest < std::numeric_limits<double>::infinity()) path.gbytes_per_s = slowest;
  return path;
}

}  // namespace

const char* path_name(PathKind kind) {
  switch (kind) {
    case PathKind::same:
      return "SELF";
    case PathKind::nvlink:
      return "NVL";
    case PathKind::xgmi:
      return "XGMI";
    case PathKind::pix:
      return "PIX";
    case PathKind::pxb:
      return "PXB";
    case PathKind::phb:
      return "PHB";
    case PathKind::node:
      return "NODE";
    case PathKind::sys:
      return "SYS";
    case PathKind::net:
      return "NET";
  }
  return "?";
}

const PciDevice* find_pci(const Topology& topology, std::string_view address) {
  for (const PciDevice& d : topology.pci) {
    if (d.address == address) return &d;
  }
  return nullptr;
}

Path path_between(const Topology& topology, std::string_view a, std::string_view b) {
  const PciDevice &x = require_pci(topology, a), &y = require_pci(topology, b);
  if (a == b) return {};
  for (const GpuLink& link : topology.links) {
    if ((link.a == a && link.b == b) || (link.a == b && link.b == a)) {
      return {.kind = link.kind, .gbytes_per_s = link.gbytes_per_s, .links = link.links};
    }
  }
  return pcie_path(topology, x, y);
}

RankPlace place_of(const Topology& topology, size_t gpu, const std::string& nic) {
  if (gpu >= topology.gpus.size()) {
    throw ConfigError("gpu=" + std::to_string(gpu) + ": this topology has " +
                      std::to_string(topology.gpus.size()) + " GPUs");
  }
  const Gpu& g = topology.gpus[gpu];
  RankPlace place{.host = topology.host, .gpu = g.pci, .numa_node = g.numa_node, .nic = nic};
  if (nic.empty()) return place;
  const auto found =
      std::find_if(topology.nics.begin(), topology.nics.end(), [&](const Nic& n) { return n.name == nic; });
  if (found == topology.nics.end()) throw ConfigError("nic='" + nic + "': no such NIC in this topology");
  for (const NicPort& port : found->ports) {
    if (port.active) place.nic_gbytes_per_s = std::max(place.nic_gbytes_per_s, port.gbit_per_s / 8);
  }
  if (!found->pci.empty()) {
    const double pcie = path_between(topology, g.pci, found->pci).gbytes_per_s;
    if (pcie > 0 && place.nic_gbytes_per_s > 0) {
      place.nic_gbytes_per_s = std::min(place.nic_gbytes_per_s, pcie);
    }
  }
  return place;
}

Path path_between_ranks(const Topology& topology, const RankPlace& a, const RankPlace& b) {
  if (a.host.empty() || a.host != b.host) {
    Path path{.kind = PathKind::net};
    if (a.nic_gbytes_per_s > 0 && b.nic_gbytes_per_s > 0) {
      path.gbytes_per_s = std::min(a.nic_gbytes_per_s, b.nic_gbytes_per_s);
    }
    return path;
  }
  const bool near = same_numa(topology, a.numa_node, b.numa_node);
  if (a.gpu.empty() != b.gpu.empty()) return {.kind = near ? PathKind::phb : PathKind::sys};
  if (a.gpu.empty()) return {.kind = near ? PathKind::node : PathKind::sys};
  if (a.gpu == b.gpu) return {};
  // A container may see only its own GPU; the peer's NUMA node is what remains.
  if (!find_pci(topology, a.gpu) || !find_pci(topology, b.gpu)) {
    return {.kind = near ? PathKind::node : PathKind::sys};
  }
  return path_between(topology, a.gpu, b.gpu);
}

}  // namespace mori::core
