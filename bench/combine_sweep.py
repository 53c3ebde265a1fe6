# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Combine over ways to spread it over a launch, one process per GPU: a short table, best first.

    python bench/combine_sweep.py [--tokens 4096,128] [--ranks N] [--hidden 7168] [--seconds 60]

Each row is a setting of `_core.EpCombineTuning` (0 = chosen); us is the slowest rank's time of one combine among many
in a CUDA graph. Every setting's result is compared with the first one's, bit for bit. Then, for the default and the
best, when the blocks of rank 0 come to the end of each phase of one call.
"""

from __future__ import annotations

import argparse
import itertools
import time
from typing import Any

import torch
from mori.ep import Dispatcher
from mori.testing import run_ranks

import mori

FIELDS = ("blocks", "senders", "sender_warps", "unit", "parts", "mode")
REPEATS, REPLAYS = 10, 4


def settings(tokens: int) -> list[tuple[int, ...]]:
    """Default first. mode 2: warps return rows and sum by ticket; 1: blocks return rows together, all sum in turn."""
    few = [
        (b, s, 0, u, p, 1)
        for b, s, u, p in itertools.product((32, 64, 128), (0, 999), (0, 1), (0, 4))
    ]  # fmt: skip
    many = [
        (64, s, w, u, p, 2)
        for s, w in ((16, 16), (24, 16), (32, 16), (24, 8), (64, 4), (64, 2))
        for u, p in ((1, 2), (2, 2), (4, 2), (2, 1), (2, 4))
    ]
    many += [(128, s, w, 2, p, 2) for s, w in ((24, 16), (32, 16), (64, 8), (128, 4), (128, 2)) for p in (1, 2, 4)]
    many += [(b, b, w, u, 2, 2) for b in (16, 24, 32) for w in (4, 8, 12) for u in (1, 2, 4)]
    return [(0,) * 6, *(few if tokens <= 512 else many)]


def measure(ctx: Any, moe: Dispatcher, rows: torch.Tensor, recv: Any, outs: list[torch.Tensor]) -> float:
    """Microseconds of one combine."""

    def call(out: torch.Tensor) -> None:
        moe.combine(rows, recv.routing, out=out, release=False)

    call(outs[0])
    ctx.synchronize()
    graph: Any = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=torch.cuda.current_stream(), capture_error_mode="thread_local"):
        for i in range(REPEATS):
            call(outs[i % len(outs)])
    graph.replay()
    ctx.barrier()
    before, after = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    before.record()
    for _ in range(REPLAYS):
        graph.replay()
    after.record()
    ctx.synchronize()
    return float(before.elapsed_time(after)) * 1000 / REPEATS / REPLAYS


def traced(ctx: Any, moe: Dispatcher, rows: torch.Tensor, recv: Any, out: torch.Tensor, setting: Any) -> None:
    """Prints when blocks of rank 0 came where, in us since the first of them started: median and latest block."""
    core: Any = mori._core
    routing = recv.routing
    apply(moe, setting)
    times = torch.zeros(core.EP_MAX_BLOCKS, core.EP_TRACE_WORDS, dtype=torch.int64, device=out.device)
    for trace in (0, 0, times.data_ptr()):
        ctx.barrier()
        moe._core.combine(
            ctx.stream(), rows.data_ptr(), out.data_ptr(), 0, 0, routing.topk_ids.data_ptr(), routing.data.data_ptr(),
            len(out), routing.topk_ids.element_size(), moe.hidden, len(rows), core.Element.bf16, trace=trace,
        )  # fmt: skip
        ctx.synchronize()
    seen = times.cpu()
    seen = seen[seen[:, 0] > 0]
    text = []
    for word, name in ((2, "routes"), (4, "returned"), (1, "announced"), (5, "last rows"), (6, "done")):
        at = seen[seen[:, word] > 0][:, word] - seen[:, 0].min()
        if len(at):
            text.append(f"{name} {at.median() / 1e3:.1f}/{at.max() / 1e3:.1f}")
    if ctx.rank == 0:
        starts = seen[:, 0] - seen[:, 0].min()
        print(
            f"  {setting}: {len(seen)} blocks, last start {starts.max() / 1e3:.1f}; us median/latest:",
            *text,
            flush=True,
        )


def apply(moe: Dispatcher, setting: Any) -> None:
    for field, value in zip(FIELDS, setting, strict=True):
        setattr(moe._core.combine_tuning, field, value)


def sweep(rank: int, world_size: int, uid: bytes, tokens: int, hidden: int, seconds: float) -> list[Any]:
    device = torch.device("cuda", rank)
    torch.cuda.set_device(device)
    torch.cuda.set_stream(torch.cuda.Stream(device))
    found: list[Any] = []
    heap = (6 * world_size * tokens * hidden * 2) + (256 << 20)
    with mori.init(uid=uid, rank=rank, world_size=world_size, device=device, heap_bytes=heap, timeout=20.0) as ctx:
        moe = Dispatcher(ctx, hidden, 256, topk=8, max_tokens=tokens)
        generator = torch.Generator().manual_seed(rank)
        ids = torch.rand(tokens, 256, generator=generator).argsort(1)[:, :8].int().contiguous().to(device)
        recv = moe.dispatch(torch.randn(tokens, hidden, generator=generator).bfloat16().to(device), ids)
        rows = (recv.x * 3).contiguous()
        outs = [torch.empty(tokens, hidden, dtype=torch.bfloat16, device=device) for _ in range(2)]
        first: torch.Tensor | None = None
        start = time.monotonic()
        for setting in settings(tokens):
            late = [m.payload for m in ctx.mesh.exchange("late", bytes([time.monotonic() - start > seconds]))]
            if b"\1" in late:
                break
            apply(moe, setting)
            us = measure(ctx, moe, rows, recv, outs)
            first = outs[0].clone() if first is None else first
            same = all(torch.equal(out.view(torch.int16), first.view(torch.int16)) for out in outs)
            found.append((setting, us, same))
        if rank == 0:
            print(f"{tokens} tokens:", flush=True)
        for setting in {settings(tokens)[0], min(found, key=lambda row: row[1])[0]}:
            traced(ctx, moe, rows, recv, outs[0], setting)
        moe.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", default="4096,128")
    parser.add_argument("--ranks", type=int, default=torch.cuda.device_count())
    parser.add_argument("--hidden", type=int, default=7168)
    parser.add_argument("--seconds", type=float, default=60)
    args = parser.parse_args()
    for tokens in map(int, args.tokens.split(",")):
        ranks = run_ranks(sweep, args.ranks, tokens, args.hidden, args.seconds, mode="spawn", timeout=args.seconds + 90)
        rows = [
            (max(r[i][1] for r in ranks), ranks[0][i][0], all(r[i][2] for r in ranks)) for i in range(len(ranks[0]))
        ]
        print(f"combine, {tokens} tokens x {args.hidden} bf16, {args.ranks} ranks; default {rows[0][0]:.1f} us")
        print(f"{'us':>8}  " + " ".join(f"{f:>12}" for f in FIELDS))
        for us, setting, same in sorted(rows)[:25] + sorted(rows)[-3:]:
            print(f"{us:8.1f}  " + " ".join(f"{v:12}" for v in setting) + ("" if same else "  WRONG"))


if __name__ == "__main__":
    main()
