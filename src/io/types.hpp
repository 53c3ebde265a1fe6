// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The words of the transfer engine: memories, segments, outcomes. Plain data, no behaviour.
// docs/io.md tells how they fit together.
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace mori::io {

/// From the initiator's side: write = my memory to the peer's, read = the peer's to mine.
enum class Op : uint8_t { read, write };

/// Values are those of `MemoryLocationType` in Python.
enum class Location : uint8_t { unknown = 0, cpu = 1, gpu = 2, file = 3 };

/// Values up to err_gpu_op are fixed by what frameworks compare with; everything above err_begin is a
/// failure.
enum class StatusCode : int32_t {
  success = 0,
  init = 1,
  in_progress = 2,
  err_begin = 10,
  err_invalid_args = 11,
  err_not_found = 12,  ///< the peer, or the memory at the peer, does not exist (any more)
  err_rdma_op = 13,
  err_bad_state = 14,  ///< descriptor of an earlier incarnation, engine closed
  err_gpu_op = 15,
  err_timeout = 16,
  err_cancelled = 17,
  err_peer_lost = 18,
  err_transport = 19,
  err_denied = 20,  ///< wrong key, failed authentication, out of the registered range
  err_io = 21,      ///< a file
};

/// Piece of a transfer: offsets from the start of the local and the remote memory.
struct Segment {
  uint64_t local = 0;
  uint64_t remote = 0;
  uint64_t bytes = 0;
};

/// 128 random bits: who cannot present them does not reach the memory.
using RegionKey = std::array<uint8_t, 16>;

/// A memory that this engine registered.
struct Region {
  uint64_t id = 0;  ///< never reused within an incarnation
  RegionKey key{};
  Location location = Location::unknown;
  int32_t device = -1;   ///< GPU index, -1 for host memory and files
  uint64_t address = 0;  ///< start; 0 for a file
  uint64_t bytes = 0;
  int fd = -1;       ///< open file of a file region, owned by the engine
  std::string path;  ///< of a file region
};

/// A memory of another engine, as its descriptor says.
struct RemoteRegion {
  std::string engine;        ///< key of the engine
  uint64_t incarnation = 0;  ///< of the engine when it registered the memory
  uint64_t id = 0;
  RegionKey key{};
  Location location = Location::unknown;
  int32_t device = -1;
  std::string device_bus_id;  ///< PCI address of the GPU, empty for host memory
  int32_t numa_node = -1;
  uint64_t address = 0;
  uint64_t bytes = 0;
};

/// How a job ended. `unfinished` lists, in any order, what was not confirmed to be at its destination: what
/// another route would have to send. Nothing of the job is touched any more, on either side, once this
/// exists.
struct Outcome {
  StatusCode code = StatusCode::success;
  std::string message{};    ///< for people: peer, device and cause in words; empty on success
  bool reroutable = false;  ///< the route failed, not the request: another backend may carry `unfinished`
  std::vector<Segment> unfinished{};
};

}  // namespace mori::io
