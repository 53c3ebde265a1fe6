# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Wrong arguments are named before anything is launched; ranks that call different things are told."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ccl_ranks import each
from mori.errors import ConfigError
from mori.testing import run_ranks

import mori

pytestmark = pytest.mark.timeout(60)
X = torch.ones(4, 3)
REFUSED: dict[str, Any] = {
    "op='mean': allowed are sum, avg, min, max, prod": lambda c: c.all_reduce(X, op="mean"),
    "algorithm='ring': allowed are auto, one_shot": lambda c: c.all_reduce(X, algorithm="ring"),
    "algorithm='ll' is for elements of up to 4": lambda c: c.all_reduce(X.double(), algorithm="ll"),
    "x is torch.bool; allowed: bfloat16": lambda c: c.all_reduce(X.bool()),
    "x must be a torch tensor, got list": lambda c: c.all_reduce([1.0]),
    r"x has strides \(1, 3\)": lambda c: c.all_reduce(X.t()),
    "x is on meta, the context on cpu": lambda c: c.all_reduce(torch.ones(3, device="meta")),
    r"out is torch.float32 \(3, 4\); wanted torch.float32 \(4, 3\)": lambda c: c.all_reduce(X, out=torch.ones(3, 4)),
    "out is torch.float64": lambda c: c.all_gather(X, out=torch.ones(8, 3).double()),
    r"x has shape \(3,\); dimension 0 must be a multiple of 2": lambda c: c.reduce_scatter(torch.ones(3)),
    r"x has shape \(\); dimension 0": lambda c: c.all_to_all(torch.tensor(1.0)),
    "root=2 is not a member: 0..1": lambda c: c.broadcast(X, 2),
    "root=-1 is not a member": lambda c: c.reduce(X, -1),
    "root=True is not a member": lambda c: c.gather(X, True),
    "send and receive must both": lambda c: c.all_to_all(X, send=[2, 2]),
    "must be 2 numbers, none negative": lambda c: c.all_to_all(X, send=[5, -1], receive=[2, 2]),
    r"send=\[1, 1\] has a sum of 2; x has 4": lambda c: c.all_to_all(X, send=[1, 1], receive=[2, 2]),
    "out overlaps x": lambda c: c.all_to_all(X, out=X, send=[2, 2], receive=[2, 2]),
}


def refused(comm: Any) -> list[str]:
    wrong = []
    for words, call in REFUSED.items():
        try:
            with pytest.raises(ConfigError, match=words):
                call(comm)
        except (AssertionError, pytest.fail.Exception) as error:
            wrong.append(f"{words}: {error}")
    if comm.rank == 0:
        with pytest.raises(ConfigError, match="x=None on the root"):
            comm.scatter(None, X.clone(), 0)
    comm.barrier()  # nothing was sent: ranks are in step
    return wrong


def test_wrong_arguments_are_named() -> None:
    assert each(refused, 2) == [[], []]


DIFFERENT: dict[str, tuple[Any, Any]] = {
    "op": (lambda c: c.all_reduce(X), lambda c: c.all_reduce(X, op="max")),
    "count": (lambda c: c.all_reduce(X), lambda c: c.all_reduce(torch.ones(5))),
    "dtype": (lambda c: c.all_reduce(X), lambda c: c.all_reduce(X.to(torch.int32))),
    "root": (lambda c: c.broadcast(X.clone(), 0), lambda c: c.broadcast(X.clone(), 1)),
    "call": (lambda c: c.all_gather(X), lambda c: c.barrier()),
    "nothing": (lambda c: c.all_gather(X), lambda c: c.all_gather(X[:0])),
    "splits": (
        lambda c: c.all_to_all(X, send=[2, 2], receive=[2, 2]),
        lambda c: c.all_to_all(X, send=[1, 3], receive=[1, 3]),
    ),
}


def different(comm: Any, name: str) -> str:
    with pytest.raises(ConfigError, match="makes this call with other settings") as caught:
        DIFFERENT[name][comm.rank](comm)
    return str(caught.value)


@pytest.mark.parametrize("name", DIFFERENT)
def test_ranks_that_call_different_things_are_told(name: str) -> None:
    texts = each(different, 2, name)
    assert "rank 1" in texts[0] and "rank 0" in texts[1]


def subgroups(rank: int, size: int, uid: bytes) -> list[Any]:
    with mori.init(uid=uid, rank=rank, world_size=size, device="cpu", timeout=30, heap_bytes=8 << 20) as ctx:
        for ranks, words in (([], "must be different ranks"), ([0, 0], "different"), ([0, 9], "of 0..3")):
            with pytest.raises(ConfigError, match=words):
                mori.ccl.Communicator(ctx, ranks=ranks)
        with pytest.raises(ConfigError, match="chunk_bytes=0 must be positive"):
            mori.ccl.Communicator(ctx, chunk_bytes=0)
        everybody = mori.ccl.Communicator(ctx)
        odd, even = mori.ccl.Communicator(ctx, ranks=[3, 0, 1]), mori.ccl.Communicator(ctx, ranks=[2])
        results: list[Any] = [everybody.all_gather(torch.tensor([rank])).tolist()]
        for comm in (odd, even):
            if comm.rank < 0:
                with pytest.raises(ConfigError, match=f"rank {rank} is not a member"):
                    comm.all_gather(torch.tensor([rank]))
            else:
                results.append(comm.all_gather(torch.tensor([rank])).tolist())
        everybody.barrier()
        return results


def test_any_ranks_in_any_order() -> None:
    everybody = [0, 1, 2, 3]
    trio = [everybody, [3, 0, 1]]
    assert run_ranks(subgroups, 4, mode="thread", timeout=50) == [trio, trio, [everybody, [2]], trio]


def by_a_nic(rank: int, size: int, uid: bytes) -> None:
    with (
        mori.init(uid=uid, rank=rank, world_size=size, device="cpu", heap_bytes=8 << 20, transport="ibgda") as ctx,
        pytest.raises(ConfigError, match=r"transport='ibgda': mori\.ccl reaches peers by load and store"),
    ):
        mori.ccl.Communicator(ctx)


def test_peers_behind_a_nic_are_refused() -> None:
    run_ranks(by_a_nic, 2, mode="thread", timeout=40)
