# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""mori.shmem's host operations between ranks, compared with plain torch: processes on the fast CPU target, threads on
lanes of 32 and 64."""

from __future__ import annotations

import pytest
from host_cases import CASES, run_cases
from mori.shmem._operations import Operations
from mori.testing import run_ranks

pytestmark = pytest.mark.timeout(100)


@pytest.mark.parametrize("size", [1, 2, 3, 4], ids="{}ranks".format)
def test_processes(size: int) -> None:
    run_ranks(run_cases, size, timeout=80)


@pytest.mark.parametrize("provider", ["mlx5", "bnxt_re", "ionic"])
@pytest.mark.parametrize("mode", ["process", "thread"])
def test_queues(mode: str, provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MORI_IBGDA_PROVIDER", provider)
    monkeypatch.setenv("MORI_IBGDA_QUEUES", "2")
    monkeypatch.setenv("MORI_TRANSPORT", "ibgda")
    run_ranks(run_cases, 3, mode=mode, timeout=80)


@pytest.mark.parametrize("lanes", ["32", "64"])
def test_threads_on_lanes(lanes: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MORI_CPU_LANES", lanes)
    run_ranks(run_cases, 2, mode="thread", timeout=80)


def test_the_way_of_big_transfers(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a GPU leaves to its copy engines, by torch's copies; here for everything over 100 bytes."""
    monkeypatch.setattr(Operations, "_is_big", lambda self, nbytes: nbytes > 100)
    run_ranks(run_cases, 3, mode="thread", timeout=80)


def test_every_operation_has_a_case() -> None:
    import inspect

    import host_cases
    import mori.shmem

    text = inspect.getsource(host_cases)
    called = [name for name in mori.shmem._FUNCTIONS if f".{name}(" in text or name.endswith("_reduce")]
    assert called == list(mori.shmem._FUNCTIONS), set(mori.shmem._FUNCTIONS) - set(called)
    assert len(CASES) >= 9
