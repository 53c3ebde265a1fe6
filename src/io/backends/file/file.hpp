// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The file backend as the table of backends has it, with GPU memory staged through pinned host memory.
#pragma once
#include <memory>

#include "src/io/backends/table.hpp"

namespace mori::io::file {

/// Options: io_uring (flag), threads, depth (requests in flight), block_bytes.
std::unique_ptr<Backend> make_backend(Host& host, const BackendOptions& options);

}  // namespace mori::io::file
