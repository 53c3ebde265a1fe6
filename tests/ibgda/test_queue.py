# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The queue algorithm over a toy NIC that checks every entry: nothing lost, early or twice, whatever the width of
warps, the size of rings, where counters begin and how late the NIC is. Each rule of the algorithm that is taken away
(the field's bugs, docs/ibgda.md) is noticed.

The long form runs a million operations a case: `pytest -m long tests/ibgda/test_queue.py`.
"""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
from fixed_addresses import FIXED_ADDRESSES
from sanitize.sanitized import ROOT, Sanitized, compiler

HERE = Path(__file__).parent
SOFTNIC = sorted((ROOT / "src/transport/ibgda/softnic").glob("*.cpp"))
KERNELS = [HERE / "queue_stress.kernel.cpp"]
RULES = [
    "none",
    "room",
    "room_by_one",
    "join",
    "order",
    "ring_lock",
    "stale_ring",
    "by_peer",
    "quiet",
    "bound",
    "error",
    "narrow",
    "units",
    "plain",
]
ERROR = 36  # Wait::ibgda_error


class Outcome(NamedTuple):
    status: int
    output: str
    races: int


class Program:
    def __init__(self, build: Sanitized) -> None:
        self.path = build.program(HERE / "queue_main.cpp", SOFTNIC)
        self.kernels = functools.cache(lambda lanes: str(build.kernels(lanes, KERNELS)))

    def run(self, *, lanes: int = 1, broken: str = "none", **numbers: int) -> Outcome:
        """The arguments are those of queue_main.cpp."""
        numbers |= {"lanes": lanes, "broken": RULES.index(broken), "together": int(lanes > 1)}
        words = [f"{name}={value}" for name, value in numbers.items()]
        command = [*FIXED_ADDRESSES, str(self.path), self.kernels(lanes), *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
        output = done.stdout + done.stderr
        return Outcome(done.returncode, output, output.count("WARNING: ThreadSanitizer: data race"))


@pytest.fixture(scope="session")
def builds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if compiler() is None:
        pytest.skip("no g++ to build the program with")
    return tmp_path_factory.mktemp("queue")


@pytest.fixture(scope="session")
def program(builds: Path) -> Program:
    return Program(Sanitized("none", builds))


@pytest.fixture(scope="session")
def sanitized(builds: Path) -> Program:
    return Program(Sanitized("thread", builds))


SHAPES = {  # one lane a block and warps; 200 thousand operations or so each
    "1024-lanes": {"lanes": 1, "blocks": 1024, "operations": 100, "queues": 4, "depth": 256, "cq_depth": 256},
    "tiny-ring": {"lanes": 1, "blocks": 64, "operations": 800, "queues": 2, "depth": 7, "cq_depth": 8, "late": 5},
    "collapsed": {"lanes": 1, "blocks": 64, "operations": 800, "queues": 3, "depth": 100, "cq_depth": 1, "slow": 3},
    "w32": {"lanes": 32, "blocks": 4, "warps": 2, "operations": 200, "queues": 4, "depth": 256, "cq_depth": 256},
    "w32-tiny-ring": {
        "lanes": 32,
        "blocks": 4,
        "warps": 1,
        "operations": 100,
        "queues": 3,
        "depth": 11,
        "cq_depth": 16,
    },
    "w64": {
        "lanes": 64,
        "blocks": 4,
        "warps": 2,
        "operations": 100,
        "queues": 3,
        "depth": 100,
        "cq_depth": 1,
        "late": 9,
    },
}
WRAPS = {"0": 0, "16bit": (1 << 16) - 40, "24bit": (1 << 24) - 40, "32bit": (1 << 32) - 40, "far": (1 << 62) + 5}


@pytest.mark.parametrize("first", WRAPS.values(), ids=WRAPS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_nothing_is_lost_early_or_twice(program: Program, shape: dict[str, int], first: int) -> None:
    outcome = program.run(first=first, **shape)
    assert outcome.status == 0, outcome.output
    assert int(outcome.output.split()[1]) > 10_000


FAMILIES = {"mlx5": 1, "bnxt_re": 2, "ionic": 3}
SOFT_WRAPS = WRAPS | {"far": 1 << 60}  # in entries: a position of bnxt_re is three times as far
SOFT_SHAPES = {
    "1024-lanes": {"lanes": 1, "blocks": 1024, "operations": 60, "queues": 4, "depth": 128},
    "small-ring": {"lanes": 1, "blocks": 16, "operations": 3000, "queues": 2, "depth": 8},
    "w32": {"lanes": 32, "blocks": 4, "warps": 2, "operations": 300, "queues": 2, "depth": 64},
    "w64": {"lanes": 64, "blocks": 4, "operations": 200, "queues": 3, "depth": 16},
}


@pytest.mark.parametrize("faults", [0, 10], ids=["", "faults"])
@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
@pytest.mark.parametrize("shape", SOFT_SHAPES.values(), ids=SOFT_SHAPES)
def test_over_the_software_nic(program: Program, shape: dict[str, int], family: int, faults: int) -> None:
    numbers = shape if faults == 0 else {**shape, "operations": shape["operations"] // 5, "faults": faults}
    outcome = program.run(family=family, **numbers)
    assert outcome.status == 0, outcome.output
    assert int(outcome.output.split()[1]) > 8_000


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
@pytest.mark.parametrize("bits", [16, 24, 32])
def test_counters_wrap_within_the_run(program: Program, family: int, bits: int) -> None:
    first = (1 << bits) - 100
    for lanes in (1, 32):
        outcome = program.run(
            family=family, lanes=lanes, blocks=8, depth=64, queues=2, first=first, first_completion=first, faults=5
        )
        assert outcome.status == 0, outcome.output


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_a_failed_entry_ends_every_wait_on_its_queue(program: Program, family: int) -> None:
    outcome = program.run(family=family, blocks=8, fail_at=100, timeout_ms=60_000)
    access = {1: 0x13, 2: 7, 3: 9}[family]
    assert f"error word: wait {ERROR} peer 0 expected {family} seen {(1 << 63) + access}" in outcome.output


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("first", SOFT_WRAPS.values(), ids=SOFT_WRAPS)
@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
@pytest.mark.parametrize("shape", SOFT_SHAPES.values(), ids=SOFT_SHAPES)
def test_a_million_operations_over_the_software_nic(
    program: Program, shape: dict[str, int], family: int, first: int
) -> None:
    lanes = shape["lanes"] * shape["blocks"] * shape.get("warps", 1)
    starts = {"first": first, "first_completion": first}
    outcome = program.run(family=family, faults=2, **starts, **{**shape, "operations": 1_100_000 // lanes})
    assert outcome.status == 0, outcome.output
    assert int(outcome.output.split()[1]) > 1_000_000


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("first", WRAPS.values(), ids=WRAPS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_million_operations(program: Program, shape: dict[str, int], first: int, seed: int) -> None:
    lanes = shape["lanes"] * shape["blocks"] * shape.get("warps", 1)
    outcome = program.run(first=first, seed=seed, **{**shape, "operations": 1_100_000 // lanes})
    assert outcome.status == 0, outcome.output
    assert int(outcome.output.split()[1]) > 1_000_000


FAST = {"timeout_ms": 1000, "operations": 100}
BROKEN: dict[str, dict[str, int]] = {
    "room": {"lanes": 32, "blocks": 16, "slow": 20},
    "room_by_one": {"blocks": 32, "depth": 16, "slow": 20},
    "order": {"lanes": 32, "blocks": 4, "warps": 2, "depth": 256, "cq_depth": 256},
    "ring_lock": {"blocks": 64, "depth": 256, "cq_depth": 256},
    "stale_ring": {"blocks": 64, "depth": 256, "cq_depth": 256},
    "by_peer": {"lanes": 32},
    "quiet": {"lanes": 32, "blocks": 4, "slow": 50, "late": 4},
    "bound": {"blocks": 8, "cq_depth": 1, "slow": 200},
    "narrow": {"blocks": 8, "first": (1 << 32) - 16, "slow": 20},
    "units": {"blocks": 1},
}


@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_rule_is_noticed(program: Program, rule: str) -> None:
    shape = {**FAST, **BROKEN[rule]}
    assert program.run(**{**shape, "timeout_ms": 20_000}).status == 0  # the same shape, nothing broken
    for seed in range(20):  # where it takes two threads at the wrong moment
        if program.run(broken=rule, seed=seed, **shape).status != 0:
            return
    pytest.fail("not noticed")


@pytest.mark.parametrize("lanes", [1, 32])
def test_a_failed_queue_ends_every_wait(program: Program, lanes: int) -> None:
    outcome = program.run(lanes=lanes, blocks=8, fail_at=50, timeout_ms=60_000)
    assert f"error word: wait {ERROR} peer 0 expected 0 seen {(1 << 63) + 0x13}" in outcome.output


def test_waits_that_ignore_errors_reach_their_deadline(program: Program) -> None:
    shape = {"blocks": 1, "queues": 1, "operations": 51, "fail_at": 50, "timeout_ms": 400}
    assert f"wait {ERROR} " in program.run(**shape).output
    assert "wait 34 " in program.run(broken="error", **shape).output


@pytest.mark.slow
@pytest.mark.parametrize(("lanes", "broken"), [(1, "none"), (32, "none"), (32, "plain")])
def test_no_races(sanitized: Program, lanes: int, broken: str) -> None:
    outcome = sanitized.run(lanes=lanes, broken=broken, blocks=6, operations=60, late=3)
    assert (outcome.status, outcome.races) == (0, 0), outcome.output


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_no_races_with_the_software_nic(sanitized: Program, family: int) -> None:
    outcome = sanitized.run(family=family, lanes=32, blocks=4, operations=60, depth=16, faults=10, early=0)
    assert (outcome.status, outcome.races) == (0, 0), outcome.output


@pytest.mark.slow
@pytest.mark.parametrize(("rule", "lanes"), [("join", 32), ("ring_lock", 1)])
def test_a_missing_order_is_a_race(sanitized: Program, rule: str, lanes: int) -> None:
    for seed in range(8):
        outcome = sanitized.run(lanes=lanes, broken=rule, blocks=6, operations=60, seed=seed, timeout_ms=400)
        if outcome.races:
            return
    pytest.fail(f"no race in eight runs: {outcome.output}")
