// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// GPU memory for a NIC: as a dma-buf. A region may be part of an allocation (a pool's tensor), so the offset
// matters: the dma-buf covers whole pages of the allocation, and the region starts somewhere in it.
#pragma once
#include <optional>
#include <string>

#include "src/io/backends/rdma/config.hpp"

namespace mori::io::rdma {

/// Null with the reason when the driver cannot export it.
std::optional<Dmabuf> export_dmabuf(const Region& region, std::string* why);

/// PCI address of a GPU as its driver counts, empty without a driver.
std::string gpu_bus_id(int device);

}  // namespace mori::io::rdma
