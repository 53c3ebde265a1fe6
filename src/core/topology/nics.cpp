// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Which NIC for which GPU. First the NICs worth using, then the nearest of them, then the least loaded.
// Every choice is decided by values and addresses alone, so all ranks of a machine agree without talking.
#include <algorithm>
#include <limits>
#include <map>
#include <numeric>
#include <tuple>

#include "src/core/errors.hpp"
#include "src/core/topology/sysfs.hpp"
#include "src/core/topology/topology.hpp"

namespace mori::core {

namespace {

constexpr int kUnknownDistance = std::numeric_limits<int>::max();

/// How far a NIC is: smaller is nearer.
using Nearness = std::pair<PathKind, int>;

bool is_active(const Nic& nic) {
  return std::any_of(nic.ports.begin(), nic.ports.end(), [](const NicPort& p) { return p.active; });
}

double rate_of(const Nic& nic) {
  double rate = 0;
  for (const NicPort& port : nic.ports) {
    if (port.active) rate = std::max(rate, port.gbit_per_s);
  }
  return rate;
}

std::string link_layer_of(const Nic& nic) {
  for (const NicPort& port : nic.ports) {
    if (port.active) return port.link_layer;
  }
  return nic.ports.empty() ? std::string() : nic.ports.front().link_layer;
}

using Indices = std::vector<size_t>;

/// `from` without the entries that fail the test, unless all of them do.
template <class Test>
Indices prefer(const Indices& from, Test test) {
  Indices kept;
  std::copy_if(from.begin(), from.end(), std::back_inserter(kept), test);
  return kept.empty() ? from : kept;
}

Indices usable(const Topology& t, const std::vector<std::string>& allow) {
  Indices all(t.nics.size());
  std::iota(all.begin(), all.end(), size_t{0});
  if (!allow.empty()) {
    Indices named;
    for (const size_t i : all) {
      if (std::find(allow.begin(), allow.end(), t.nics[i].name) != allow.end()) named.push_back(i);
    }
    for (const std::string& name : allow) {
      if (std::any_of(t.nics.begin(), t.nics.end(), [&](const Nic& n) { return n.name == name; })) continue;
      std::string known;
      for (const Nic& nic : t.nics) known += (known.empty() ? "" : ", ") + nic.name;
      throw ConfigError("allow: no NIC '" + name +
                        "'; this machine has: " + (known.empty() ? "none" : known));
    }
    return named;
  }
  all = prefer(all, [&](size_t i) { return !t.nics[i].pci.empty(); });
  all = prefer(all, [&](size_t i) { return is_active(t.nics[i]); });
  // A virtual function sends through the port of its physical one.
  all = prefer(all, [&](size_t i) {
    const PciDevice* d = find_pci(t, t.nics[i].pci);
    return !d || d->physical_function.empty();
  });
  // InfiniBand and Ethernet do not reach each other: keep the layer that carries most (by name if equal).
  std::map<std::string, double> carried;
  for (const size_t i : all) carried[link_layer_of(t.nics[i])] += rate_of(t.nics[i]);
  const auto best = std::max_element(carried.begin(), carried.end(),
                                     [](const auto& a, const auto& b) { return a.second < b.second; });
  all = prefer(all, [&](size_t i) { return link_layer_of(t.nics[i]) == best->first; });
  // Slower ports beside the fabric's are for management and storage. An unknown rate speaks against nobody.
  double fastest = 0;
  for (const size_t i : all) fastest = std::max(fastest, rate_of(t.nics[i]));
  return prefer(all, [&](size_t i) { return rate_of(t.nics[i]) == 0 || rate_of(t.nics[i]) * 2 >= fastest; });
}

int numa_distance(const Topology& t, int a, int b) {
  const auto position = [&](int id) {
    const auto it = std::find_if(t.numa_nodes.begin(), t.numa_nodes.end(),
                                 [&](const NumaNode& node) { return node.id == id; });
    return static_cast<size_t>(it - t.numa_nodes.begin());
  };
  const size_t x = position(a), y = position(b);
  if (x >= t.numa_nodes.size() || y >= t.numa_nodes.size()) return kUnknownDistance;
  const std::vector<int>& distances = t.numa_nodes[x].distances;
  return y < distances.size() ? distances[y] : kUnknownDistance;
}

Nearness nearness(const Topology& t, const Gpu& gpu, const Nic& nic) {
  if (nic.pci.empty()) return {PathKind::net, kUnknownDistance};
  const PathKind kind = path_between(t, gpu.pci, nic.pci).kind;
  // Within a NUMA node its distance says nothing further.
  if (kind != PathKind::sys) return {kind, 0};
  return {kind, numa_distance(t, gpu.numa_node, nic.numa_node)};
}

const Gpu& require_gpu(const Topology& t, size_t gpu) {
  if (gpu < t.gpus.size()) return t.gpus[gpu];
  throw ConfigError("gpu=" + std::to_string(gpu) + ": this topology has " + std::to_string(t.gpus.size()) +
                    " GPUs");
}

template <class Measure>
std::vector<std::string> sorted_names(const Topology& t, const Indices& nics, Measure measure) {
  std::vector<std::pair<Nearness, size_t>> order;
  for (const size_t i : nics) order.emplace_back(measure(t.nics[i]), i);
  std::sort(order.begin(), order.end());
  std::vector<std::string> names;
  for (const auto& entry : order) names.push_back(t.nics[entry.second].name);
  return names;
}

/// The card of a NIC: functions of one slot share its PCIe link.
std::string card_of(const Nic& nic) {
  return nic.pci.empty() ? nic.name : nic.pci.substr(0, nic.pci.size() - 2);
}

}  // namespace

std::vector<std::string> pick_nics(const Topology& topology, size_t gpu,
                                   const std::vector<std::string>& allow) {
  const Gpu& g = require_gpu(topology, gpu);
  return sorted_names(topology, usable(topology, allow),
                      [&](const Nic& nic) { return nearness(topology, g, nic); });
}

std::vector<std::string> pick_nics_for_numa(const Topology& topology, int numa_node,
                                            const std::vector<std::string>& allow) {
  return sorted_names(topology, usable(topology, allow), [&](const Nic& nic) -> Nearness {
    if (numa_node >= 0 && nic.numa_node == numa_node) return {PathKind::node, 0};
    return {PathKind::sys, numa_distance(topology, numa_node, nic.numa_node)};
  });
}

std::vector<std::string> assign_nics(const Topology& topology, const std::vector<std::string>& allow) {
  const Indices nics = usable(topology, allow);
  std::vector<std::string> assigned(topology.gpus.size());
  if (nics.empty()) return assigned;

  std::vector<Indices> nearest(topology.gpus.size());
  std::vector<std::pair<Nearness, size_t>> key(topology.gpus.size());
  for (size_t g = 0; g < topology.gpus.size(); ++g) {
    Nearness best{PathKind::net, kUnknownDistance};
    for (const size_t i : nics) best = std::min(best, nearness(topology, topology.gpus[g], topology.nics[i]));
    for (const size_t i : nics) {
      if (nearness(topology, topology.gpus[g], topology.nics[i]) == best) nearest[g].push_back(i);
    }
    key[g] = {best, nearest[g].size()};
  }
  // GPUs with the least choice go first: one that may take any NIC of its node must not take the only NIC
  // that another one has on its switch.
  Indices order(topology.gpus.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return key[a] < key[b]; });

  std::vector<size_t> load(topology.nics.size(), 0);
  std::map<std::string, size_t> card_load;
  for (const size_t g : order) {
    const size_t pick = *std::min_element(nearest[g].begin(), nearest[g].end(), [&](size_t a, size_t b) {
      return std::tuple(load[a], card_load[card_of(topology.nics[a])], a) <
             std::tuple(load[b], card_load[card_of(topology.nics[b])], b);
    });
    ++load[pick];
    ++card_load[card_of(topology.nics[pick])];
    assigned[g] = topology.nics[pick].name;
  }
  return assigned;
}

}  // namespace mori::core
