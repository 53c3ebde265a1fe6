# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Waits and tests: every comparison, signed and unsigned, one word and arrays with status masks, words that are
there and words that come from another rank meanwhile; and what a wait that fails leaves behind."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from shmem_cases import ANY_PE, DTYPES, SCOPES, Suite
from shmem_ranks import WAIT_SIGNAL

MAKE = Callable[..., Suite]
WAIT_VALUE = 4  # mori::Wait
KEPT, NONE = 77, (1 << 64) - 1
OPS = [
    "wait", "test", "wait_all", "wait_any", "wait_some", "test_all", "test_any", "test_some", "wait_all_vector",
    "wait_any_vector", "wait_some_vector", "test_all_vector", "test_any_vector", "test_some_vector", "signal_wait",
    "signal_fetch",
]  # fmt: skip
CMP = ["eq", "ne", "gt", "ge", "lt", "le"]
COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
}
# for each comparison with v: a word that fails, one that holds, both next to v
FAILS = {"eq": 1, "ne": 0, "gt": 0, "ge": -1, "lt": 0, "le": 1}
HOLDS = {"eq": 0, "ne": -1, "gt": 1, "ge": 0, "lt": -1, "le": 0}


class Case:
    """One call: `words` before it, `later` those that another rank writes while it waits."""

    def __init__(
        self,
        op: str,
        name: str,
        cmp: str,
        words: Any,
        value: Any,
        *,
        status: Any = None,
        later: dict[int, int] | None = None,
    ) -> None:
        self.op, self.name, self.cmp = op, name, cmp
        dtype = np.dtype(DTYPES[name])
        self.words = np.array(words, dtype)
        self.values = np.broadcast_to(np.array(value, dtype), self.words.shape).copy()
        self.status = None if status is None else np.array(status, np.int32)
        self.later = later or {}
        self.answer = self.number = self.agreed = self.lanes = 0
        self.indices: list[int] = []

    def __str__(self) -> str:
        status = None if self.status is None else self.status.tolist()
        shown = f"{self.words.tolist()} {self.cmp} {self.values.tolist()}, status {status}, later {self.later}"
        return f"{self.op}<{self.name}> {shown}: answer {self.answer} number {self.number} indices {self.indices}"

    def holding(self) -> list[int]:
        """Included elements whose comparison holds in the end."""
        words = self.words.copy()
        for index, word in self.later.items():
            words[index] = word
        holds = COMPARE[self.cmp](words, self.values)
        return [i for i in self.included() if holds[i]]

    def included(self) -> list[int]:
        return [i for i in range(len(self.words)) if self.status is None or self.status[i] == 0]


def run_cases(
    suite: Suite,
    scope: str,
    lists: Sequence[Sequence[Case]],
    *,
    writer: Callable[[int], int] | None = None,
    only: Any = None,
) -> None:
    """Runs each rank's cases; the later words of rank r's are written by writer(r)."""
    ranks = suite.ranks
    writes: list[list[list[int]]] = [[] for _ in range(ranks.size)]
    rows: list[list[list[int]]] = [[] for _ in range(ranks.size)]
    memory: list[list[tuple[int, int]]] = [[] for _ in range(ranks.size)]
    for rank, cases in enumerate(lists):
        for number, case in enumerate(cases):
            words = suite.take(max(case.words.nbytes, 8), 8)
            suite.start_with(rank, words, case.words)
            values = suite.to_device(rank, case.values)
            status = 0 if case.status is None else suite.to_device(rank, case.status)
            indices = suite.to_device(rank, np.full(len(case.words) + 1, KEPT, np.uint64))
            out = suite.to_device(rank, np.zeros(4, np.uint64))
            value = int(case.values.astype(np.int64)[0]) if case.values.size else 0
            rows[rank].append(
                [
                    OPS.index(case.op), suite.types.index(case.name), CMP.index(case.cmp), suite.address(rank, words),
                    len(case.words), status, values, value, writer(rank) if writer else ANY_PE, indices, out,
                ]
            )  # fmt: skip
            memory[rank].append((indices, out))
            for index, word in case.later.items():
                assert writer is not None
                width = case.words.itemsize
                by = writer(rank)
                address = suite.address(by, words) + index * width
                writes[by].append([address, word, rank, width, (number + index) % 3])
    suite.upload()
    chosen = range(ranks.size) if only is None else only
    for rank in chosen:
        arguments = ranks.world(rank) + struct.pack(
            "<QQQQII", suite.table(rank, writes[rank]), len(writes[rank]),
            suite.table(rank, rows[rank]), len(rows[rank]), list(SCOPES).index(scope), 0,
        )  # fmt: skip
        blocks, warps = SCOPES[scope]
        suite.launch(rank, "conformance_wait", arguments, blocks=blocks, warps=warps)
    ranks.synchronize(list(chosen))
    for rank in chosen:
        for case, (indices, out) in zip(lists[rank], memory[rank], strict=True):
            answer, number, agreed, lanes = ranks.read(rank, out, 4, np.uint64).tolist()
            case.answer, case.number, case.agreed, case.lanes = answer, number, agreed, lanes
            case.indices = ranks.read(rank, indices, len(case.words) + 1, np.uint64).tolist()


