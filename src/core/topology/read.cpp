// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// From sysfs to a Topology. Each step reads one part and adds a note for what it could not see:
//   NUMA nodes -> NICs and NVMe (they name their PCI devices) -> PCI: these, all GPUs, the bridges above ->
//   NUMA node of each device -> GPU links (KFD, and the caller's) -> what looks wrong.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "src/core/topology/links.hpp"
#include "src/core/topology/models.hpp"
#include "src/core/topology/sysfs.hpp"
#include "src/core/topology/topology.hpp"

namespace mori::core {

namespace {

namespace fs = std::filesystem;

constexpr uint32_t kMellanox = 0x15b3;
constexpr long long kUnknownWidth = 255;  // the kernel's word for "no link"

std::string hex4(uint32_t value) {
  char text[16];
  std::snprintf(text, sizeof text, "%04x", value);
  return text;
}

// ---- NUMA ----

void read_numa(Topology& t, const fs::path& root) {
  const fs::path folder = root / "sys/devices/system/node";
  std::string why;
  for (const std::string& name : sysfs::list(folder, &why)) {
    if (!name.starts_with("node") || name.find_first_not_of("0123456789", 4) != std::string::npos) continue;
    if (name.size() == 4 || name.size() > 10) continue;
    NumaNode node;
    node.id = std::stoi(name.substr(4));
    node.cpulist = sysfs::read_or_empty(folder / name / "cpulist");
    if (const auto cpus = sysfs::parse_cpulist(node.cpulist); cpus.empty()) {
      node.cpulist.clear();
    } else {
      const fs::path cpu = root / "sys/devices/system/cpu" / ("cpu" + std::to_string(cpus.front()));
      node.socket = static_cast<int>(sysfs::read_integer(cpu / "topology/physical_package_id").value_or(-1));
    }
    const std::string meminfo = sysfs::read_or_empty(folder / name / "meminfo");
    if (const size_t at = meminfo.find("MemTotal:"); at != std::string::npos) {
      node.memory_bytes = std::strtoull(meminfo.c_str() + at + 9, nullptr, 10) << 10;
    }
    const std::string distances = sysfs::read_or_empty(folder / name / "distance");
    for (const char* p = distances.c_str(); *p;) {
      char* end = nullptr;
      const long value = std::strtol(p, &end, 10);
      if (end == p) break;
      node.distances.push_back(static_cast<int>(value));
      p = end;
    }
    t.numa_nodes.push_back(std::move(node));
  }
  for (NumaNode& node : t.numa_nodes) {
    // Distances are of online nodes; a table of another size cannot be attributed.
    if (node.distances.size() != t.numa_nodes.size()) node.distances.clear();
  }
  if (t.numa_nodes.empty()) {
    t.notes.push_back("NUMA nodes are hidden" + (why.empty() ? "" : ": " + folder.string() + ": " + why));
  }
}

/// The node that has all these CPUs, -1 if they are those of several.
int node_with_cpus(const Topology& t, const std::string& cpulist) {
  const std::vector<int> cpus = sysfs::parse_cpulist(cpulist);
  if (cpus.empty()) return -1;
  for (const NumaNode& node : t.numa_nodes) {
    const std::vector<int> all = sysfs::parse_cpulist(node.cpulist);
    if (std::includes(all.begin(), all.end(), cpus.begin(), cpus.end())) return node.id;
  }
  return -1;
}

// ---- PCI ----

std::string driver_of(const fs::path& device) {
  return sysfs::resolve(device / "driver").filename().string();
}

/// Adds a device and the bridges above it, from its resolved path
/// /sys/devices/pci0000:00/0000:00:01.1/0000:01:00.0/0000:02:00.0/0000:03:00.0.
void add_pci(Topology& t, const fs::path& resolved) {
  std::vector<std::string> above;
  fs::path folder;
  for (const fs::path& part : resolved) {
    folder /= part;
    const std::string& name = part.native();
    // "pci0000:00"; also in the middle of a path, below a host bridge that is itself a device (VMD)
    if (name.starts_with("pci") && name.size() >= 10 && name.find(':') != std::string::npos) {
      above.push_back(name);
    } else if (sysfs::parse_address(name)) {
      if (!find_pci(t, name)) {
        PciDevice d;
        d.address = name;
        d.path = above;
        d.vendor = static_cast<uint32_t>(sysfs::read_integer(folder / "vendor").value_or(0));
        d.device = static_cast<uint32_t>(sysfs::read_integer(folder / "device").value_or(0));
        d.class_code = static_cast<uint32_t>(sysfs::read_integer(folder / "class").value_or(0));
        d.driver = driver_of(folder);
        d.numa_node = static_cast<int>(sysfs::read_integer(folder / "numa_node").value_or(-1));
        d.speed_gt_s = sysfs::read_real(folder / "current_link_speed").value_or(0);
        d.max_speed_gt_s = sysfs::read_real(folder / "max_link_speed").value_or(0);
        const auto width = [&](const char* file) {
          const long long lanes = sysfs::read_integer(folder / file).value_or(0);
          return lanes > 0 && lanes < kUnknownWidth ? static_cast<uint32_t>(lanes) : 0;
        };
        d.width = width("current_link_width");
        d.max_width = width("max_link_width");
        d.physical_function = sysfs::address_in(sysfs::resolve(folder / "physfn"));
        // The kernel says -1 where the firmware is silent. A port above may know; else the CPUs near it.
        if (d.numa_node < 0 && !above.empty()) {
          if (const PciDevice* port = find_pci(t, above.back())) d.numa_node = port->numa_node;
        }
        if (d.numa_node < 0) {
          d.numa_node = node_with_cpus(t, sysfs::read_or_empty(folder / "local_cpulist"));
        }
        if (d.numa_node < 0 && t.numa_nodes.size() == 1) d.numa_node = t.numa_nodes.front().id;
        t.pci.push_back(std::move(d));
      }
      above.push_back(name);
    }
  }
}

bool is_gpu(uint32_t vendor, uint32_t class_code) {
  if (vendor != kNvidia && vendor != kAmd) return false;
  switch (class_code >> 8) {
    case 0x0300:  // VGA: graphics cards, integrated GPUs
    case 0x0302:  // 3D: NVIDIA's data-centre GPUs
    case 0x0380:  // other display: Instinct MI100, MI200
      return true;
    case 0x1200:  // processing accelerator: Instinct MI300 and later
      return vendor == kAmd;
    default:
      return false;
  }
}

std::string model_of(const PciDevice& d, const fs::path& root) {
  const std::string text = sysfs::read_or_empty(root / "proc/driver/nvidia/gpus" / d.address / "information");
  if (const size_t at = text.find("Model:"); at != std::string::npos) {
    const size_t first = text.find_first_not_of(" \t", at + 6);
    const size_t end = text.find('\n', at);
    if (first < end) return text.substr(first, end - first);
  }
  const std::string product = sysfs::read_or_empty(root / "sys/bus/pci/devices" / d.address / "product_name");
  if (!product.empty()) return product;
  if (const GpuModel* model = find_model(d.vendor, d.device)) return model->name;
  return (d.vendor == kAmd ? "AMD " : "NVIDIA ") + hex4(d.device);
}

void read_gpus(Topology& t, const fs::path& root) {
  const fs::path folder = root / "sys/bus/pci/devices";
  std::string why;
  const std::vector<std::string> names = sysfs::list(folder, &why);
  if (names.empty()) {
    t.notes.push_back("PCI devices are hidden" + (why.empty() ? "" : ": " + folder.string() + ": " + why));
  }
  for (const std::string& name : names) {
    if (!sysfs::parse_address(name)) continue;
    const auto vendor = static_cast<uint32_t>(sysfs::read_integer(folder / name / "vendor").value_or(0));
    const auto code = static_cast<uint32_t>(sysfs::read_integer(folder / name / "class").value_or(0));
    const bool is_nic = code >> 8 == 0x0207 || (code >> 8 == 0x0200 && vendor == kMellanox);
    if (is_nic && std::none_of(t.nics.begin(), t.nics.end(), [&](const Nic& n) { return n.pci == name; })) {
      t.notes.push_back(
          "PCI device " + name +
          " is a NIC without an RDMA device: its RDMA driver is not loaded, or the device is in "
          "another network namespace");
    }
    if (!is_gpu(vendor, code)) continue;
    add_pci(t, sysfs::resolve(folder / name));
    const PciDevice* d = find_pci(t, name);
    if (!d) continue;
    t.gpus.push_back({.pci = name,
                      .vendor = vendor == kAmd ? "amd" : "nvidia",
                      .model = model_of(*d, root),
                      .numa_node = d->numa_node});
  }
}

// ---- NICs and NVMe ----

NicPort read_port(const fs::path& folder, const std::string& number, const std::string& first_netdev) {
  NicPort port;
  port.number = static_cast<uint32_t>(std::strtoul(number.c_str(), nullptr, 10));
  port.active = sysfs::read_or_empty(folder / "state").find("ACTIVE") != std::string::npos;
  port.gbit_per_s = sysfs::read_real(folder / "rate").value_or(0);
  port.link_layer = sysfs::read_or_empty(folder / "link_layer");
  port.netdev = sysfs::read_or_empty(folder / "gid_attrs/ndevs/0");
  if (port.netdev.empty() && port.number == 1) port.netdev = first_netdev;
  return port;
}

void read_nics(Topology& t, const fs::path& root) {
  const fs::path folder = root / "sys/class/infiniband";
  for (const std::string& name : sysfs::list(folder)) {
    const fs::path device = sysfs::resolve(folder / name);
    if (device.empty()) {
      t.notes.push_back("NIC " + sysfs::printable(name) + " is listed but its device is hidden");
      continue;
    }
    Nic nic;
    nic.name = sysfs::printable(name);
    const fs::path pci = sysfs::resolve(device / "device");
    nic.pci = sysfs::address_in(pci);
    if (!nic.pci.empty()) {
      add_pci(t, pci);
      nic.numa_node = find_pci(t, nic.pci)->numa_node;
    }
    std::string netdev = sysfs::read_or_empty(device / "parent");  // of software RDMA
    if (netdev.empty() && !pci.empty()) {
      if (const auto netdevs = sysfs::list(pci / "net"); !netdevs.empty())
        netdev = sysfs::printable(netdevs.front());
    }
    for (const std::string& port : sysfs::list(device / "ports")) {
      nic.ports.push_back(read_port(device / "ports" / port, port, netdev));
    }
    t.nics.push_back(std::move(nic));
  }
  std::sort(t.nics.begin(), t.nics.end(), [](const Nic& a, const Nic& b) {
    if (a.pci.empty() != b.pci.empty()) return b.pci.empty();
    if (a.pci != b.pci) return sysfs::address_less(a.pci, b.pci);
    return sysfs::natural_less(a.name, b.name);
  });
}

void read_nvmes(Topology& t, const fs::path& root) {
  const fs::path folder = root / "sys/class/nvme";
  for (const std::string& name : sysfs::list(folder)) {
    const fs::path pci = sysfs::resolve(folder / name / "device");
    const std::string address = sysfs::address_in(pci);
    if (address.empty()) continue;  // over fabrics
    add_pci(t, pci);
    t.nvmes.push_back({.name = name, .pci = address, .numa_node = find_pci(t, address)->numa_node});
  }
}

// ---- what looks wrong ----

void note_oddities(Topology& t, const fs::path& root) {
  if (sysfs::read_or_empty(root / "proc/cpuinfo").find(" hypervisor") != std::string::npos) {
    t.notes.push_back(
        "this is a virtual machine: PCIe paths and NUMA nodes are those that the hypervisor shows");
  }
  std::string homeless;
  const auto check = [&](const std::string& what, const std::string& address, bool idles_slower) {
    const PciDevice* d = find_pci(t, address);
    if (!d) return;
    if (d->numa_node < 0 && t.numa_nodes.size() > 1) homeless += (homeless.empty() ? "" : ", ") + what;
    if (d->path.empty()) return;
    const PciDevice* port = find_pci(t, d->path.back());
    if (!port) return;
    const uint32_t lanes = std::min(d->max_width, port->max_width);
    if (d->width && d->width < lanes) {
      t.notes.push_back(what + ": PCIe link runs at x" + std::to_string(d->width) + " of x" +
                        std::to_string(lanes));
    }
    const double speed = std::min(d->max_speed_gt_s, port->max_speed_gt_s);
    if (!idles_slower && d->speed_gt_s > 0 && d->speed_gt_s < speed) {
      t.notes.push_back(what + ": PCIe link runs at " + std::to_string(std::lround(d->speed_gt_s)) + " of " +
                        std::to_string(std::lround(speed)) + " GT/s");
    }
  };
  for (const Gpu& gpu : t.gpus) check("GPU " + gpu.pci, gpu.pci, true);
  for (const Nic& nic : t.nics) {
    if (!nic.pci.empty()) check("NIC " + nic.name, nic.pci, false);
    if (std::none_of(nic.ports.begin(), nic.ports.end(), [](const NicPort& p) { return p.active; })) {
      t.notes.push_back("NIC " + nic.name + ": no port is active");
    }
  }
  if (!homeless.empty()) t.notes.push_back("NUMA node unknown: " + homeless);
}

}  // namespace

Topology read_topology(const fs::path& root, const std::vector<GpuLink>& links) {
  Topology t;
  t.host = sysfs::read_or_empty(root / "proc/sys/kernel/random/boot_id");
  read_numa(t, root);
  read_nics(t, root);
  read_nvmes(t, root);
  read_gpus(t, root);
  read_kfd_links(t, root);
  add_given_links(t, links);
  std::sort(t.pci.begin(), t.pci.end(),
            [](const PciDevice& a, const PciDevice& b) { return sysfs::address_less(a.address, b.address); });
  std::sort(t.gpus.begin(), t.gpus.end(),
            [](const Gpu& a, const Gpu& b) { return sysfs::address_less(a.pci, b.pci); });
  std::sort(t.links.begin(), t.links.end(), [](const GpuLink& x, const GpuLink& y) {
    return x.a != y.a ? sysfs::address_less(x.a, y.a) : sysfs::address_less(x.b, y.b);
  });
  note_oddities(t, root);
  return t;
}

}  // namespace mori::core
