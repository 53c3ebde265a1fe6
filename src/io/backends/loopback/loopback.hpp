// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// A backend for tests, yours and ours: engines of one process, host memory, and faults to order. Never made
// unless asked for. Options:
//
//   mode           0 = copies inside submit(), 1 = its thread or a helping waiter copies
//   chunk_bytes    looks for stopping() and faults after so many bytes
//   delay_us       sleeps before each chunk
//   fault_permille chance that a chunk fails as if the route broke; what is not copied goes back to the
//   engine fail_jobs      so many first jobs fail after half of their bytes lose_jobs      so many first jobs
//   end as if the peer was lost refuse         1 = prepare() says no add            1 = adds the source to
//   the destination bytewise instead of copying: bytes sent twice show seed           of the faults
//
// "loopback2" is the same under another name, so that one can take over from the other.
#pragma once
#include <memory>

#include "src/io/backends/table.hpp"

namespace mori::io::loopback {

std::unique_ptr<Backend> make_backend(Host& host, const BackendOptions& options);
std::unique_ptr<Backend> make_second_backend(Host& host, const BackendOptions& options);

}  // namespace mori::io::loopback
