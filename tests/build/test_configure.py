# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The build without a toolchain, with a broken one, with wrong options; and what a change rebuilds."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from build_support import ROOT

CMAKE = shutil.which("cmake")
NINJA = shutil.which("ninja")
pytestmark = [
    pytest.mark.skipif(not CMAKE or not NINJA, reason="no cmake or no ninja on the PATH"),
    pytest.mark.timeout(180),
]

KERNEL = """#include "src/core/device/prelude.hpp"
namespace mori {{
struct {name}Args {{ uint64_t out; }};
MORI_KERNEL({name}, {name}Args, 64) {{ global<uint64_t>(args.out)[block_lane()] = 1; }}
}}
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The repository with two small kernels instead of the real ones."""
    source = tmp_path / "source"
    for folder in ("cmake", "mori", "tools", "src", "python/bindings", "python/mori/cmake"):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("*.kernel.cpp"))
    shutil.copy(ROOT / "CMakeLists.txt", source)
    shutil.copy(ROOT / "cmake/probe.kernel.cpp", source / "cmake")
    for name in ("first", "second"):
        (source / f"src/ops/{name}.kernel.cpp").write_text(KERNEL.format(name=name))
    return source


def configure(tree: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [str(CMAKE), "-S", str(tree), "-B", str(tree / "out"), "-G", "Ninja"]
    command += [f"-DPython_EXECUTABLE={sys.executable}", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("target", ["CUDA", "HIP"])
def test_missing_compiler_is_one_line_with_a_remedy(tree: Path, target: str) -> None:
    other = "HIP" if target == "CUDA" else "CUDA"
    compiler = {"CUDA": "MORI_NVCC", "HIP": "MORI_HIP_CLANG"}[target]
    run = configure(tree, f"-D{compiler}={shutil.which('false')}", f"-DMORI_{other}=OFF")
    assert run.returncode == 0, run.stderr
    lines = [line for line in run.stdout.splitlines() if f"{target} not built" in line]
    assert len(lines) == 1
    assert "install again" in lines[0]


@pytest.mark.parametrize("target", ["CUDA", "HIP"])
def test_missing_compiler_is_an_error_where_it_was_asked_for(tree: Path, target: str) -> None:
    compiler = {"CUDA": "MORI_NVCC", "HIP": "MORI_HIP_CLANG"}[target]
    other = "HIP" if target == "CUDA" else "CUDA"
    options = (f"-DMORI_{target}=ON", f"-D{compiler}={shutil.which('false')}", f"-DMORI_{other}=OFF")
    run = configure(tree, *options)
    assert run.returncode != 0
    assert f"MORI_{target}=ON" in run.stderr


@pytest.mark.parametrize("target", ["CUDA", "HIP"])
def test_wrong_option_names_what_is_allowed(tree: Path, target: str) -> None:
    run = configure(tree, f"-DMORI_{target}=yes")
    assert run.returncode != 0
    assert "allowed are AUTO, ON and OFF" in " ".join(run.stderr.split())


def test_manifest_of_a_build_without_gpus(tree: Path) -> None:
    assert configure(tree, "-DMORI_CUDA=OFF", "-DMORI_HIP=OFF").returncode == 0
    build(tree, "code_objects")
    text = (tree / "out/kernels/manifest.json").read_text()
    assert '"missing": "MORI_CUDA=OFF"' in text
    assert '"kernels": []' in text


def build(tree: Path, *targets: str) -> str:
    """Builds, and returns ninja's lines on what it did."""
    command = [str(NINJA), "-C", str(tree / "out"), "-j2", *targets]
    run = subprocess.run(command, capture_output=True, text=True, timeout=150)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def test_only_what_depends_on_a_change_is_rebuilt(tree: Path) -> None:
    targets = ("code_objects", "cpu_w1")
    assert configure(tree, "-DMORI_HIP_ARCHS=gfx942", "-DMORI_CUDA_ARCHS=90").returncode == 0
    build(tree, *targets)
    assert "no work to do" in build(tree, *targets)

    (tree / "src/ops/first.kernel.cpp").touch()
    rebuilt = build(tree, *targets)
    assert "first" in rebuilt
    assert "second" not in rebuilt

    (tree / "src/core/device/target_hip.hpp").touch()  # the other targets do not include it
    rebuilt = build(tree, *targets)
    if list((tree / "out/kernels").glob("*.hsaco")):
        assert "HIP second gfx942" in rebuilt
    assert "CUDA second" not in rebuilt
    assert "cpu_w1.dir/src/ops/second" not in rebuilt

    (tree / "src/core/device/prelude.hpp").touch()
    assert "cpu_w1.dir/src/ops/second" in build(tree, *targets)

    (tree / "src/ops/third.kernel.cpp").write_text(KERNEL.format(name="third"))  # found without configuring again
    assert "third" in build(tree, *targets)
