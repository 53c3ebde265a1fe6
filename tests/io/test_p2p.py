# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The p2p backend (p2p_main.cpp) on pretended GPUs, whose memory other processes open by IPC handle and whose copies
happen late, under ThreadSanitizer and AddressSanitizer; and, marked gpu, on real ones."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import p2p_program
import pytest
from fixed_addresses import FIXED_ADDRESSES

from mori import _core

pytestmark = [pytest.mark.timeout(300), pytest.mark.slow]
ROOT = p2p_program.ROOT


@pytest.fixture(scope="session")
def fake_gpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a libamdhip64, and with what it takes for code objects."""
    compiler = shutil.which("gcc") or shutil.which("cc") or shutil.which("g++")
    if compiler is None:
        pytest.skip("no C compiler to build the pretended libamdhip64 with")
    folder = tmp_path_factory.mktemp("fake-gpus")
    (folder / "io_copy.gfx942.hsaco").write_bytes(b"FAKE code object")
    flags = ["-x", "c", "-std=gnu11", "-O1", "-fPIC", "-shared"]
    source = ROOT / "tests/memory/fake_hip.c"
    subprocess.run([compiler, *flags, "-o", folder / "libamdhip64.so.7", source], check=True, timeout=50)
    return folder


def built(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        pytest.skip("no C++ compiler")
    return p2p_program.compile_program(tmp_path_factory.mktemp(f"p2p-{kind}"), f"-fsanitize={kind}")


@pytest.fixture(scope="session")
def races(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built("thread", tmp_path_factory)


@pytest.fixture(scope="session")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built("address,undefined", tmp_path_factory)


def run(program: Path, kind: str, kernels: Path, scenario: str, **environment: str) -> None:
    done = subprocess.run(
        [*FIXED_ADDRESSES, program, kind, kernels, scenario],
        env=os.environ | {"TSAN_OPTIONS": "halt_on_error=1"} | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert f"{scenario} passed" in done.stdout


SLOW_COPIES = {"FAKE_HIP_DELAY_US": "2000"}


@pytest.mark.long
@pytest.mark.parametrize("scenario", ["cancel", "revoked", "crowd"])
def test_without_races(races: Path, fake_gpus: Path, scenario: str) -> None:
    late = {} if scenario == "crowd" else SLOW_COPIES
    run(races, "hip", fake_gpus, scenario, LD_LIBRARY_PATH=str(fake_gpus), **late)


@pytest.mark.parametrize("scenario", ["one_process", "two_processes", "marks", "shares"])
def test_every_byte(addresses: Path, fake_gpus: Path, scenario: str) -> None:
    run(addresses, "hip", fake_gpus, scenario, LD_LIBRARY_PATH=str(fake_gpus))


def test_every_byte_without_a_kernel_for_this_gpu(addresses: Path, fake_gpus: Path, tmp_path: Path) -> None:
    run(addresses, "hip", tmp_path, "one_process", LD_LIBRARY_PATH=str(fake_gpus))


def test_a_gpu_that_refuses_a_copy(addresses: Path, fake_gpus: Path) -> None:
    run(addresses, "hip", fake_gpus, "broken", LD_LIBRARY_PATH=str(fake_gpus), FAKE_HIP_FAIL_COPY="1234567")


@pytest.mark.gpu
@pytest.mark.parametrize("scenario", ["one_process", "two_processes", "cancel", "revoked", "crowd"])
def test_on_real_gpus(tmp_path_factory: pytest.TempPathFactory, scenario: str) -> None:
    count, why = _core.device_count("cuda")
    if count == 0:
        pytest.skip(why)
    folder = tmp_path_factory.getbasetemp() / "p2p-gpu"
    if not folder.exists():
        folder.mkdir()
        p2p_program.compile_program(folder)
    kernels = Path(_core.__file__).with_name("kernels")
    run(folder / "p2p_main", "cuda", kernels, scenario)
