# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""all_reduce over narrow wires: exact where codes are, bounded elsewhere, the same bits on all ranks, never an
infinity that the sum has not."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from ccl_ranks import Guarded, each, same
from mori.errors import ConfigError

pytestmark = pytest.mark.timeout(120)
#: signal to quantisation noise of N(0, 1), in dB, at least
LEAST = {"fp8": 26.0, "int8": 36.0, "int6": 24.0, "int4": 12.0}
BLOCK = {"fp8": 128, "int8": 128, "int6": 64, "int4": 64}


def sqnr(got: torch.Tensor, wanted: torch.Tensor) -> float:
    noise = (got.double() - wanted).square().sum().item()
    return math.inf if noise == 0 else 10 * math.log10(wanted.square().sum().item() / noise)


def bounded(comm: Any, dtype: torch.dtype, wire: str) -> list[str]:
    wrong = []
    for seed, count in enumerate((0, 1, 63, 128, 1000, 4096, 20_001)):
        generator = torch.Generator().manual_seed(seed)
        values = torch.randn(comm.size, count, generator=generator).to(dtype)
        source, out = Guarded(count, dtype, seed % 2), Guarded(count, dtype, seed % 3)
        source.tensor.copy_(values[comm.rank])
        for op in ("sum", "avg"):
            comm.all_reduce(source.tensor, op=op, out=out.tensor, wire=wire)
            total = values.double().sum(0) / (comm.size if op == "avg" else 1)
            if count >= 1000 and sqnr(out.tensor, total) < LEAST[wire]:
                wrong.append(f"{op} of {count}: {sqnr(out.tensor, total):.1f} dB")
            everybody = comm.all_gather(out.tensor.clone()).view(comm.size, -1)
            if not all(same(everybody[r].contiguous(), out.tensor) for r in range(comm.size)):
                wrong.append(f"{op} of {count}: ranks have different bits")
        comm.all_reduce(source.tensor, op="avg", out=source.tensor, wire=wire)
        if not same(source.tensor, out.tensor.clone()):
            wrong.append(f"{count}: other bits in place")
        if source.hurt() or out.hurt():
            wrong.append(f"{count}: written outside")
    return wrong


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
@pytest.mark.parametrize("wire", LEAST)
@pytest.mark.parametrize(("size", "lanes"), [(1, 1), (2, 1), (5, 1), (3, 32), (2, 64)])
def test_the_error_is_bounded_and_the_same_everywhere(size: int, lanes: int, wire: str, dtype: torch.dtype) -> None:
    assert each(bounded, size, dtype, wire, lanes=lanes) == [[]] * size


def exact(comm: Any, wire: str) -> bool:
    """Every block has the codes' largest number in it, and otherwise whole ones: no rounding anywhere."""
    limit = {"fp8": 448, "int8": 127, "int6": 31, "int4": 7}[wire]
    x = torch.zeros(1024)
    x[:: BLOCK[wire] // 2] = limit
    x[1 :: BLOCK[wire] // 2] = -limit
    x[2::9] = 3
    total = comm.all_reduce(x.bfloat16(), wire=wire)
    return torch.equal(total.float(), x * comm.size)


@pytest.mark.parametrize("wire", LEAST)
def test_what_codes_hold_is_exact(wire: str) -> None:
    assert each(exact, 2, wire) == [True, True]


def large(comm: Any, wire: str) -> list[float]:
    """Far above fp16's and e4m3fn's largest numbers; and zeros."""
    x = torch.full((512,), 1e30, dtype=torch.bfloat16)
    x[256:] = 0
    total = comm.all_reduce(x, wire=wire).float()
    return [(total[:256] / 2e30).min().item(), (total[:256] / 2e30).max().item(), total[256:].abs().max().item()]


@pytest.mark.parametrize("wire", LEAST)
def test_large_numbers_and_zeros(wire: str) -> None:
    for least, most, zero in each(large, 2, wire):
        assert 0.99 < least <= most < 1.01 and zero == 0


def refused(comm: Any) -> None:
    x = torch.ones(4096)
    for words, call in {
        "wire='fp4': allowed are None, fp8, int8, int6, int4": lambda: comm.all_reduce(x.bfloat16(), wire="fp4"),
        "is for bfloat16 and float16; x is torch.float32": lambda: comm.all_reduce(x, wire="fp8"),
        "is for op='sum' and 'avg', not 'max'": lambda: comm.all_reduce(x.bfloat16(), op="max", wire="fp8"),
        "goes in two shots; algorithm='ll'": lambda: comm.all_reduce(x.bfloat16(), algorithm="ll", wire="fp8"),
    }.items():
        with pytest.raises(ConfigError, match=words):
            call()
    comm.barrier()


def too_small(comm: Any) -> None:
    with pytest.raises(ConfigError, match="needs chunk_bytes of 512; there are 64"):
        comm.all_reduce(torch.ones(64).bfloat16(), wire="fp8")


def test_refusals() -> None:
    each(refused, 2)
    each(too_small, 2, chunk_bytes=64)
