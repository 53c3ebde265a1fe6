# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Paths and compiler flags that the tests of the build share."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
PLANTED = Path(__file__).parent / "planted"
UNITS = sorted((ROOT / "src").rglob("*.kernel.cpp"))
HIP_ARCHS = ("gfx942", "gfx950")
HIP_FLAGS = (
    *("-x", "hip", "-std=c++20", "-O3", "-ffp-contract=off", "--cuda-device-only", "--no-gpu-bundle-output"),
    *("-nogpuinc", "-nogpulib", "-mcode-object-version=5", "-Rpass-analysis=kernel-resource-usage", "-c"),
)


def unit_name(source: Path) -> str:
    """`ep_dispatch` of `src/ops/ep/ep_dispatch.kernel.cpp`."""
    return source.name.removesuffix(".kernel.cpp")