def check(case: Case) -> None:
    holding, included = case.holding(), case.included()
    signal = case.op.startswith("signal")
    form = case.op.removesuffix("_vector")
    assert case.agreed == case.lanes > 0, f"{case}: {case.agreed} of {case.lanes} lanes agree"
    if case.op == "signal_fetch":
        assert case.number == int(case.words[0]), case
    elif form.startswith("wait") or signal:
        assert case.answer == 1, case
        if signal:
            assert COMPARE[case.cmp](case.number, int(case.values[0])), case
        elif form == "wait_any":
            assert case.number in holding or (not included and case.number == NONE), case
        elif form == "wait_some":
            check_some(case, holding, at_least=1 if included else 0)
    elif form == "test":
        assert case.answer == (0 in holding), case
    elif form == "test_all":
        assert case.answer == (holding == included), case
    elif form == "test_any":
        assert case.number in holding or (not holding and case.number == NONE), case
    else:
        check_some(case, holding, at_least=len(holding))


def check_some(case: Case, holding: list[int], at_least: int) -> None:
    found = case.indices[: case.number]
    assert set(found) <= set(holding) and len(set(found)) == len(found) >= at_least, case
    assert set(case.indices[case.number :]) == {KEPT}, f"{case}: more was written than indices were found"


def middles(name: str) -> list[int]:
    """Values where a comparison of the wrong signedness differs."""
    info = np.iinfo(DTYPES[name])
    return [5, -5 if info.min < 0 else (info.max >> 1) + 1]


def array_cases(name: str, cmp: str, v: int) -> list[Case]:
    """Every test and wait over arrays that needs no other rank."""
    fails, holds = v + FAILS[cmp], v + HOLDS[cmp]
    cases = []
    for suffix in ("", "_vector"):
        for n in (1, 2, 37):
            mixed = [holds if i % 3 == 1 or n == 1 else fails for i in range(n)]
            values = [v] * n
            if suffix:  # each word has a value of its own
                values = [v + 2 * (i % 5) for i in range(n)]
                mixed = [word - v + of for word, of in zip(mixed, values, strict=True)]
            all_hold = [of + HOLDS[cmp] for of in values]
            outside = [0 if i % 3 == 1 or n == 1 else 1 for i in range(n)]  # excludes those that fail
            masks = (None, [0] * n, outside, [1] * n, [7 if i == 0 else 0 for i in range(n)])
            for mask in masks:
                for form in ("test_all", "test_any", "test_some"):
                    cases.append(Case(form + suffix, name, cmp, mixed, values, status=mask))
                    cases.append(
                        Case(form + suffix, name, cmp, [of + FAILS[cmp] for of in values], values, status=mask)
                    )
                cases.append(Case("wait_all" + suffix, name, cmp, all_hold, values, status=mask))
            for mask in (None, outside, [1] * n):
                cases.append(Case("wait_any" + suffix, name, cmp, mixed, values, status=mask))
                cases.append(Case("wait_some" + suffix, name, cmp, mixed, values, status=mask))
            cases.append(Case("wait_all" + suffix, name, cmp, mixed, values, status=outside))
        for form in ("test_all", "test_any", "test_some", "wait_all", "wait_any", "wait_some"):
            cases.append(Case(form + suffix, name, cmp, [], []))
    return cases


