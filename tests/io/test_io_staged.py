# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Every pair of memories has a route: GPU memory by tcp and shm, by way of pinned host memory (staged_program.py), on
pretended GPUs and, marked gpu, on real ones."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mori import _core

pytestmark = pytest.mark.timeout(120)
HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="session")
def pretended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("gcc") or shutil.which("cc") or shutil.which("g++")
    if compiler is None:
        pytest.skip("no C compiler to build the pretended libamdhip64 with")
    folder = tmp_path_factory.mktemp("pretended-gpus")
    flags = ["-x", "c", "-std=gnu11", "-O1", "-fPIC", "-shared"]
    source = HERE.parent / "memory/fake_hip.c"
    subprocess.run([compiler, *flags, "-o", folder / "libamdhip64.so.7", source], check=True, timeout=50)
    return folder


def run(kind: str, *arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, HERE / "staged_program.py", kind, *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert f"{arguments[0]} passed" in done.stdout
    return done.stdout


MEMORIES = [
    pytest.param("tcp", "0", "-1", id="tcp-gpu-host"),
    pytest.param("tcp", "-1", "0", id="tcp-host-gpu"),
    pytest.param("tcp", "0", "1", id="tcp-gpu-gpu"),
    pytest.param("shm", "0", "-1", id="shm-gpu-host"),
]


@pytest.mark.parametrize(("backend", "here", "there"), MEMORIES)
def test_every_byte(pretended: Path, backend: str, here: str, there: str) -> None:
    run("hip", "memories", backend, here, there, LD_LIBRARY_PATH=str(pretended))


def test_host_memory_of_another_process(pretended: Path) -> None:
    assert "carried by shm" in run("hip", "two_processes", LD_LIBRARY_PATH=str(pretended))


def test_the_direct_way_goes_first(pretended: Path) -> None:
    run("hip", "direct_first", LD_LIBRARY_PATH=str(pretended))


@pytest.mark.parametrize("backend", ["tcp"])
def test_nothing_lands_after_the_end(pretended: Path, backend: str) -> None:
    run("hip", "cancelled", backend, LD_LIBRARY_PATH=str(pretended), FAKE_HIP_DELAY_US="3000")


@pytest.mark.parametrize("backend", ["tcp"])
def test_a_gpu_that_refuses_a_copy(pretended: Path, backend: str) -> None:
    run("hip", "broken", backend, LD_LIBRARY_PATH=str(pretended), FAKE_HIP_FAIL_COPY="1000")


REAL = [
    ("memories", "tcp", "0", "-1"),
    ("memories", "tcp", "-1", "0"),
    ("memories", "tcp", "0", "1"),
    ("memories", "shm", "0", "-1"),
    ("two_processes",),
    ("direct_first",),
    ("cancelled", "tcp"),
]


@pytest.mark.gpu
@pytest.mark.parametrize("scenario", REAL, ids=["-".join(row) for row in REAL])
def test_on_real_gpus(scenario: tuple[str, ...]) -> None:
    count, why = _core.device_count("cuda")
    if count == 0:
        pytest.skip(why)
    run("cuda", *scenario)
