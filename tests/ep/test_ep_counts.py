# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Blocks that count for each other: launches in which a block counts its own tokens only, several batches to a block,
epochs that wrap, and a bad id that another block than the announcing one has met. By expert: copies made by whoever
comes first, senders too."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from ep_cases import Case, check, make, open_context, run_case, table, tokens_of
from mori.ep import Dispatcher
from mori.errors import ConfigError
from mori.testing import run_ranks

pytestmark = pytest.mark.timeout(120)

SHARED: dict[str, Any] = {"max_tokens": 700, "topk": 3, "experts": 16}
CASES = table(
    Case("blocks-of-batches", tokens=(700, 0, 513), blocks=2, warps=1, rounds=2, **SHARED),
    Case("more-blocks-than-tokens-each", tokens=(300, 1, 129), blocks=7, warps=1, rounds=3, **SHARED),
    Case("share-then-alone", tokens=(260, 5, 1), blocks=3, warps=2, rounds=4, **SHARED),
    Case("masked-rank", tokens=(260, 140, 90), inactive=(0,), blocks=3, warps=1, **SHARED),
    Case("two-phase", tokens=(260, 140, 90), two_phase=True, blocks=3, warps=1, **SHARED),
    Case("fp8-scales", tokens=(260, 140), dtype="float8_e4m3fn", hidden=256, scales=(2, "float32"), blocks=4, **SHARED),
)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("world_size", [2, 3], ids="{}ranks".format)
@pytest.mark.parametrize("lanes", [1, 32, 64], ids="w{}".format)
def test_counts_are_shared(lanes: int, world_size: int, name: str) -> None:
    check(CASES, name, world_size, lanes=lanes, mode="thread")


def _wrong_id(rank: int, world_size: int, uid: bytes) -> list[str]:
    case = Case("wrong", tokens=(300,), blocks=5, warps=1, **SHARED)
    told = []
    with open_context(rank, world_size, uid, heap_bytes=8 << 20) as ctx, make(ctx, case) as moe:
        for token in (0, 150, 299):  # of the first, a middle and the last block
            sent = tokens_of(case, rank)
            ids = sent.topk_ids.clone()
            if rank == 1:
                ids[token, 1] = 16 + token
            text = ""
            try:
                moe.dispatch(sent.x, ids, sent.topk_weights)
                ctx.synchronize()
            except ConfigError as error:
                text = str(error)
            told.append(text)
            with contextlib.suppress(ConfigError):
                ctx.check()
        recv = moe.dispatch(sent.x, sent.topk_ids, sent.topk_weights)
        ctx.synchronize()
        told.append(str(int(recv.counts.sum()) > 0))
    return told


@pytest.mark.parametrize("lanes", [1, 32], ids="w{}".format)
def test_an_id_that_some_block_met_is_refused_by_all(lanes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MORI_CPU_LANES", str(lanes))
    for told in run_ranks(_wrong_id, 2, mode="thread", timeout=100):
        for token, text in zip((0, 150, 299), told[:3], strict=True):
            assert str(16 + token) in text, told
        assert told[3] == "True"


def _spread(rank: int, world_size: int, uid: bytes) -> list[str]:
    outcome = []
    with open_context(rank, world_size, uid, heap_bytes=16 << 20) as ctx:
        for layout in ("expert", "grouped"):
            for senders in (1, 3, 5):

                def tune(moe: Dispatcher, senders: int = senders) -> None:
                    tuning: Any = moe._core.dispatch_tuning
                    tuning.senders = senders

                case = Case(
                    f"{layout}-{senders}", layout=layout, align=8 if layout == "grouped" else None,
                    zero_padding=layout == "grouped", expert_capacity=None, tokens=(60, 0, 33), max_tokens=64,
                    topk=4, blocks=6, warps=1, rounds=3,
                )  # fmt: skip
                outcome.append(f"{case}: {run_case(ctx, case, before=tune)}")
    return outcome


@pytest.mark.parametrize("lanes", [32, 64], ids="w{}".format)
def test_who_makes_the_copies_does_not_matter(lanes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MORI_CPU_LANES", str(lanes))
    for rank, told in enumerate(run_ranks(_spread, 3, mode="thread", timeout=100)):
        assert not [text for text in told if not text.endswith(": ")], (rank, told)


def test_shared_counts_outlive_a_wrap_of_the_tag() -> None:
    """Tags of words are the epoch modulo 2^32 - 1: what an earlier epoch of the same tag left is not taken."""
    for told in run_ranks(_wrap, 2, mode="thread", timeout=100):
        assert told == ["", ""], told


def _wrap(rank: int, world_size: int, uid: bytes) -> list[str]:
    outcome = []
    with open_context(rank, world_size, uid, heap_bytes=8 << 20) as ctx:
        for start in (2**32 - 3, 2**33 - 4):

            def begin(moe: Dispatcher, start: int = start) -> None:
                ctx.barrier()
                moe._core.start_at(start, start)
                ctx.barrier()

            case = Case("wrap", tokens=(300, 31), blocks=4, warps=1, rounds=5, **SHARED)
            outcome.append(run_case(ctx, case, before=begin))
    return outcome