@pytest.mark.timeout(100)
@pytest.mark.parametrize("scope", SCOPES)
def test_what_is_there(make_suite: MAKE, scope: str) -> None:
    suite = make_suite(1, "wait", room=4 << 20)
    cases = []
    for name in suite.types:
        for cmp in CMP:
            for v in middles(name):
                for word in (v + FAILS[cmp], v + HOLDS[cmp]):
                    cases.append(Case("test", name, cmp, [word], v))
                cases.append(Case("wait", name, cmp, [v + HOLDS[cmp]], v))
                cases += array_cases(name, cmp, v)
    last = suite.types[-1]
    for cmp in CMP:
        v = (1 << 63) + 5
        cases += [Case(op, last, cmp, [v + HOLDS[cmp]], v) for op in ("signal_wait", "signal_fetch")]
    run_cases(suite, scope, [cases])
    suite.no_errors()
    suite.check()  # waiting writes nothing
    for case in cases:
        check(case)


@pytest.mark.timeout(100)
@pytest.mark.parametrize("scope", SCOPES)
def test_what_comes_from_another_rank(make_suite: MAKE, scope: str) -> None:
    size = 2
    suite = make_suite(size, "wait", room=4 << 20)
    lists: list[list[Case]] = [[] for _ in range(size)]
    for cases in lists:
        for name in suite.types:
            for cmp in CMP:
                v = middles(name)[-1]
                fails, holds = v + FAILS[cmp], v + HOLDS[cmp]
                cases.append(Case("wait", name, cmp, [fails], v, later={0: holds}))
                for suffix in ("", "_vector"):
                    every, some = dict.fromkeys(range(11), holds), {3: holds, 7: holds}
                    for form in ("wait_all", "wait_any", "wait_some"):
                        cases.append(Case(form + suffix, name, cmp, [fails] * 11, [v] * 11, later=every))
                    only_some = [0 if i in some else 1 for i in range(11)]
                    cases.append(
                        Case("wait_all" + suffix, name, cmp, [fails] * 11, [v] * 11, status=only_some, later=some)
                    )
                    cases.append(Case("wait_any" + suffix, name, cmp, [fails] * 11, [v] * 11, later=some))
                    cases.append(Case("wait_some" + suffix, name, cmp, [fails] * 11, [v] * 11, later=some))
                if name == suite.types[-1]:
                    cases.append(Case("signal_wait", name, cmp, [fails], v, later={0: holds}))
    run_cases(suite, scope, lists, writer=lambda rank: 1 - rank)
    suite.no_errors()
    for cases in lists:
        for case in cases:
            check(case)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("scope", SCOPES)
def test_a_word_that_does_not_come(make_suite: MAKE, scope: str) -> None:
    suite = make_suite(2, "wait", room=1 << 14, few=True, timeout_s=0.03)
    for op in [op for op in OPS if "wait" in op]:
        suite.reset()
        case = Case(op, "ulong", "ge", [3] if op in ("wait", "signal_wait") else [3, 3, 3], 8)
        run_cases(suite, scope, [[case], []], writer=lambda rank: 1 - rank, only=[0])
        error = suite.take_error(0)
        assert error.state == 2, case
        assert error.wait == (WAIT_SIGNAL if op == "signal_wait" else WAIT_VALUE), case
        assert error.peer == (1 if op in ("wait", "signal_wait") else ANY_PE), case
        if "any" not in op and "some" not in op:
            assert (error.expected, error.seen) == (8, 3), case
        # nothing of the results was written; of a signal's wait only what was seen
        assert case.answer == 0 and case.agreed == case.lanes, case
        assert case.number == (3 if op == "signal_wait" else KEPT) and set(case.indices) == {KEPT}, case
