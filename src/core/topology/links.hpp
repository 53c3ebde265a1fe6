// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Links between GPUs: xGMI from the tables of the AMD compute driver (KFD), NVLink from the caller. Private
// to this folder.
#pragma once
#include <filesystem>
#include <vector>

#include "src/core/topology/topology.hpp"

namespace mori::core {

/// KFD's nodes are CPUs and GPUs, each partition of a GPU being one; a GPU's place on PCI is in location_id.
/// Also fills Gpu::partitions. t.gpus must be there.
void read_kfd_links(Topology& t, const std::filesystem::path& root);

/// Checks and adds the caller's links; they replace those known for the same pair.
void add_given_links(Topology& t, const std::vector<GpuLink>& links);

}  // namespace mori::core
