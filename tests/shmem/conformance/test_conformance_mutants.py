# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The suite can fail: each mistake planted in a copy of the headers is found by one of its tests."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
# name: header, what it says, what it says then, which test notices
MUTANTS = {
    "put-leaves-out-the-last-byte": (
        "shmem_rma.hpp",
        "[&](char* theirs) { write_peer(group, theirs, source, bytes); }",
        "[&](char* theirs) { write_peer(group, theirs, source, bytes - 1); }",
        "rma and every_operation and w1 and thread",
    ),
    "iput-ignores-its-stride": (
        "shmem_rma.hpp",
        "theirs[ptrdiff_t(i) * dst] = source",
        "theirs[ptrdiff_t(i)] = source",
        "rma and every_operation and w1 and thread",
    ),
    "blocking-put-returns-early": (
        "shmem_rma.hpp",
        "put_bytes<true>(group, ctx, dest, source, bytes, pe);\n  group.sync();",
        "put_bytes<true>(group, ctx, dest, source, bytes, pe);",
        "rma and every_operation and w32 and warp",
    ),
    "signal-add-sets": (
        "shmem_signal.hpp",
        "[&](uint64_t* theirs) {\n        if (op == SignalOp::set) {",
        "[&](uint64_t* theirs) {\n        if (op == op) {",
        "rma and every_operation and w1 and thread",
    ),
    "xor-ors": (
        "shmem_atomic.hpp",
        "return modify<Modify::bit_xor>",
        "return modify<Modify::bit_or>",
        "amo and every_operation and w1",
    ),
    "no-refusal": ("transport.hpp", "refuse_unreachable(ctx.world, pe);", "", "amo and path and w1"),
    "ge-is-gt": (
        "shmem_wait.hpp",
        "return left >= right;",
        "return left > right;",
        "wait and what_is_there and w1 and thread",
    ),
    "step-waits-for-the-first-member-only": (
        "shmem_team.hpp",
        "i < team.size && came",
        "i < 1 && came",
        "missing_member and w1 and thread",
    ),
    "reduction-in-another-order": (
        "shmem_collective.hpp",
        "for (uint32_t member = 1; member < team.size; ++member)",
        "for (uint32_t member = team.size - 1; member != 0; --member)",
        "every_collective and w1 and thread",
    ),
}


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_planted_mistake_is_found(tmp_path: Path, mutant: str) -> None:
    header, before, after, tests = MUTANTS[mutant]
    shutil.copytree(ROOT / "src", tmp_path / "src")
    file = tmp_path / "src/shmem" / header
    text = file.read_text()
    assert text.count(before) == 1, f"{header} has {text.count(before)} places that read {before!r}"
    file.write_text(text.replace(before, after))
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-k", tests]
    command += ["--headers", str(tmp_path), str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False, cwd=ROOT)
    assert done.returncode == 1 and " failed" in done.stdout, done.stdout + done.stderr
    assert "does not compile" not in done.stdout, done.stdout
