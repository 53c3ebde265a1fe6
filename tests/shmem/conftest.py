# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Runs each test on the fast CPU target, on lanes of 32 and 64, and on a GPU where there is one (-m gpu)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from shmem_ranks import CPU_TARGETS, GPU_TARGETS, TRANSPORTS, Ranks, Target

from mori import _core

# Kernels of several streams must run at the same time on one GPU; the drivers read these when they start.
os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "32")
os.environ.setdefault("GPU_MAX_HW_QUEUES", "8")


@pytest.fixture(params=[*CPU_TARGETS, *GPU_TARGETS], ids=str)
def target(request: pytest.FixtureRequest) -> Target:
    target: Target = request.param
    if target.kind != "cpu":
        count, why = _core.device_count(target.kind)
        if count == 0:
            pytest.skip(f"no {target.kind} device: {why}")
    return target


_ALL_FAMILIES = ("test_conformance_amo.py", "test_conformance_rma.py", "test_put.py", "test_queues.py")
_TCP = ("test_put.py", "test_queues.py")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Queues: by default on the fast CPU, families that differ from mlx5 in atomics and entries only there, another
    mover in fewer tests; the rest with `-m long`. No software NIC moves GPU memory."""
    kept = []
    for item in items:
        found = getattr(getattr(item, "callspec", None), "params", {})
        target = found.get("target")
        if found.get("transport", "p2p") != "p2p" and isinstance(target, Target):
            if target.kind != "cpu":
                continue
            short = _TCP if found["transport"] == "tcp" else _ALL_FAMILIES
            alike = found["transport"] != "mlx5" and item.path.name not in short
            if target.lanes != 1 or alike:
                item.add_marker(pytest.mark.long)
        kept.append(item)
    items[:] = kept


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    """How ranks reach each other."""
    name: str = request.param
    return name


@pytest.fixture
def make_ranks(target: Target, transport: str) -> Iterator[Callable[..., Ranks]]:
    """make_ranks(size, room=..., timeout_s=...) on the target, over the transport."""
    made: list[Ranks] = []

    def make(size: int, **options: Any) -> Ranks:
        made.append(Ranks(target, size, transport=transport, **options))
        return made[-1]

    yield make
    for ranks in made:
        ranks.close()
