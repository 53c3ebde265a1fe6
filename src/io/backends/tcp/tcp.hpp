// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The tcp backend: host memory of any two engines that reach each other over the network. docs/io_tcp.md.
// Options: streams (2), retries (3), grace_ms (100), connect_ms (5000).
#pragma once
#include <memory>

#include "src/io/backend.hpp"
#include "src/io/backends/table.hpp"

namespace mori::io::tcp {

std::unique_ptr<Backend> make_backend(Host& host, const BackendOptions& options);

}  // namespace mori::io::tcp
