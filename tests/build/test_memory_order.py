# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Every kernel's releases and acquires, as compiled, against memory_order.json; planted faults are found.

A change of a kernel that changes these counts must change memory_order.json in the same commit, with open
eyes: a release fewer is a flag that overtakes its payload. `tools/isa_check.py --list FILE` shows each one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import isa_check
import pytest
from build_support import HIP_ARCHS, HIP_FLAGS, PLANTED, ROOT, UNITS, unit_name

EXPECTED = json.loads((Path(__file__).parent / "memory_order.json").read_text())

needs_objdump = pytest.mark.skipif(
    not shutil.which("llvm-objdump-22"), reason="no llvm-objdump-22 (apt-get install llvm-22)"
)


def to_ptx(nvcc: str, source: Path, folder: Path) -> Path:
    out = folder / f"{unit_name(source)}.ptx"
    flags = ["-x", "cu", "-std=c++20", "-O3", "-ptx", "-arch=compute_90", f"-I{ROOT}"]
    subprocess.run([nvcc, *flags, "-o", out, source], check=True, capture_output=True, timeout=90)
    return out


def to_hsaco(clang: str, source: Path, folder: Path, arch: str) -> Path:
    out = folder / f"{unit_name(source)}.{arch}.hsaco"
    command = [clang, *HIP_FLAGS, f"--offload-arch={arch}", f"-I{ROOT}", f"-o{out}", source]
    subprocess.run(command, check=True, capture_output=True, timeout=90)
    return out


@needs_objdump
@pytest.mark.parametrize("arch", HIP_ARCHS)
@pytest.mark.parametrize("source", UNITS, ids=unit_name)
def test_amd_code_object(source: Path, arch: str, kernel_dir: Path) -> None:
    path = kernel_dir / f"{unit_name(source)}.{arch}.hsaco"
    if not path.exists():
        pytest.skip("this installation has no AMD code objects")
    assert isa_check.findings(isa_check.check_file(path), EXPECTED) == []


@pytest.fixture(scope="module")
def ptx_of_units(nvcc: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Compiled side by side; largest first, so that none is left alone at the end."""
    folder = tmp_path_factory.mktemp("ptx")
    units = sorted(UNITS, key=lambda source: "dispatch" not in source.name)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        files = pool.map(lambda source: to_ptx(nvcc, source, folder), units)
        return dict(zip(map(unit_name, units), files, strict=True))


@pytest.mark.timeout(400)
@pytest.mark.parametrize("unit", [unit_name(source) for source in UNITS])
def test_nvidia_ptx(unit: str, ptx_of_units: dict[str, Path]) -> None:
    assert isa_check.findings(isa_check.check_file(ptx_of_units[unit]), EXPECTED) == []


GOOD = {
    "fail": EXPECTED["fail"],
    "good_put": {"release": 1},
    "good_flag_only": {"release": 1},
    "good_wait": {"acquire": 3, "relaxed_loads": 2},
}
PLANTED_FAULTS = {
    "bad_relaxed_flag": "relaxed_stores = 1",
    "bad_device_flag": "release = 0",
    "bad_relaxed_wait": "relaxed_loads = 1",
}
AMD_FAULTS = PLANTED_FAULTS | {"bad_generic_pointer": "flat = ", "bad_open_barrier": "open_barriers = 1"}
NVIDIA_FAULTS = PLANTED_FAULTS | {"bad_bare_fence": "bare = 2"}
# what somebody who had not noticed the fault would have written
BELIEVED = {
    "bad_relaxed_flag": {"release": 1},
    "bad_device_flag": {"release": 1},
    "bad_relaxed_wait": {"acquire": 1},
    "bad_open_barrier": {"release": 1},
}


def check_planted(path: Path, faults: dict[str, str]) -> None:
    found = isa_check.check_file(path)
    wrong = isa_check.findings(found, GOOD | BELIEVED)
    for kernel, fault in faults.items():
        assert any(s.startswith(f"{kernel}: ") and fault in s for s in wrong), (kernel, fault, wrong)
    blamed = {sentence.split(":")[0] for sentence in wrong}
    assert blamed == set(faults), "a good kernel was blamed, or a bad one was not"


@needs_objdump
@pytest.mark.parametrize("arch", HIP_ARCHS)
def test_planted_faults_are_found_in_amd_code(hip_clang: str, arch: str, tmp_path: Path) -> None:
    check_planted(to_hsaco(hip_clang, PLANTED / "order.kernel.cpp", tmp_path, arch), AMD_FAULTS)


def test_planted_faults_are_found_in_ptx(nvcc: str, tmp_path: Path) -> None:
    check_planted(to_ptx(nvcc, PLANTED / "order.kernel.cpp", tmp_path), NVIDIA_FAULTS)


def test_an_unlisted_function_with_system_accesses_is_a_finding() -> None:
    found = {"new_kernel": isa_check.Counts(release=1), "pure_arithmetic": isa_check.Counts()}
    assert [s.split(":")[0] for s in isa_check.findings(found, {})] == ["new_kernel"]


@pytest.mark.parametrize(
    ("symbol", "name"),
    [
        ("ep_dispatch", "ep_dispatch"),
        ("_ZN4mori7hip_w644failERKNS_5WorldENS_4WaitE", "fail"),
        ("_Z3runv", "run"),
    ],
)
def test_plain_name(symbol: str, name: str) -> None:
    assert isa_check.plain_name(symbol) == name


def test_command_line(nvcc: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ptx = to_ptx(nvcc, PLANTED / "order.kernel.cpp", tmp_path)
    expect = tmp_path / "expect.json"
    expect.write_text(json.dumps(GOOD))
    assert isa_check.main(["--list", str(ptx)]) == 0
    assert "st.release.sys" in capsys.readouterr().out
    assert isa_check.main(["--expect", str(expect), str(ptx)]) == 1
    assert "WRONG order.ptx bad_relaxed_flag" in capsys.readouterr().out
