// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Gives a backend that moves host memory the GPU memory of this process as the local side: bytes go through
// pinned chunks, copied by the GPU while the backend carries other chunks (docs/io_p2p.md, "By way of host
// memory"). Everything that concerns host memory is passed on as it is.
#pragma once
#include <memory>

#include "src/io/backend.hpp"
#include "src/io/backends/p2p/p2p.hpp"

namespace mori::io::staged {

std::unique_ptr<Backend> stage(std::unique_ptr<Backend> inner, const P2pOptions& options = {});

}  // namespace mori::io::staged
