// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// What hangs where in this machine, and the two questions asked of it: which NIC serves which GPU, and
// over what do two ranks reach each other.
//
//   Topology t = read_topology("/", links);          // once, reads sysfs; never throws for what is hidden
//   std::vector<std::string> nics = assign_nics(t);  // one name per GPU
//   Path p = path_between(t, t.gpus[0].pci, t.gpus[1].pci);
//
// A Topology is a plain value, read once and then passed about; nothing here keeps state. Devices are named
// by their PCI address ("0000:1b:00.0"), NICs by their RDMA name ("mlx5_0"). Lists are ordered by address, so
// every rank of a machine sees the same order, whatever the order of the directories.
// The rules and what cannot be seen: docs/topology.md.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace mori::core {

/// Paths, nearest first. The PCIe ones mean what they mean in `nvidia-smi topo -m`.
enum class PathKind : uint8_t {
  same,    ///< SELF: one device
  nvlink,  ///< NVL: NVLink, directly or through NVSwitch
  xgmi,    ///< XGMI: AMD Infinity Fabric links
  pix,     ///< PIX: one PCIe switch
  pxb,     ///< PXB: several PCIe switches, no host bridge
  phb,     ///< PHB: one PCIe host bridge
  node,    ///< NODE: several host bridges of one NUMA node
  sys,     ///< SYS: between NUMA nodes, usually across sockets
  net,     ///< NET: between machines
};
const char* path_name(PathKind kind);

struct NumaNode {
  int id = 0;
  int socket = -1;             ///< physical package of its CPUs; -1: has none, or hidden
  std::string cpulist;         ///< as the kernel writes it: "0-15,32-47"
  uint64_t memory_bytes = 0;   ///< 0: hidden
  std::vector<int> distances;  ///< to each entry of Topology::numa_nodes; 10 is local
};

/// A GPU, a NIC, an NVMe drive, or a bridge above one of them.
struct PciDevice {
  std::string address;
  uint32_t vendor = 0;
  uint32_t device = 0;
  uint32_t class_code = 0;  ///< 24 bits: class, subclass, interface
  std::string driver;       ///< empty: none is bound
  int numa_node = -1;       ///< -1: unknown
  /// From the host bridge ("pci0000:00") down to the port above the device.
  std::vector<std::string> path;
  std::string physical_function;  ///< of an SR-IOV virtual function whose physical one is visible
  // The link above it. GPUs lower the speed when idle, so estimates take the highest speed of both ends, but
  // the width as it is. 0: unknown, or no link (part of the chipset, or a virtual machine).
  double speed_gt_s = 0;
  double max_speed_gt_s = 0;
  uint32_t width = 0;
  uint32_t max_width = 0;
};

struct Gpu {
  std::string pci;
  std::string vendor;  ///< "amd" or "nvidia"
  std::string model;
  int numa_node = -1;
  uint32_t partitions = 1;  ///< devices that it presents itself as (AMD compute partitions)
};

struct NicPort {
  uint32_t number = 1;
  bool active = false;
  double gbit_per_s = 0;   ///< 0: unknown
  std::string link_layer;  ///< "InfiniBand", "Ethernet" (RoCE), "Unspecified" (EFA)
  std::string netdev;
};

struct Nic {
  std::string name;
  std::string pci;  ///< empty: software (rxe, siw)
  int numa_node = -1;
  std::vector<NicPort> ports;
};

struct Nvme {
  std::string name;
  std::string pci;
  int numa_node = -1;
};

/// All links between two GPUs. `a` < `b`.
struct GpuLink {
  std::string a;
  std::string b;
  PathKind kind = PathKind::nvlink;  ///< nvlink or xgmi
  uint32_t links = 0;                ///< 0: unknown
  double gbytes_per_s = 0;           ///< all of them, one direction; 0: unknown
  uint32_t weight = 0;               ///< the kernel's cost of an xGMI link: 15 a hop; 0: unknown
};

struct Topology {
  std::string host;  ///< the kernel's boot id: equal for two containers of one machine; empty: hidden
  std::vector<NumaNode> numa_nodes;
  std::vector<PciDevice> pci;
  std::vector<Gpu> gpus;
  std::vector<Nic> nics;
  std::vector<Nvme> nvmes;
  std::vector<GpuLink> links;
  std::vector<std::string> notes;  ///< what could not be seen and what looks wrong, for people
};

struct Path {
  PathKind kind = PathKind::same;
  double gbytes_per_s = 0;  ///< upper bound for one direction from link rates; 0: unknown
  uint32_t links = 0;       ///< GPU-GPU links; 0: none, or unknown
};

/// Reads `root`/sys and a little of `root`/proc. NVLink is not in there: whoever has the driver passes
/// `links` (given ones replace those that sysfs shows for the same pair). What is missing, hidden or
/// unreadable becomes a note. Throws ConfigError for a wrong entry of `links` only.
Topology read_topology(const std::filesystem::path& root = "/", const std::vector<GpuLink>& links = {});

/// nullptr: not in this topology.
const PciDevice* find_pci(const Topology& topology, std::string_view address);

/// Between two PCI devices of this machine. Throws ConfigError for an address that is not in the topology.
Path path_between(const Topology& topology, std::string_view a, std::string_view b);

/// NICs worth using from GPU number `gpu`, best first: nearest path, then NUMA distance, then address. Left
/// out are ports that are down, slow ones (under half of the fastest), ones of another link layer, virtual
/// functions beside their physical one, software ones; unless there are no others. `allow` names the NICs to
/// choose from and replaces these rules. Throws ConfigError for an unknown GPU or name.
std::vector<std::string> pick_nics(const Topology& topology, size_t gpu,
                                   const std::vector<std::string>& allow = {});

/// The same for memory of a NUMA node, -1 if unknown.
std::vector<std::string> pick_nics_for_numa(const Topology& topology, int numa_node,
                                            const std::vector<std::string>& allow = {});

/// One NIC per GPU, in the order of Topology::gpus: of the nearest ones, the one that serves the fewest GPUs.
/// Empty names only if there is no NIC.
std::vector<std::string> assign_nics(const Topology& topology, const std::vector<std::string>& allow = {});

/// What a rank tells its peers so that each can find the path to it.
struct RankPlace {
  std::string host;  ///< Topology::host
  std::string gpu;   ///< PCI address; empty: a CPU rank
  int numa_node = -1;
  std::string nic;              ///< empty: none
  double nic_gbytes_per_s = 0;  ///< what the port and the path to it allow; 0: unknown
};

/// The place of a rank on GPU number `gpu` that uses `nic`.
RankPlace place_of(const Topology& topology, size_t gpu, const std::string& nic);

/// `topology` is that of the machine of `a`; `b` may be on another one. Ranks whose host is hidden count as
/// being on different machines.
Path path_between_ranks(const Topology& topology, const RankPlace& a, const RankPlace& b);

}  // namespace mori::core
