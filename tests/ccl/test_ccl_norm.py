# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""all_reduce_rms_norm: the bits of all_reduce, an addition and a norm one after the other, by both algorithms and on
all ranks; the norm itself within a rounding of fp64; codes and scales exactly those of the normed rows."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
import torch
from ccl_ranks import Guarded, each, same
from mori.errors import ConfigError, MoriError
from mori.testing import run_ranks

import mori

pytestmark = pytest.mark.timeout(120)
DTYPES = (torch.bfloat16, torch.float16, torch.float32)
#: rows and hidden; 4104 is beyond the places that squares are added in
SHAPES = ((0, 8), (1, 8), (3, 136), (5, 1000), (2, 4104), (33, 264))
EPS = 1e-6


def operands(size: int, rows: int, hidden: int, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(rows + hidden)
    values = torch.randn(size, rows, hidden, generator=generator).to(dtype)
    residual = torch.randn(rows, hidden, generator=generator).to(dtype)
    return values, residual, (torch.rand(hidden, generator=generator) + 0.5).to(dtype)


def coded(rows: torch.Tensor, block: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes and scales of rows, `block` elements sharing a scale."""
    n, hidden = rows.shape
    blocks = -(-hidden // block)
    wide = torch.zeros(n, blocks * block)
    wide[:, :hidden] = rows.float()
    wide = wide.view(n, blocks, block)
    amax = wide.abs().amax(-1, keepdim=True).clamp(min=2.0**-100)
    limit = torch.full_like(amax, 448)
    codes = (wide * (limit / amax)).clamp(-448, 448).view(n, blocks * block)[:, :hidden]
    return codes.contiguous().to(torch.float8_e4m3fn), (amax / limit)[..., 0]


def fused(comm: Any, dtype: torch.dtype, shapes: Any) -> list[str]:
    wrong = []
    for at, (rows, hidden) in enumerate(shapes):
        values, residual, weight = operands(comm.size, rows, hidden, dtype)
        mine = values[comm.rank].contiguous()
        kept = comm.all_reduce(mine) + residual
        wanted = torch.nn.functional.rms_norm(kept.double(), (hidden,), weight.double(), EPS)
        # products and squares in fp32 (hidden of them, in a tree), then one rounding
        bound = wanted.abs() * (torch.finfo(dtype).eps / 2 + 16 * torch.finfo(torch.float32).eps) + 1e-7
        first = None
        for algorithm in ("one_shot", "two_shot"):
            name = f"{dtype} {rows} x {hidden} {algorithm}"
            x, out, more = (Guarded(rows * hidden, dtype, skew) for skew in (at % 3, at % 2, at % 2))
            x.tensor.copy_(mine.view(-1))
            a, b, c = (t.tensor.view(rows, hidden) for t in (x, out, more))
            comm.all_reduce_rms_norm(a, residual, weight, eps=EPS, algorithm=algorithm, out=b, residual_out=c)
            first = b.clone() if first is None else first
            if not (same(c, kept) and same(b, first) and same(a, mine)):
                wrong.append(f"{name}: other bits than one after the other")
            if ((b.double() - wanted).abs() > bound).any():
                wrong.append(f"{name}: too far from fp64")
            if x.hurt() or out.hurt() or more.hurt():
                wrong.append(f"{name}: written outside")
            for quantize, block in (("fp8", hidden), ("fp8_block", 128)):
                (codes, scales), again = comm.all_reduce_rms_norm(
                    mine, residual, weight, eps=EPS, algorithm=algorithm, quantize=quantize
                )
                if not (same(codes, coded(first, block)[0]) and same(scales, coded(first, block)[1])):
                    wrong.append(f"{name}: {quantize}")
                if not same(again, kept):
                    wrong.append(f"{name}: {quantize} has another residual")
            kept_in_place = residual.clone()
            b, _ = comm.all_reduce_rms_norm(
                a, kept_in_place, weight, eps=EPS, algorithm=algorithm, out=a, residual_out=kept_in_place
            )
            if not (same(b, first) and same(kept_in_place, kept)):
                wrong.append(f"{name}: in place")
        bare, sums = comm.all_reduce_rms_norm(mine, None, weight, eps=EPS)
        total = comm.all_reduce(mine)
        if not same(sums, total) or not same(bare, comm.all_reduce_rms_norm(mine, 0 * residual, weight, eps=EPS)[0]):
            wrong.append(f"{dtype} {rows} x {hidden}: no residual")
        assert first is not None
        everybody = comm.all_gather(first).view(comm.size, rows, hidden)
        if not all(same(everybody[r].contiguous(), first) for r in range(comm.size)):
            wrong.append(f"{dtype} {rows} x {hidden}: ranks have different bits")
    return wrong


@pytest.mark.parametrize("dtype", DTYPES, ids=["bf16", "fp16", "fp32"])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 8], ids="{}ranks".format)
def test_as_one_after_the_other(size: int, dtype: torch.dtype) -> None:
    assert each(fused, size, dtype, SHAPES, chunk_bytes=1 << 15) == [[]] * size


@pytest.mark.parametrize("dtype", DTYPES, ids=["bf16", "fp16", "fp32"])
@pytest.mark.parametrize(("size", "lanes"), [(2, 32), (3, 64)], ids=["2ranks-w32", "3ranks-w64"])
def test_lanes(size: int, lanes: int, dtype: torch.dtype) -> None:
    assert each(fused, size, dtype, SHAPES[1:5], lanes=lanes, chunk_bytes=1 << 15) == [[]] * size


def bits(comm: Any) -> list[torch.Tensor]:
    """Rows alone and among others, and what a sum of zeros and of a signed zero gives."""
    values, residual, weight = operands(comm.size, 40, 1032, torch.bfloat16)
    mine = values[comm.rank].contiguous()
    mine[1], residual[1], residual[2] = 0, -0.0, 1e30
    many, kept = comm.all_reduce_rms_norm(mine, residual, weight)
    few, few_kept = comm.all_reduce_rms_norm(mine[:5], residual[:5], weight)
    assert same(many[:5], few) and same(kept[:5], few_kept)
    return [many, kept, *comm.all_reduce_rms_norm(mine, residual, weight, quantize="fp8_block")[0]]


def test_a_row_has_the_same_bits_whatever_runs_it() -> None:
    outcomes = [each(bits, 2, lanes=lanes)[0] for lanes in (1, 32, 64)]
    for other in outcomes[1:]:
        assert all(same(a, b) for a, b in zip(other, outcomes[0], strict=True))


def refused(comm: Any) -> None:
    x, weight = torch.ones(3, 64), torch.ones(64)
    call = comm.all_reduce_rms_norm
    for words, wrong in {
        "x is torch.float64; allowed: bfloat16, float16, float32": lambda: call(x.double(), None, weight),
        r"x has shape \(3, 12\); its last dimension must be a multiple of 8": lambda: call(x[:, :12] + 0, None, weight),
        r"x has shape \(3, 0\)": lambda: call(x[:, :0] + 0, None, weight),
        r"residual is torch.float32 \(2, 64\); wanted torch.float32 \(3, 64\)": lambda: call(x, x[:2], weight),
        r"weight is torch.float16 \(64,\); wanted torch.float32 \(64,\)": lambda: call(x, x, weight.half()),
        "weight must be a torch tensor, got NoneType": lambda: call(x, x, None),
        "eps=nan must be a finite number": lambda: call(x, x, weight, eps=float("nan")),
        "eps=-1 must be": lambda: call(x, x, weight, eps=-1),
        "quantize='int8': allowed are None, 'fp8', 'fp8_block'": lambda: call(x, x, weight, quantize="int8"),
        "algorithm='ll' is for all_reduce": lambda: call(x, x, weight, algorithm="ll"),
        "needs chunk_bytes of 8192; there are 4096": lambda: call(torch.ones(2048), None, torch.ones(2048)),
        "out overlaps residual_out;": lambda: call(x, x, weight, out=x, residual_out=x),
        "out overlaps residual;": lambda: call(x, x, weight, out=x),
        "out is torch.float32": lambda: call(x, x, weight, out=x, quantize="fp8"),
    }.items():
        with pytest.raises(ConfigError, match=words):
            wrong()
    comm.barrier()  # nothing was sent: ranks are in step
    with pytest.raises(ConfigError, match="makes this call with other settings"):
        call(x, None, weight, eps=1e-5 if comm.rank else 1e-6)


def test_refusals() -> None:
    each(refused, 2)


def meet_and_call(comm: Any, x: torch.Tensor, weight: torch.Tensor, algorithm: str) -> None:
    comm.ctx.mesh.barrier()  # may know of the death already
    comm.all_reduce_rms_norm(x, x, weight, algorithm=algorithm)


def bereaved(rank: int, size: int, uid: bytes, algorithm: str) -> tuple[str, object]:
    with mori.init(uid=uid, rank=rank, world_size=size, device="cpu", timeout=30, heap_bytes=32 << 20) as ctx:
        comm = mori.ccl.Communicator(ctx)
        x, weight = torch.ones(400, 1024), torch.ones(1024)
        comm.all_reduce_rms_norm(x, x, weight, algorithm=algorithm)
        if rank == 1:
            ctx.mesh.barrier()  # nobody is in that call any more
            os.kill(os.getpid(), signal.SIGKILL)
        with pytest.raises(MoriError) as caught:
            meet_and_call(comm, x, weight, algorithm)
        return type(caught.value).__name__, getattr(caught.value, "peer", None)


@pytest.mark.parametrize("algorithm", ["one_shot", "two_shot"])
def test_killed(algorithm: str) -> None:
    outcome = run_ranks(bereaved, 3, algorithm, timeout=60, expendable=[1])
    assert outcome[0] == outcome[2] == ("PeerLost", 1)
