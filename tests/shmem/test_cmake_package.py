# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""find_package(mori) and mori_add_kernel(): a small project is configured, built, changed and loaded."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from mori.errors import ConfigError

import mori
from mori import _core

CMAKE = shutil.which("cmake")
pytestmark = [
    pytest.mark.skipif(not CMAKE or not shutil.which("ninja"), reason="no cmake or no ninja on the PATH"),
    pytest.mark.timeout(180),
]
HERE = Path(__file__).parent


class AddArgs(ctypes.Structure):
    _fields_ = (("values", ctypes.c_uint64), ("count", ctypes.c_uint32), ("term", ctypes.c_uint32))


def configure(folder: Path, *options: str, source: Path = HERE / "cmake_project") -> subprocess.CompletedProcess[str]:
    command = [str(CMAKE), "-S", str(source), "-B", str(folder / "build"), "-G", "Ninja"]
    command += [f"-Dmori_DIR={mori.cmake_dir()}", f"-DKERNEL={HERE / 'kernels/add.cpp'}", f"-DHEADERS={folder}"]
    command += ["-DMORI_CUDA_ARCHS=90", "-DMORI_HIP_ARCHS=gfx942", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=100)


def build(folder: Path) -> str:
    command = [str(CMAKE), "--build", str(folder / "build"), "--parallel", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=170)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def add(folder: Path, lanes: int) -> int:
    """What `add` of the built project makes of zero. A path is loaded once, so the objects are copied."""
    device = _core.open_device("cpu", 0, cpu_lanes=lanes)
    kernel = mori.load_kernel(folder, "add", device=device).kernel("add")
    values = np.zeros(1, np.uint32)
    memory = device.allocate(4)
    kernel.launch(AddArgs(memory, 1, 3))
    device.copy(values.ctypes.data, memory, 4)
    device.free(memory)
    return int(values[0])


def test_a_project_builds_and_its_kernels_run(tmp_path: Path) -> None:
    (tmp_path / "addend.hpp").write_text("inline constexpr unsigned kAddend = 1000;\n")
    run = configure(tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr
    build(tmp_path)
    kernels = tmp_path / "build/kernels"
    built = {path.name for path in kernels.iterdir() if path.suffix != ".d"}
    expected = {"add.cpu_w1.so", "add.cpu_w32.so"}
    expected |= set() if "not built for cuda" in run.stdout else {"add.cuda.fatbin"}
    expected |= set() if "not built for hip" in run.stdout else {"add.gfx942.hsaco"}
    assert built == expected
    for round_, addend in enumerate((1000, 2000)):
        copies = Path(shutil.copytree(kernels, tmp_path / f"round{round_}"))
        assert [add(copies, lanes) for lanes in (1, 32)] == [addend + 203] * 2
        if addend == 1000:
            assert "no work to do" in build(tmp_path)
            (tmp_path / "addend.hpp").write_text("inline constexpr unsigned kAddend = 2000;\n")
            build(tmp_path)
    with pytest.raises(ConfigError, match=r"no kernels .*/add\.cpu_w64\.so for .*lanes=64; .* add\.cpu_w1\.so, add"):
        mori.load_kernel(kernels, "add", device=_core.open_device("cpu", 0, cpu_lanes=64))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("mori_add_kernel(a nowhere.cpp)", "there is no .*nowhere.cpp"),
        ('mori_add_kernel(a "${KERNEL}" TARGETS tpu)', "TARGETS tpu: allowed are cpu, cuda and hip"),
        ('mori_add_kernel(a "${KERNEL}" LANES 1)', "unknown arguments LANES"),
        ('set(MORI_NVCC "")\nmori_add_kernel(a "${KERNEL}" TARGETS cuda)', "no compiler for cuda: put nvcc"),
        ("find_package(mori 9.0 CONFIG REQUIRED)", "compatible with requested version .9.0"),
    ],
)
def test_what_a_project_is_refused(tmp_path: Path, call: str, words: str) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "CMakeLists.txt").write_text(
        f"cmake_minimum_required(VERSION 3.21)\nproject(p LANGUAGES CXX)\nfind_package(mori CONFIG REQUIRED)\n{call}\n"
    )
    run = configure(tmp_path, source=project)
    assert run.returncode != 0
    assert re.search(words, re.sub(r"\s+", " ", run.stderr)), run.stderr
