# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The software NIC over verbs, on a pretended libibverbs (tests/io/fake_verbs.cpp): requests as a model does them,
refusals, each way in which a network fails; and kernels of two ranks. It has met no NIC. docs/host_proxy.md.

`pytest -m "long or not long" tests/ibgda/test_verbs_mover.py` is all of it; without, kernels only: the sanitized
program is long to compile."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from sanitize.sanitized import Sanitized, compiler

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
SOURCES = [
    *sorted((ROOT / "src/transport/ibgda/softnic").glob("*.cpp")),
    *sorted((ROOT / "src/transport/ibgda/rdma").glob("*.cpp")),
    *sorted((ROOT / "src/transport/verbs").glob("*.cpp")),
    *(ROOT / f"src/core/runtime/{name}.cpp" for name in ("gpu_driver", "cuda_driver", "hip_driver")),
]


def run(command: list[str | Path]) -> None:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stdout[-3000:] + done.stderr[-3000:]


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Under the name by which the real one is looked for."""
    if compiler() is None:
        pytest.skip("no g++ to build the library with")
    target = tmp_path_factory.mktemp("verbs") / "libibverbs.so.1"
    flags = ["-std=c++20", "-O1", "-fPIC", "-shared", "-I", str(ROOT), f"-Wl,-soname,{target.name}", "-pthread"]
    source = str(ROOT / "tests/io/fake_verbs.cpp")
    subprocess.run([compiler() or "g++", *flags, source, "-o", str(target)], check=True, timeout=200)
    return target


@pytest.fixture(scope="session", params=["address", "thread"])
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if compiler() is None:
        pytest.skip("no g++ to build the program with")
    folder = tmp_path_factory.getbasetemp() / "softnic"  # objects that test_softnic.py makes too
    return Sanitized(request.param, folder).program(HERE / "verbs_main.cpp", SOURCES, device=False)


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("what", ["mixed", "refused", "network"])
def test_over_verbs(program: Path, library: Path, what: str) -> None:
    run([program, library, what])


def test_kernels_over_verbs(library: Path) -> None:
    run([sys.executable, HERE / "verbs_ranks.py", library])
