# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Bugs that queues of NICs have had, put into the families' own encoders, doorbells and completions one at a time: the
software NIC, compiled from the files as they are, must name each. The first three run always, the others with
`pytest -m "long or not long" tests/ibgda/test_wqe_mutants.py`."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
from sanitize.sanitized import ROOT, compiler, mutated

MAIN = Path(__file__).with_name("softnic_main.cpp")
SOFTNIC = sorted((ROOT / "src/transport/ibgda/softnic").glob("*.cpp"))
OTHER_NAMES = "-DMORI_CPU_WARP=64"  # else the linker would take one family's functions for both sides


class Mutant(NamedTuple):
    family: str
    before: str
    after: str
    sentence: str


MUTANTS = {
    "packets-are-not-counted": Mutant(
        "bnxt_re",
        "q.packets + packets(r.op, r.length, q.mtu);",
        "q.packets + 1;",
        "the line of the MSN table is not that of this request",
    ),
    "old-bytes-stay": Mutant("mlx5", "while (next < all) put(0, 0);", "", "bytes behind the last segment are set"),
    "completions-of-another-queue": Mutant(
        "ionic", "uint64_t(q.cqn) << 24", "uint64_t(q.qpn) << 24", "the completion register names another queue"
    ),
    "flags-for-the-queue": Mutant(
        "bnxt_re", "uint64_t(q.cqn) << 32", "uint64_t(kSignal) << 32", "the completion register names another queue"
    ),
    "record-behind-register": Mutant(
        "mlx5",
        "be32(uint32_t(end) & 0xffffu)",
        "be32(uint32_t(end - 1) & 0xffffu)",
        "the register is ahead of the record",
    ),
    "register-of-another-entry": Mutant(
        "mlx5",
        "(end - 1) % q.depth * kUnit",
        "(end - 1) / 2 % q.depth * kUnit",
        "the register ",
    ),
    "flags-in-the-entry": Mutant("mlx5", "be32(q.qpn << 8 | used)", "be32(bits << 8 | used)", "names another queue"),
    "completions-not-given-back": Mutant(
        "mlx5", "if (q.cq_doorbell != 0)", "if (q.cq_doorbell == 0)", "the completion ring is full"
    ),
    "color-of-the-first-lap": Mutant(
        "ionic", "(position / q.depth & 1) == 0;", "position != ~uint64_t(0);", "the color is that of another lap"
    ),
    "no-epoch": Mutant(
        "bnxt_re", "((end / q.depth & 1) != 0 ? kEpoch : 0)", "0", "a doorbell names more than the ring"
    ),
    "index-beyond-the-ring": Mutant("ionic", "<< 24 | end % q.depth", "<< 24 | end % (2 * q.depth)", "beyond the ring"),
    "epoch-of-completions": Mutant(
        "bnxt_re",
        "((q.consumed & q.cq_depth) != 0 ? kEpoch : 0)",
        "0",
        "completions are given back that were not written",
    ),
}
QUICK = 3


@pytest.fixture(scope="session")
def nic(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The NIC's object files."""
    if compiler() is None:
        pytest.skip("no g++ to build the program with")
    folder = tmp_path_factory.mktemp("nic")
    command = [compiler(), "-std=c++20", "-O0", "-I", str(ROOT), "-c", *map(str, SOFTNIC)]
    subprocess.run(command, cwd=folder, check=True, timeout=120)
    return [str(file) for file in sorted(folder.glob("*.o"))]


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.long] if i >= QUICK else []) for i, n in enumerate(MUTANTS)]
)
def test_a_bug_that_is_put_in_is_named(nic: list[str], name: str, tmp_path: Path) -> None:
    mutant = MUTANTS[name]
    file = f"src/transport/ibgda/providers/{mutant.family}/{mutant.family}.hpp"
    tree = mutated(tmp_path, file, mutant.before, mutant.after)
    program = tmp_path / "program"
    flags = ["-std=c++20", "-O0", OTHER_NAMES, "-I", str(tree), "-I", str(ROOT)]
    subprocess.run(
        [compiler() or "g++", *flags, str(MAIN), *nic, "-o", str(program), "-pthread"], check=True, timeout=120
    )
    command = [str(program), "faults", mutant.family, "300"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 1 and mutant.sentence in done.stdout, done.stdout[-2000:]
