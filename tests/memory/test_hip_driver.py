# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The HIP side of the driver table without an AMD GPU: against a library of pretended GPUs (fake_hip.c) that
checks what it is given, and without any library. Says nothing about ROCm's own behaviour."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(60)
HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def fake_hip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("gcc") or shutil.which("cc") or shutil.which("g++")
    if compiler is None:
        pytest.skip("no C compiler to build the pretended libamdhip64 with")
    folder = tmp_path_factory.mktemp("hip")
    (folder / "unit.gfx942.hsaco").write_bytes(b"FAKE code object")
    (folder / "broken.gfx942.hsaco").write_bytes(b"BAD")
    target = folder / "libamdhip64.so.7"
    command = [
        compiler,
        "-x",
        "c",
        "-std=gnu11",
        "-O1",
        "-fPIC",
        "-shared",
        "-o",
        target,
        HERE / "fake_hip.c",
    ]
    subprocess.run(command, check=True, timeout=50)
    return folder


def run(scenario: str, folder: Path, **environment: str) -> None:
    done = subprocess.run(
        [sys.executable, HERE / "hip_scenarios.py", scenario, folder],
        env=os.environ | {"LD_LIBRARY_PATH": str(folder)} | environment,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr
    assert "passed" in done.stdout


@pytest.mark.parametrize("scenario", ["properties", "launch", "memory", "heap_mapped", "clean"])
def test_on_a_release_with_coherent_mapping(fake_hip: Path, scenario: str) -> None:
    run(scenario, fake_hip)


@pytest.mark.parametrize("version", ["60400000", "70200000"], ids=["6.4", "7.2"])
@pytest.mark.parametrize("scenario", ["heap_ipc", "ipc_is_opened_once", "memory"])
def test_on_releases_whose_mapping_is_not_trusted(fake_hip: Path, scenario: str, version: str) -> None:
    run(scenario, fake_hip, FAKE_HIP_VERSION=version)


def test_takes_fine_grained_memory_where_uncached_is_refused(fake_hip: Path) -> None:
    run("fine_grained", fake_hip, FAKE_HIP_VERSION="60400000", FAKE_HIP_NO_UNCACHED="1")


ASK = "from mori import _core; print(_core.device_count('hip')); _core.open_device('hip')"


def ask(**environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", ASK], env=os.environ | environment, capture_output=True, text=True, timeout=50
    )
    assert done.returncode == 1
    assert "mori.errors.ConfigError" in done.stderr
    assert done.stdout.startswith("(0, ")
    return done.stdout + done.stderr


def test_a_missing_library_is_said(tmp_path: Path) -> None:
    if os.path.exists("/opt/rocm/lib/libamdhip64.so"):
        pytest.skip("this machine has ROCm")
    assert ask().count("no ROCm: libamdhip64.so: cannot open") == 2


def test_no_device_is_said(fake_hip: Path) -> None:
    assert ask(LD_LIBRARY_PATH=str(fake_hip), FAKE_HIP_NONE="1").count("no AMD GPU is visible") == 2


def test_an_old_library_is_said(tmp_path: Path) -> None:
    compiler = shutil.which("gcc") or pytest.skip("no C compiler")
    source = tmp_path / "old.c"
    source.write_text("int hipGetDeviceCount(int* n) { return *n = 1, 0; }")
    command = [compiler, "-fPIC", "-shared", "-o", tmp_path / "libamdhip64.so.7", source]
    subprocess.run(command, check=True, timeout=50)
    assert "libamdhip64 is too old: it lacks hip" in ask(LD_LIBRARY_PATH=str(tmp_path))
