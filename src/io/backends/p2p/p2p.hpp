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
  /// Transfers whose segments are on average smaller are carried by the kernel, others by copy engines.
  uint64_t kernel_below_bytes = 1 << 20;
  /// The same where one side is host memory: kernels are slower over PCIe than copy engines sooner.
  uint64_t host_kernel_below_bytes = 64 << 10;
};

namespace p2p {
std::unique_ptr<Backend> make_p2p(P2pOptions options);
/// Options: kind (cuda, hip), kernel_dir, blocks, kernel_below_bytes, host_kernel_below_bytes.
std::unique_ptr<Backend> make_backend(Host& host, const BackendOptions& options);
}  // namespace p2p

}  // namespace mori::io
