# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""mori.shmem.triton: its functions compile for NVIDIA and AMD with the orders they promise, do between processes what
they say (by triton's interpreter, without a GPU), and a wait for a signal that never comes ends."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mori.testing import run_ranks

pytestmark = [
    pytest.mark.timeout(150),
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs triton"),
]
FOLDER = Path(__file__).parent


def interpret(rank: int, size: int, uid: bytes, work: str, timeout: float) -> Any:
    os.environ["TRITON_INTERPRET"] = "1"  # before triton is imported
    sys.path.insert(0, str(FOLDER))
    import triton_cases

    return triton_cases.on_rank(rank, size, uid, "cpu", work, timeout)


@pytest.mark.parametrize("size", [1, 2, 3], ids="{}ranks".format)
def test_between_processes(size: int) -> None:
    run_ranks(interpret, size, "run", 60.0, mode="spawn", timeout=120)


def test_a_wait_ends() -> None:
    assert run_ranks(interpret, 1, "expire", 0.5, mode="spawn", timeout=60) == [(0, "shmem.signal_wait_until", 0, 5, 3)]


COMPILE = """
import sys
import triton.language as tl
import mori.shmem.triton as tshmem
kind, arch, lanes = sys.argv[1], sys.argv[2], int(sys.argv[3])
if kind == "hip":  # what an AMD build of torch selects
    tshmem._CLOCK, tshmem._CLOCK_REGISTERS = (tl.constexpr(text) for text in tshmem.CLOCKS["hip"])
import triton, triton_cases
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
signature = dict.fromkeys(("world", "arrived", "taken"), "*i64") | dict.fromkeys(("inbox", "x", "out"), "*fp32")
for kernel, types, constants in (
    (triton_cases.ring, signature | {"number": "i64", "BLOCK": "constexpr"}, {(7,): 256}),
    (triton_cases.all_to_all, {"world": "*i64", "team": "*i64", "words": "*i64", "wrong": "*i64", "rounds": "i32"}, {}),
):
    order = {name: types[name] for name in kernel.arg_names}
    target = GPUTarget(kind, int(arch) if arch.isdigit() else arch, lanes)
    done = triton.compile(ASTSource(fn=kernel, signature=order, constexprs=constants), target=target)
    print(done.asm["ptx" if kind == "cuda" else "amdgcn"])
"""


def assembly(kind: str, arch: str, lanes: int) -> str:
    done = subprocess.run(
        [sys.executable, "-c", COMPILE, kind, arch, str(lanes)], capture_output=True, text=True, cwd=FOLDER, timeout=140
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_nvidia_code() -> None:
    ptx = assembly("cuda", "90", 32)
    assert re.search(r"(ld|atom)\S*\.sys\.acquire|(ld|atom)\S*\.acquire\.sys", ptx)
    assert re.search(r"atom\S*\.sys\.release\S*\.exch|atom\S*\.release\.sys\S*\.exch", ptx)
    assert "%globaltimer" in ptx


def test_amd_code() -> None:
    assert "s_memrealtime" in assembly("hip", "gfx942", 64)
