// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// See links.hpp.
#include "src/core/topology/links.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "src/core/errors.hpp"
#include "src/core/topology/models.hpp"
#include "src/core/topology/sysfs.hpp"

namespace mori::core {

namespace {

constexpr long long kXgmiType = 11;  // CRAT_IOLINK_TYPE_XGMI

void add_link(Topology& t, GpuLink link, bool replace) {
  if (sysfs::address_less(link.b, link.a)) std::swap(link.a, link.b);
  for (GpuLink& known : t.links) {
    if (known.a != link.a || known.b != link.b) continue;
    // Both directions are listed, and each pair of a partitioned GPU's parts: the links are the same.
    if (replace || link.gbytes_per_s > known.gbytes_per_s) known = link;
    return;
  }
  t.links.push_back(std::move(link));
}

bool has_gpu(const Topology& t, const std::string& address) {
  return std::any_of(t.gpus.begin(), t.gpus.end(), [&](const Gpu& gpu) { return gpu.pci == address; });
}

}  // namespace

void read_kfd_links(Topology& t, const std::filesystem::path& root) {
  const std::filesystem::path folder = root / "sys/class/kfd/kfd/topology/nodes";
  std::map<long long, std::string> address_of_node;
  std::map<std::string, uint32_t> partitions;
  const std::vector<std::string> nodes = sysfs::list(folder);
  for (const std::string& node : nodes) {
    if (sysfs::read_integer(folder / node / "gpu_id").value_or(-1) == 0) continue;  // a CPU
    const auto properties = sysfs::parse_properties(sysfs::read_or_empty(folder / node / "properties"));
    const auto location = properties.find("location_id");
    if (location == properties.end()) {
      t.notes.push_back("KFD node " + node + " is not readable: this container was not given that GPU");
      continue;
    }
    const auto domain = properties.find("domain");
    char address[32];
    // The upper half of location_id numbers partitions.
    std::snprintf(address, sizeof address, "%04x:%02x:%02x.%x",
                  static_cast<unsigned>(domain == properties.end() ? 0 : domain->second),
                  static_cast<unsigned>(location->second >> 8 & 0xff),
                  static_cast<unsigned>(location->second >> 3 & 0x1f),
                  static_cast<unsigned>(location->second & 7));
    address_of_node[std::strtoll(node.c_str(), nullptr, 10)] = address;
    ++partitions[address];
  }
  for (Gpu& gpu : t.gpus) {
    if (const auto it = partitions.find(gpu.pci); it != partitions.end()) gpu.partitions = it->second;
  }
  for (const std::string& node : nodes) {
    for (const std::string& link : sysfs::list(folder / node / "io_links")) {
      const auto file = folder / node / "io_links" / link / "properties";
      auto p = sysfs::parse_properties(sysfs::read_or_empty(file));
      if (p["type"] != kXgmiType) continue;
      const auto from = address_of_node.find(p["node_from"]), to = address_of_node.find(p["node_to"]);
      if (from == address_of_node.end() || to == address_of_node.end() || from->second == to->second)
        continue;
      if (!has_gpu(t, from->second) || !has_gpu(t, to->second)) continue;
      const long long one = p["min_bandwidth"], all = p["max_bandwidth"];  // MB/s
      add_link(t,
               {.a = from->second,
                .b = to->second,
                .kind = PathKind::xgmi,
                .links = one > 0 && all % one == 0 ? static_cast<uint32_t>(all / one) : 0,
                .gbytes_per_s = static_cast<double>(all) / 1000,
                .weight = static_cast<uint32_t>(p["weight"])},
               /*replace=*/false);
    }
  }
}

void add_given_links(Topology& t, const std::vector<GpuLink>& links) {
  for (GpuLink link : links) {
    const std::string where = "gpu_links: " + link.a + " - " + link.b + ": ";
    if (link.kind != PathKind::nvlink && link.kind != PathKind::xgmi) {
      throw ConfigError(where + "kind is " + path_name(link.kind) + ", allowed are NVL and XGMI");
    }
    if (!sysfs::parse_address(link.a) || !sysfs::parse_address(link.b) || link.a == link.b) {
      throw ConfigError(where + "must name two GPUs by PCI address, as in 0000:1b:00.0");
    }
    if (!(std::isfinite(link.gbytes_per_s) && link.gbytes_per_s >= 0)) {
      throw ConfigError(where + "gbytes_per_s must be 0 (unknown) or more, not " +
                        std::to_string(link.gbytes_per_s));
    }
    if (!has_gpu(t, link.a) || !has_gpu(t, link.b)) {
      t.notes.push_back(where + (has_gpu(t, link.a) ? link.b : link.a) +
                        " is no GPU visible here; link ignored");
      continue;
    }
    const PciDevice *a = find_pci(t, link.a), *b = find_pci(t, link.b);
    const GpuModel *x = find_model(a->vendor, a->device), *y = find_model(b->vendor, b->device);
    if (link.kind == PathKind::nvlink && link.gbytes_per_s == 0 && x && y) {
      const double rate = std::min(x->nvlink_gbytes_per_s, y->nvlink_gbytes_per_s);
      if (link.links == 0) link.links = std::min(x->nvlinks, y->nvlinks);
      link.gbytes_per_s = link.links * rate;
    }
    add_link(t, std::move(link), /*replace=*/true);
  }
}

}  // namespace mori::core
