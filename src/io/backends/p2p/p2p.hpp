// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// GPU memory to and from GPU or host memory of the same host: docs/io_p2p.md.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "src/core/runtime/device.hpp"
#include "src/io/backend.hpp"
#include "src/io/backends/table.hpp"

namespace mori::io {

struct P2pOptions {
  std::optional<core::Kind> kind;  ///< cuda or hip; nothing: the one that has devices
  std::string kernel_dir;          ///< as core::DeviceOptions::kernel_dir
  uint32_t blocks = 64;            ///< most thread blocks of the gather/scatter kernel
  // The kernel carries what is smaller, copy engines the rest: see by_kernel().
  uint64_t kernel_below_bytes = 8 << 20;          ///< average segment of several, GPU to GPU
  uint64_t host_kernel_below_bytes = 512 << 10;   ///< the same where one side is host memory
  uint64_t single_kernel_below_bytes = 64 << 10;  ///< a transfer of one segment
  /// Kernels tell their end by a word of their own, not by an event. Nothing: on CUDA.
  std::optional<bool> kernel_marks;
};

namespace p2p {
std::unique_ptr<Backend> make_p2p(P2pOptions options);
/// Whether the kernel carries a transfer. A call of a copy engine costs 2.3 to 3.5 us more than a piece of a
/// kernel, whose stores reach nine tenths of its bandwidth between GPUs and eight tenths over PCIe.
bool by_kernel(const P2pOptions& options, uint64_t segments, uint64_t bytes, bool both_gpu);
/// Options: kind (cuda, hip), and the fields of P2pOptions under their names.
std::unique_ptr<Backend> make_backend(Host& host, const BackendOptions& options);
}  // namespace p2p

}  // namespace mori::io
