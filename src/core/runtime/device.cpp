// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The kinds of devices: one row each.
#include "src/core/runtime/device.hpp"

#include "src/core/runtime/cpu_device.hpp"
#include "src/core/runtime/gpu_device.hpp"

namespace mori::core {
namespace {

struct KindRow {
  Kind kind;
  const char* name;
  std::shared_ptr<Device> (*open)(Kind, int, const DeviceOptions&);
  int (*count)(Kind, std::string*);
  PeerAttributes (*peer_attributes)(Kind, int, int);
};

std::shared_ptr<Device> open_cpu_row(Kind, int ordinal, const DeviceOptions& options) {
  return open_cpu(ordinal, options);
}
int count_cpu(Kind, std::string*) { return 1; }
PeerAttributes cpu_peer_attributes(Kind, int, int) { return {.access = true, .native_atomics = true}; }

constexpr KindRow kKinds[] = {
    {Kind::cpu, "cpu", open_cpu_row, count_cpu, cpu_peer_attributes},
    {Kind::cuda, "cuda", open_gpu, gpu_count, gpu_peer_attributes},
    {Kind::hip, "hip", open_gpu, gpu_count, gpu_peer_attributes},
};

const KindRow& row(Kind kind) {
  for (const KindRow& r : kKinds) {
    if (r.kind == kind) return r;
  }
  throw ConfigError("kind=" + std::to_string(int(kind)) + " is not a kind of device");
}

}  // namespace

const char* kind_name(Kind kind) { return row(kind).name; }

std::shared_ptr<Device> open_device(Kind kind, int ordinal, const DeviceOptions& options) {
  return row(kind).open(kind, ordinal, options);
}

int device_count(Kind kind, std::string* why) { return row(kind).count(kind, why); }

PeerAttributes peer_attributes(Kind kind, int from, int to) {
  return row(kind).peer_attributes(kind, from, to);
}

}  // namespace mori::core
