# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""A dispatch and combine as one row of a table, run by every rank and compared bit for bit with the reference.

    CASES = table(Case("fp8", dtype="float8_e4m3fn"), Case("one-token", tokens=1))

    @pytest.mark.parametrize("name", CASES)
    def test_...(name): check(CASES, name, world_size=3)

Starting ranks costs more than a case: the ranks of one world size are started once and run the whole table; each test
then looks at its own row. Every rank makes the inputs of all ranks from the case's seed.
"""

from __future__ import annotations

import dataclasses
import functools
import traceback
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from mori.ep import Dispatcher, reference
from mori.ep._recipe import recipe_of
from mori.ep.reference import Tokens, as_bits, first_difference
from mori.testing import run_ranks

import mori

__all__ = ["Case", "check", "make", "open_context", "returned_rows", "run_case", "settle", "table", "tokens_of"]

MIB = 1 << 20


@dataclasses.dataclass(frozen=True)
class Case:
    """Arguments of a Dispatcher by the names they have there, and what is sent through it."""

    name: str
    hidden: int = 16
    experts: int = 8
    topk: int = 2
    max_tokens: int = 8
    dtype: str = "bfloat16"
    combine_dtype: str | None = None
    scales: tuple[int, str] | None = None
    capacity: int | None = None
    placement: str = "blocks"  # of experts: blocks, one-rank, interleaved, scattered, replicated, everywhere
    blocks: int = 0
    warps: int = 0
    tokens: tuple[int, ...] = (5, 8, 3)  # of rank r: tokens[r % len]
    ids: str = "int32"
    masked: float = 0.1  # share of ids that are -1
    routing: str = "random"  # random, hot (all to the first experts), nowhere, sparse (many tokens without an expert)
    weights: bool = True
    apply_weights: bool = False
    bias: bool = False
    out: bool = False
    layout: str = "rank"
    align: int | None = None
    expert_capacity: int | None = None
    slots: int | None = None
    zero_padding: bool = False
    quantize: Any = None
    inactive: tuple[int, ...] = ()  # ranks that take no part
    count_load: bool = False
    two_phase: bool = False
    call_blocks: int = 0
    rows: str | None = None  # type of the combined rows, where it is not combine_dtype
    wire: str | None = None  # of combine
    special: bool = False  # combined rows are random bits: NaN, infinities, subnormals
    rounds: int = 2

    def __str__(self) -> str:
        return self.name

    @property
    def packed(self) -> bool:
        return self.dtype in ("uint8", "float4_e2m1fn_x2")


def table(*cases: Case) -> dict[str, Case]:
    rows = {case.name: case for case in cases}
    if len(rows) != len(cases):
        raise ValueError("two cases have the same name")
    return rows


def expert_map(case: Case, world_size: int) -> tuple[Any, ...]:
    """What the dispatcher is told, or what it must take by itself (blocks, the first ones larger)."""
    experts = range(case.experts)
    if case.placement == "replicated":  # each on one or two ranks, the first on all
        some = tuple(tuple({e % world_size, (e * e + 1) % world_size}) for e in experts)
        return (tuple(range(world_size)), *some[1:])
    if case.placement == "everywhere":
        return tuple(tuple(range(world_size)) for _ in experts)
    if case.placement == "one-rank":
        return tuple(world_size - 1 for _ in experts)
    if case.placement == "interleaved":
        return tuple(e % world_size for e in experts)
    if case.placement == "scattered":
        return tuple(zlib.crc32(bytes([e % 256, e // 256])) % world_size for e in experts)
    sizes = [(case.experts + world_size - 1 - r) // world_size for r in range(world_size)]
    return tuple(r for r, size in enumerate(sizes) for _ in range(size))


def make(ctx: Any, case: Case, **changes: Any) -> Dispatcher:
    scales = None if case.scales is None else (case.scales[0], getattr(torch, case.scales[1]))
    placed = None if case.placement == "blocks" else expert_map(case, ctx.world_size)
    arguments = {
        "topk": case.topk, "max_tokens": case.max_tokens, "dtype": getattr(torch, case.dtype), "scales": scales,
        "combine_dtype": None if case.combine_dtype is None else getattr(torch, case.combine_dtype),
        "capacity": case.capacity, "expert_map": placed, "blocks": case.blocks, "warps": case.warps,
        "layout": case.layout, "align": case.align, "expert_capacity": case.expert_capacity, "slots": case.slots,
        "zero_padding": case.zero_padding,
        "quantize": case.quantize, "count_load": case.count_load,
    } | changes  # fmt: skip
    return Dispatcher(ctx, case.hidden, case.experts, **arguments)


def _generator(case: Case, *of: int) -> torch.Generator:
    return torch.Generator().manual_seed(zlib.crc32(repr((case.name, *of)).encode()))


def _bits(rows: int, columns: int, dtype: torch.dtype, generator: torch.Generator) -> torch.Tensor:
    raw = torch.randint(0, 256, (rows, columns * dtype.itemsize), generator=generator, dtype=torch.uint8)
    return raw.view(dtype)


def tokens_of(case: Case, rank: int, round_: int = 0) -> Tokens:
    """What `rank` sends in a round."""
    generator = _generator(case, rank, round_)
    count = case.tokens[(rank + round_) % len(case.tokens)]
    order = torch.rand(count, case.experts, generator=generator)
    if case.routing == "hot":
        order = torch.arange(case.experts, 0, -1.0).expand(count, -1)
    ids = order.argsort(dim=1, descending=True)[:, : case.topk]
    masked = torch.rand(ids.shape, generator=generator) < case.masked
    if case.routing == "sparse":
        masked |= torch.rand(count, 1, generator=generator) < 0.6
    if case.routing == "nowhere":
        masked |= True
    scales = None
    if case.scales is not None:
        scales = _bits(count, case.scales[0], getattr(torch, case.scales[1]), generator)
    x = _bits(count, case.hidden // 2 if case.packed else case.hidden, getattr(torch, case.dtype), generator)
    if case.quantize is not None and not case.special:  # magnitudes from tiny to large, rows of zeros
        spread = torch.exp2(torch.randint(-30, 20, (count, 1), generator=generator).float())
        x = (torch.randn(count, case.hidden, generator=generator) * spread).to(x.dtype)
        x[torch.rand(count, generator=generator) < 0.1] = 0
    return Tokens(
        x=x,
        topk_ids=ids.masked_fill(masked, -1).to(getattr(torch, case.ids)).contiguous(),
        topk_weights=torch.randn(count, case.topk, generator=generator) if case.weights else None,
        scales=scales,
    )


def rows_dtype(case: Case) -> torch.dtype:
    plain = case.dtype if case.dtype in ("bfloat16", "float16", "float32") else "bfloat16"
    return getattr(torch, case.rows or case.combine_dtype or plain)


def returned_rows(case: Case, rank: int, count: int, round_: int = 0) -> torch.Tensor:
    """What `rank` gives to combine: any rows will do, dispatch has been compared by itself."""
    generator = _generator(case, 1000 + rank, round_)
    if case.special:
        return _bits(count, case.hidden, rows_dtype(case), generator)
    return torch.randn(count, case.hidden, generator=generator).to(rows_dtype(case))


def compare_received(recv: Any, expected: reference.Expected) -> list[str]:
    """Names what differs in a result of dispatch in the layout `rank`."""
    return _differences(recv, expected, ("x", "topk_ids", "topk_weights", "scales", "src"))


def _differences(recv: Any, expected: reference.Expected, names: tuple[str, ...]) -> list[str]:
    got = recv.trim()
    wrong = [first_difference(name, getattr(got, name), getattr(expected, name)) for name in names]
    wrong.append(first_difference("counts", recv.counts, expected.counts))
    if int(recv.total) != len(expected.src):
        wrong.append(f"total is {int(recv.total)}, wanted {len(expected.src)}")
    return [text for text in wrong if text]


def narrowed(sent: list[Tokens], quantize: Any) -> list[Tokens]:
    """What travels, where dispatch narrows rows."""
    recipe = recipe_of(quantize)
    if recipe is None:
        return sent
    return [Tokens(*_pair(reference.quantize(t.x, recipe), t)) for t in sent]


def _pair(rows_and_scales: tuple[torch.Tensor, torch.Tensor], t: Tokens) -> tuple[Any, ...]:
    rows, scales = rows_and_scales
    return rows, t.topk_ids, t.topk_weights, scales


def compare_arranged(
    recv: Any, expected: reference.Expected, case: Case, placed: tuple[Any, ...], rank: int
) -> tuple[list[str], reference.Arranged]:
    """Names what differs in a result of dispatch in a layout by expert; and what was expected."""
    wrong = _differences(recv, expected, ("topk_ids", "topk_weights", "src"))
    experts = reference.local_experts(placed, rank)
    capacity = recv.x.shape[1] if case.layout == "expert" else 0
    want = reference.arrange(expected, experts, layout=case.layout, expert_capacity=capacity, align=case.align or 1)
    got = recv.trim()
    x, scales, slot_rows = got.x.cpu(), got.scales, want.slot_rows
    if scales is not None:
        scales = scales.cpu().contiguous()
    if case.layout == "expert":  # what lies behind an expert's rows is unspecified
        for index, count in enumerate(want.counts.tolist()):
            wrong.append(first_difference(f"x[{index}]", x[index, :count], want.x[index, :count]))
            if scales is not None and want.scales is not None:
                wrong.append(first_difference(f"scales[{index}]", scales[index, :count], want.scales[index, :count]))
        by_expert = [x_.cpu() for x_ in recv.by_expert()]
        if [len(rows) for rows in by_expert] != want.counts.tolist():
            wrong.append(f"by_expert() gives {[len(rows) for rows in by_expert]}, wanted {want.counts.tolist()}")
    else:
        used = slice(None) if case.zero_padding else slot_rows >= 0
        wrong.append(first_difference("x", as_bits(x)[used], as_bits(want.x)[used]))
        if scales is not None and want.scales is not None:
            wrong.append(first_difference("scales", as_bits(scales)[used], as_bits(want.scales)[used]))
        wrong.append(first_difference("offsets", recv.expert_offsets, want.offsets))
        if int(recv.expert_offsets[-1]) != len(slot_rows):
            wrong.append("the groups do not end where they should")
    wrong.append(first_difference("expert_counts", recv.expert_counts, want.counts.int()))
    wrong.append(first_difference("routes", recv.routes[: len(want.routes)], want.routes))
    return [text for text in wrong if text], want


def run_case(
    ctx: Any,
    case: Case,
    *,
    before: Callable[[Dispatcher], None] = lambda moe: None,
    pause: Callable[[], None] = lambda: None,
) -> str:
    """What went wrong, or nothing. Collective. `before` is called once, `pause` before each call."""
    world, rank, device = ctx.world_size, ctx.rank, ctx.device
    placed = expert_map(case, world)
    active = None if not case.inactive else frozenset(range(world)) - frozenset(case.inactive)
    mask = None if active is None else torch.tensor([sum(1 << r for r in active)], device=device)
    if active is not None and rank not in active:
        with make(ctx, case) as moe:
            before(moe)
            for _ in range(case.rounds):
                settle(ctx, moe, torch.Size((0, case.hidden)), rows_dtype(case))
        return ""
    wrong: list[str] = []
    load = torch.zeros(case.experts, dtype=torch.int64)

    def here(tensor: torch.Tensor | None) -> torch.Tensor | None:
        return None if tensor is None else tensor.to(device)

    with make(ctx, case) as moe:
        before(moe)
        for round_ in range(case.rounds):
            sent = [tokens_of(case, r, round_) for r in range(world)]
            mine = sent[rank]
            matrix = reference.counts(sent, placed, active)
            all_expected = [reference.dispatch(narrowed(sent, case.quantize), r, placed, active) for r in range(world)]
            like = (len(mine.x), case.hidden)
            bias = torch.randn(like, generator=_generator(case, 77, rank)).to(rows_dtype(case)) if case.bias else None
            out = torch.full(like, float("nan"), dtype=rows_dtype(case)).to(device) if case.out else None
            x, ids, weights, scales, bias_here = map(
                here, (mine.x, mine.topk_ids, mine.topk_weights, mine.scales, bias)
            )
            settle(ctx, moe, torch.Size(like), rows_dtype(case))
            pause()
            options = {"active": mask, "blocks": case.call_blocks}
            if case.two_phase:
                pending = moe.dispatch_send(x, ids, weights, scales=scales, **options)
                pause()
                recv = moe.dispatch_recv(pending)
            else:
                recv = moe.dispatch(x, ids, weights, scales=scales, **options)
            expected = all_expected[rank]
            returned, weighted = [], case.apply_weights
            if case.layout == "rank":
                wrong += [f"round {round_}: {text}" for text in compare_received(recv, expected)]
                returned = [returned_rows(case, r, int(matrix[:, r].sum()), round_) for r in range(world)]
                rows = returned[rank]
            else:
                texts, _ = compare_arranged(recv, expected, case, placed, rank)
                wrong += [f"round {round_}: {text}" for text in texts]
                capacity = recv.x.shape[1] if case.layout == "expert" else 0
                for r in range(world):
                    local = reference.local_experts(placed, r)
                    want = reference.arrange(
                        all_expected[r], local, layout=case.layout, expert_capacity=capacity, align=case.align or 1
                    )
                    outputs = returned_rows(case, r, len(want.slot_rows), round_)
                    if r == rank:
                        rows = outputs.view(*want.x.shape[:-1], case.hidden)
                    by_row = all_expected[r].topk_weights if case.apply_weights else None
                    returned.append(reference.gather_rows(want, outputs, by_row))
                weighted = False  # where the experts are
            pause()
            options |= {"apply_weights": case.apply_weights, "bias": bias_here, "out": out, "wire": case.wire}
            if case.two_phase:
                sums = moe.combine_send(rows.to(device), recv.routing, **options)
                pause()
                y = moe.combine_recv(sums)
            else:
                y = moe.combine(rows.to(device), recv.routing, **options)
            ctx.synchronize()
            if out is not None and y.data_ptr() != out.data_ptr():
                wrong.append(f"round {round_}: the result is not out")
            wanted = reference.combine(
                sent, rank, placed, returned, apply_weights=weighted, bias=bias, active=active, wire=case.wire
            )
            text = first_difference("y", y, wanted, any_nan=True)
            wrong += [f"round {round_}: {text}"] if text else []
            chosen = mine.topk_ids[reference.holders(mine.topk_ids, placed, rank, active) >= 0].long()
            load += torch.bincount(chosen, minlength=case.experts)
            if case.count_load:
                text = first_difference("load", moe.load, load)
                wrong += [f"round {round_}: {text}"] if text else []
    return "; ".join(wrong)


def settle(ctx: Any, moe: Dispatcher, like: torch.Size, dtype: torch.dtype) -> None:
    """On a GPU: takes from the driver beforehand what the calls will allocate. Several ranks may share it, and an
    allocation of one would wait for the kernel of another, which waits for a call of the first."""
    if ctx.device.type == "cpu":
        return
    kept = [torch.empty(moe.routing_bytes, dtype=torch.uint8, device=ctx.device) for _ in range(3)]
    kept.append(torch.empty(like, dtype=dtype, device=ctx.device))
    del kept
    torch.cuda.current_stream().synchronize()
    ctx.mesh.barrier("settle")


def open_context(rank: int, world_size: int, uid: bytes, **options: Any) -> Any:
    """A CPU context with guarded memory and a deadline that a loaded machine keeps."""
    options = {"device": "cpu", "timeout": 30.0, "heap_bytes": 4 * MIB, "debug": True} | options
    return mori.init(uid=uid, rank=rank, world_size=world_size, **options)


def run_table(rank: int, world_size: int, uid: bytes, cases: Mapping[str, Case]) -> dict[str, str]:
    """Every case of a table by one rank; a case that raises is told like one that differs."""
    outcome = {}
    with open_context(rank, world_size, uid) as ctx:
        for name, case in cases.items():
            try:
                outcome[name] = run_case(ctx, case)
            except Exception:
                outcome[name] = traceback.format_exc()
    return outcome


@functools.lru_cache(maxsize=1)
def _outcomes(cases: tuple[Case, ...], world_size: int, mode: str, lanes: int) -> list[dict[str, str]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MORI_CPU_LANES", str(lanes))
        rows = {case.name: case for case in cases}
        return run_ranks(run_table, world_size, rows, mode=mode, timeout=100)


def check(cases: Mapping[str, Case], name: str, world_size: int, *, mode: str = "process", lanes: int = 1) -> None:
    """Fails with what each rank found wrong in one row of the table. Parametrise so that the name changes fastest."""
    outcome = _outcomes(tuple(cases.values()), world_size, mode, lanes)
    wrong = [f"rank {rank}: {by_name[name]}" for rank, by_name in enumerate(outcome) if by_name[name]]
    assert not wrong, "\n".join(wrong)
