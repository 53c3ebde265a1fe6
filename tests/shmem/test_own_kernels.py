# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""What docs/shmem_kernels.md shows and examples/shmem_allgather_matmul run, in processes of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from mori._toolchain import Target, Toolchain
from mori.compiler import compile_object
from mori.errors import ConfigError

from mori import _core

pytestmark = pytest.mark.timeout(170)
ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples/shmem_allgather_matmul"
GPUS = {"sm_90": Target("cuda", "sm_90", 32), "gfx942": Target("hip", "gfx942", 64)}


def run(command: list[str], cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def documented(folder: Path) -> None:
    """The files of the guide, each named by its first line."""
    text = (ROOT / "docs/shmem_kernels.md").read_text()
    for body in re.findall(r"^```(?:cpp|python)\n(.*?)^```", text, re.M | re.S):
        (folder / body.split("\n", 1)[0].split()[1]).write_text(body)


@pytest.mark.parametrize("lanes", [1, 64])
def test_the_guides_ring(tmp_path: Path, lanes: int) -> None:
    documented(tmp_path)
    out = run(["ring.py"], tmp_path, MORI_CPU_LANES=str(lanes), MORI_KERNEL_CACHE=str(tmp_path / "cache"))
    shown = re.search(r"print\(run_ranks\(work, 3\)\)  # (.*)", (tmp_path / "ring.py").read_text())
    assert shown is not None and out.strip() == shown[1]


def test_the_guides_command_by_hand(tmp_path: Path) -> None:
    import mori

    documented(tmp_path)
    command = re.search(r"^c\+\+ .*\n.*ring\.cpu_w1\.so$", (ROOT / "docs/shmem_kernels.md").read_text(), re.M)
    assert command is not None
    text = f"H={mori.include_dir()}; {command[0]}"
    subprocess.run(["sh", "-ec", text], cwd=tmp_path, check=True, timeout=100)
    assert mori.load_kernel(tmp_path, "ring", device=_core.open_device("cpu", 0)).kernel("ring").args_bytes == 80


@pytest.mark.parametrize(("lanes", "ranks", "shape"), [(1, 4, ()), (32, 3, ("--rows=5", "--chunks=2", "--depth=17"))])
def test_allgather_matmul(tmp_path: Path, lanes: int, ranks: int, shape: tuple[str, ...]) -> None:
    command = [str(EXAMPLE / "run.py"), f"--ranks={ranks}", *shape]
    out = run(command, tmp_path, MORI_CPU_LANES=str(lanes), MORI_KERNEL_CACHE=str(tmp_path / "cache"))
    assert "verified" in out and len(out.splitlines()) == ranks + 1


@pytest.mark.gpu
@pytest.mark.parametrize("rows", [67, 1024])
def test_allgather_matmul_on_gpus(tmp_path: Path, rows: int) -> None:
    count, why = _core.device_count("cuda")
    if count == 0:
        pytest.skip(f"no cuda device: {why}")
    command = [str(EXAMPLE / "run.py"), f"--ranks={max(2, min(count, 4))}", "--device=cuda", f"--rows={rows}"]
    assert "verified" in run([*command, "--depth=512", "--columns=1000"], tmp_path)


@pytest.mark.parametrize("gpu", GPUS)
def test_it_compiles_for_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpu: str) -> None:
    monkeypatch.setenv("MORI_KERNEL_CACHE", str(tmp_path / "cache"))
    try:
        Toolchain(GPUS[gpu])
    except ConfigError as missing:
        pytest.skip(str(missing))
    documented(tmp_path)
    assert compile_object(tmp_path / "ring.cpp", GPUS[gpu]).kernels == ("ring",)
    assert compile_object(EXAMPLE / "allgather_matmul.cpp", GPUS[gpu]).kernels == ("allgather_matmul",)
