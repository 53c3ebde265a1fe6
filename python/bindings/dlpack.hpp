// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The part of the DLPack interface (github.com/dmlc/dlpack, unversioned capsules) that handing memory to
// torch or numpy takes. Plain C layout, fixed by that project.
#pragma once
#include <cstdint>

namespace mori::dlpack {

enum DeviceType : int32_t { kCpu = 1, kCuda = 2, kRocm = 10 };

struct Device {
  int32_t type;
  int32_t id;
};
struct DataType {
  uint8_t code;  ///< 0 int, 1 uint, 2 float, 4 bfloat, 5 complex, 6 bool
  uint8_t bits;
  uint16_t lanes;
};
struct Tensor {
  void* data;
  Device device;
  int32_t ndim;
  DataType dtype;
  int64_t* shape;
  int64_t* strides;  ///< in elements
  uint64_t byte_offset;
};
struct ManagedTensor {
  Tensor tensor;
  void* owner;
  void (*deleter)(ManagedTensor*);
};
inline constexpr char kCapsuleName[] = "dltensor";

}  // namespace mori::dlpack
