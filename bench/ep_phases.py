# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Where the time of a dispatch goes, over launch shapes: the time of a call inside a CUDA graph, and when the blocks
came to each phase (docs/ep.md), in microseconds after the first block's start.

    python bench/ep_phases.py --tokens 4096 --dtype fp8 --blocks 16,32,64 --warps 16 --layout rank

One rank a GPU, all GPUs; without a GPU it says so. Every rank's tokens go to random experts, 8 of 256, as in
`mori bench ep`, which is where results are verified; this is for looking inside.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from mori.testing import run_ranks

import mori

HIDDEN, EXPERTS, TOPK = 7168, 256, 8
PHASES = ("start", "counted", "planned", "sent", "published", "received", "done")


def measure(ctx: Any, tokens: int, dtype: str, layout: str, blocks: int, warps: int, calls: int = 10) -> str:
    by = {"fp8": torch.float8_e4m3fn, "bf16": torch.bfloat16, "quantize": torch.bfloat16}[dtype]
    options: dict[str, Any] = {"scales": (56, torch.float32)} if dtype == "fp8" else {}
    if dtype == "quantize":
        options["quantize"] = "fp8"
    if layout == "grouped":
        options["align"] = 128
    if layout == "expert":
        options["expert_capacity"] = max(8, tokens * ctx.world_size * TOPK // EXPERTS * 2)
    generator = torch.Generator().manual_seed(ctx.rank)
    ids = torch.rand(tokens, EXPERTS, generator=generator).argsort(dim=1)[:, :TOPK].int().cuda().contiguous()
    weights = torch.rand(tokens, TOPK, generator=generator).cuda()
    x = torch.randint(0, 100, (tokens, HIDDEN), generator=generator, dtype=torch.uint8).cuda().to(by)
    scales = torch.ones(tokens, 56).cuda() if dtype == "fp8" else None
    trace = torch.zeros(512, 8, dtype=torch.int64, device="cuda")
    with mori.ep.Dispatcher(
        ctx,
        HIDDEN,
        EXPERTS,
        topk=TOPK,
        max_tokens=tokens,
        dtype=by,
        layout=layout,
        blocks=blocks,
        warps=warps,
        **options,
    ) as moe:

        def call(into: torch.Tensor | None = None) -> None:
            moe.dispatch(x, ids, weights, scales=scales, trace=into).release()

        call()
        ctx.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(calls):
                call()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        times = []
        for _ in range(12):
            ctx.mesh.barrier("phases")
            begin.record()
            graph.replay()
            end.record()
            torch.cuda.synchronize()
            times.append(begin.elapsed_time(end) * 1000 / calls)
        call()
        call(trace)
        ctx.synchronize()
        rows = trace.cpu().double()
        rows = rows[rows[:, 0] > 0]
        first = rows[:, 0].min()
        told = []
        for index, name in enumerate(PHASES):
            seen = rows[rows[:, index] > 0][:, index] - first
            if len(seen):
                low, mid, high = (seen.min() / 1e3, seen.median() / 1e3, seen.max() / 1e3)
                told.append(f"{name} {low:.1f}/{mid:.1f}/{high:.1f}")
        del graph
        ctx.mesh.barrier("phases")
    times.sort()
    return f"{times[len(times) // 2]:7.1f} us (min {times[0]:.1f})  {len(rows):3d} blocks  " + "  ".join(told)


def work(rank: int, world_size: int, uid: bytes, rows: list[tuple[Any, ...]]) -> list[str]:
    torch.cuda.set_device(rank)
    found = []
    with torch.cuda.stream(torch.cuda.Stream()):
        ctx = mori.init(uid=uid, rank=rank, world_size=world_size, device=f"cuda:{rank}", heap_bytes=6 << 30)
        for row in rows:
            try:
                found.append(measure(ctx, *row))
            except mori.MoriError as error:
                found.append(f"{type(error).__name__}: {error}")
                break
        ctx.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", default="128,4096")
    parser.add_argument("--dtype", default="fp8,bf16", help="of fp8 (with scales), bf16, quantize (bf16 to fp8)")
    parser.add_argument("--layout", default="rank")
    parser.add_argument("--blocks", default="0,8,16,24,32,64,96,128")
    parser.add_argument("--warps", default="0")
    a = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("ep_phases: no GPU here")
    rows = [
        (int(tokens), dtype, layout, int(blocks), int(warps))
        for tokens in a.tokens.split(",")
        for dtype in a.dtype.split(",")
        for layout in a.layout.split(",")
        for blocks in a.blocks.split(",")
        for warps in a.warps.split(",")
    ]
    ranks = torch.cuda.device_count()
    for row, told in zip(rows, run_ranks(work, ranks, rows, mode="spawn", timeout=300)[0], strict=False):
        print("tokens {} {} {} blocks {} warps {}:".format(*row), told, flush=True)


if __name__ == "__main__":
    main()
