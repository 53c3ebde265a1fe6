# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The code objects of all targets and archs have the same kernels, with argument blocks of the same size."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import mori._core
import pytest
from build_support import HIP_ARCHS, UNITS, unit_name

import mori


def cpu_kernels(warp: int) -> dict[str, int]:
    """Bytes of arguments of each kernel of a CPU code object, which its refusals name."""
    device = mori._core.open_device("cpu", cpu_lanes=warp)
    assert device.properties.warp_size == warp
    with pytest.raises(mori.ConfigError) as caught:
        device.function("none", "none", 0)
    kernels = {}
    for name in str(caught.value).split("it has: ")[1].split(", "):
        with pytest.raises(mori.ConfigError, match=r"argument block of (\d+) bytes") as caught:
            device.function("none", name, 0)
        kernels[name] = int(re.search(r"block of (\d+) bytes", str(caught.value))[1])  # type: ignore[index]
    return kernels


@pytest.fixture(scope="session")
def reference() -> dict[str, int]:
    return cpu_kernels(1)


@pytest.mark.parametrize("warp", [32, 64])
def test_cpu_objects_agree(warp: int, reference: dict[str, int]) -> None:
    assert cpu_kernels(warp) == reference


def test_kernels_of_all_units_are_there(reference: dict[str, int]) -> None:
    declared = {name for unit in UNITS for name in re.findall(r"^MORI_KERNEL\((\w+),", unit.read_text(), re.M)}
    assert declared
    assert set(reference) == declared


def fatbin_entries(data: bytes) -> set[str]:
    """`sm_90` for machine code and `compute_90` for PTX of each entry of a fat binary."""
    found = set()
    at = 0
    while at + 16 <= len(data):
        magic, _, header_bytes, body_bytes = struct.unpack_from("<IHHQ", data, at)
        assert magic == 0xBA55ED50, f"no fat binary header at {at}"
        entry, end = at + header_bytes, at + header_bytes + body_bytes
        while entry < end:
            kind, _, entry_header_bytes, size = struct.unpack_from("<HHIQ", data, entry)
            arch = struct.unpack_from("<I", data, entry + 28)[0]
            found.add(f"{ {1: 'compute', 2: 'sm'}[kind] }_{arch}")
            entry += entry_header_bytes + size
        at = end
    return found


@pytest.mark.parametrize("unit", [unit_name(u) for u in UNITS])
def test_fatbin_has_every_arch(unit: str, kernel_dir: Path, manifest: dict[str, Any]) -> None:
    archs = manifest["targets"]["cuda"].get("archs")
    if not archs:
        pytest.skip("this installation has no CUDA code objects")
    assert {"sm_90"} < set(archs)
    assert fatbin_entries((kernel_dir / f"{unit}.fatbin").read_bytes()) == set(archs)


@pytest.mark.parametrize("arch", HIP_ARCHS)
@pytest.mark.parametrize("unit", [unit_name(u) for u in UNITS])
def test_amd_arguments(unit: str, arch: str, kernel_dir: Path, reference: dict[str, int]) -> None:
    # HIP's driver cannot tell a kernel's argument size, so the host trusts that it was checked here
    path = kernel_dir / f"{unit}.{arch}.hsaco"
    if not path.exists():
        pytest.skip("this installation has no AMD code objects")
    readelf = shutil.which("llvm-readelf-22")
    if not readelf:
        pytest.skip("no llvm-readelf-22 (apt-get install llvm-22)")
    notes = subprocess.run([readelf, "--notes", path], check=True, capture_output=True, text=True, timeout=30).stdout
    assert f"amdgcn-amd-amdhsa--{arch}" in notes
    kernels = re.split(r"\n  - \.agpr_count", notes.split("amdhsa.kernels:")[1])[1:]
    assert kernels
    for kernel in kernels:
        name = re.search(r"\.name: +(\w+)\n", kernel)
        arguments = re.findall(r"\.size: +(\d+)\n +\.value_kind: +by_value", kernel)
        assert name
        assert [int(size) for size in arguments] == [reference[name[1]]], name[1]
