// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The CPU as a device: see device.hpp for the contract. Stream 0 runs kernels before launch() returns, in
// the calling thread and the device's pool; other streams have a worker and a pool each. Streams are not
// ordered with each other.
#pragma once
#include <memory>

#include "src/core/runtime/device.hpp"

namespace mori::core {

std::shared_ptr<Device> open_cpu(int ordinal, const DeviceOptions& options);

}  // namespace mori::core
