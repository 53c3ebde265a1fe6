# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The queue algorithm of src/transport/ibgda as machine code: its releases and acquires are there on AMD and NVIDIA,
and on NVIDIA it needs no stack. On AMD a call of it takes scratch, which is counted, not forbidden."""

from __future__ import annotations

import subprocess
from pathlib import Path

import isa_check
import pytest
from build_support import HIP_ARCHS, HIP_FLAGS, ROOT

SOURCE = ROOT / "tests/ibgda/queue_code.kernel.cpp"
POST = {"release": 17, "acquire": 15, "relaxed_loads": 23, "relaxed_stores": 4}
WAIT = {"release": 8, "acquire": 11, "relaxed_loads": 9, "relaxed_stores": 2}
FAIL = {"release": 2, "acquire": 1, "relaxed_stores": 5}
ORDERED = {"post": POST, "post_lanes": POST, "wait_completed": WAIT, "quiet": WAIT, "fail": FAIL, "queue_code": {}}
# A request may be on the stack, so its loads are flat; the context's fields are too.
FLAT = {"post": 111, "post_lanes": 111, "wait_completed": 5, "quiet": 5}


@pytest.mark.parametrize("arch", HIP_ARCHS)
def test_amd(hip_clang: str, arch: str, tmp_path: Path) -> None:
    out = tmp_path / "queue_code.hsaco"
    command = [hip_clang, *HIP_FLAGS, "-Werror", f"--offload-arch={arch}", f"-I{ROOT}", f"-o{out}", SOURCE]
    subprocess.run(command, check=True, capture_output=True, timeout=90)
    allowed = {
        name: {**counts, "flat": FLAT.get(name, 0), "scratch": 0 if name == "fail" else 5}
        for name, counts in ORDERED.items()
    }
    assert isa_check.findings(isa_check.check_file(out), allowed) == []


def test_nvidia(nvcc: str, tmp_path: Path) -> None:
    out = tmp_path / "queue_code.ptx"
    flags = ["-x", "cu", "-std=c++20", "-O3", f"-I{ROOT}", "-Werror", "all-warnings"]
    subprocess.run(
        [nvcc, *flags, "-ptx", "-arch=compute_90", "-o", out, SOURCE], check=True, capture_output=True, timeout=90
    )
    assert isa_check.findings(isa_check.check_file(out), ORDERED) == []
    report = subprocess.run(
        [nvcc, *flags, "-cubin", "-arch=sm_90", "-Xptxas", "-v", "-o", tmp_path / "x", SOURCE],
        check=True,
        capture_output=True,
        text=True,
        timeout=90,
    ).stderr
    frames = [line.strip() for line in report.splitlines() if "stack frame" in line]
    assert frames
    assert set(frames) == {"0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads"}
