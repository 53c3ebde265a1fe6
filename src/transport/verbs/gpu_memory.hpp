// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// GPU memory for a NIC: as a dma-buf. A region may be part of an allocation (a pool's tensor), so the offset
// matters: the dma-buf covers whole pages of the allocation, and the region starts somewhere in it.
#pragma once
#include <cstdint>
#include <optional>
#include <string>

#include "src/core/fd.hpp"

namespace mori::verbs {

/// GPU memory as a dma-buf: `offset` is where the region starts in it.
struct Dmabuf {
  core::Fd fd;
  uint64_t offset = 0;
};

/// [address, address + bytes) of GPU `device`. Null with the reason when the driver cannot export it.
std::optional<Dmabuf> export_dmabuf(int device, uint64_t address, uint64_t bytes, std::string* why);

/// PCI address of a GPU as its driver counts, empty without a driver.
std::string gpu_bus_id(int device);

}  // namespace mori::verbs
