// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Names of GPUs for people, and the NVLink rate that their driver does not tell. Private to this folder. A
// GPU that is not listed works the same: it shows its PCI id, and its NVLink rate is unknown.
#pragma once
#include <array>
#include <cstdint>

namespace mori::core {

struct GpuModel {
  uint32_t vendor;
  uint32_t device;
  const char* name;
  uint32_t nvlinks;            ///< per GPU
  double nvlink_gbytes_per_s;  ///< of one link, one direction
};

inline constexpr uint32_t kNvidia = 0x10de;
inline constexpr uint32_t kAmd = 0x1002;

inline constexpr std::array kGpuModels{
    GpuModel{kNvidia, 0x20b0, "A100-SXM4-40GB", 12, 25},
    GpuModel{kNvidia, 0x20b2, "A100-SXM4-80GB", 12, 25},
    GpuModel{kNvidia, 0x20f1, "A100-PCIE-40GB", 12, 25},
    GpuModel{kNvidia, 0x20b5, "A100-PCIE-80GB", 12, 25},
    GpuModel{kNvidia, 0x2330, "H100-SXM5-80GB", 18, 25},
    GpuModel{kNvidia, 0x2331, "H100-PCIE-80GB", 18, 25},
    GpuModel{kNvidia, 0x2335, "H200-SXM5-141GB", 18, 25},
    GpuModel{kNvidia, 0x233b, "H200-NVL", 18, 25},
    GpuModel{kNvidia, 0x2342, "GH200", 18, 25},
    GpuModel{kNvidia, 0x2901, "B200", 18, 50},
    GpuModel{kAmd, 0x738c, "Instinct MI100", 0, 0},
    GpuModel{kAmd, 0x7408, "Instinct MI250X", 0, 0},
    GpuModel{kAmd, 0x740c, "Instinct MI250X/MI250", 0, 0},
    GpuModel{kAmd, 0x740f, "Instinct MI210", 0, 0},
    GpuModel{kAmd, 0x74a0, "Instinct MI300A", 0, 0},
    GpuModel{kAmd, 0x74a1, "Instinct MI300X", 0, 0},
    GpuModel{kAmd, 0x74a2, "Instinct MI308X", 0, 0},
    GpuModel{kAmd, 0x74a5, "Instinct MI325X", 0, 0},
    GpuModel{kAmd, 0x74b5, "Instinct MI300X VF", 0, 0},
    GpuModel{kAmd, 0x75a0, "Instinct MI350X", 0, 0},
    GpuModel{kAmd, 0x75a3, "Instinct MI355X", 0, 0},
    GpuModel{kAmd, 0x744c, "Radeon RX 7900", 0, 0},
    GpuModel{kAmd, 0x7448, "Radeon Pro W7900", 0, 0},
};

inline const GpuModel* find_model(uint32_t vendor, uint32_t device) {
  for (const GpuModel& model : kGpuModels) {
    if (model.vendor == vendor && model.device == device) return &model;
  }
  return nullptr;
}

}  // namespace mori::core
