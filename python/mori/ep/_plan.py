# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The arguments of a Dispatcher, checked, and what follows from them: types, sizes, and the layout of its memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mori import _core
from mori.ep._experts import Placement, place
from mori.ep._recipe import Quantize, recipe_of
from mori.errors import ConfigError

if TYPE_CHECKING:
    import torch

__all__ = ["LAYOUTS", "Plan", "make_plan", "names", "value_types", "wire_of"]

#: As what combine may return rows of bfloat16.
WIRES = ("fp8", "fp8_block")
LAYOUTS = ("rank", "expert", "grouped")


@dataclasses.dataclass(frozen=True)
class Plan:
    """All of it equal on all ranks but for `placement.local(rank)`."""

    hidden: int
    num_experts: int
    topk: int
    max_tokens: int
    live_results: int
    dtype: torch.dtype  # of what dispatch takes
    received_dtype: torch.dtype
    row_elements: int  # of a received row, in received_dtype
    combine_dtype: torch.dtype
    scales: tuple[int, torch.dtype] | None  # that dispatch takes
    received_scales: tuple[int, torch.dtype] | None
    recipe: Quantize | None
    layout: str
    align: int
    capacity: int
    expert_capacity: int
    slots: int
    zero_padding: bool
    placement: Placement

    def core(self, world_size: int, *, guarded: bool = False) -> _core.EpConfig:
        """The same for the C++ side; with room for guards and stamps in debug mode."""
        import torch

        scale_bytes = 0
        if self.received_scales is not None:
            scale_bytes = self.received_scales[0] * self.received_scales[1].itemsize
        convert = _core.EpConvert(
            format=getattr(_core.EpFormat, self.recipe.element if self.recipe else "as_is"),
            element=_kinds(torch, _core.EpElement).get(self.dtype, _core.EpElement.bf16),
            scale=getattr(_core.EpScale, "ue8m0" if self.recipe and self.recipe.scale == "ue8m0" else "fp32"),
            group=(self.recipe.group or self.hidden) if self.recipe else 0,
            hidden=self.hidden,
            column_major=self.recipe is not None and self.recipe.column_major,
        )
        # Gradients of weights come back as rows of topk float32.
        weights_row = -(-self.topk // 4) * 16
        return _core.EpConfig(
            row_bytes=self.row_elements * self.received_dtype.itemsize,
            combine_row_bytes=max(self.hidden * self.combine_dtype.itemsize, weights_row),
            capacity=self.capacity,
            world_size=world_size,
            num_experts=len(self.placement.copy_rank),
            topk=self.topk,
            max_tokens=self.max_tokens,
            scale_bytes=scale_bytes,
            live_results=self.live_results,
            placement=getattr(_core.EpPlacement, self.layout),
            experts_per_rank=self.placement.most_on_a_rank,
            expert_capacity=self.expert_capacity,
            grouped_slots=self.slots if self.layout == "grouped" else 0,
            alignment=self.align,
            convert=convert,
            zero_padding=self.zero_padding,
            guarded=guarded,
        )

    def digest(self) -> dict[str, Any]:
        """What ranks compare."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "placement"}
        return {name: str(value) for name, value in fields.items()} | {"expert_map": str(self.placement.held_by)}


def make_plan(
    world_size: int,
    hidden: int,
    num_experts: int,
    *,
    topk: int,
    max_tokens: int,
    dtype: torch.dtype | None,
    combine_dtype: torch.dtype | None,
    scales: tuple[int, torch.dtype] | None,
    capacity: int | None,
    live_results: int,
    expert_map: Sequence[int | Sequence[int]] | None,
    layout: str,
    align: int | None,
    expert_capacity: int | None,
    slots: int | None,
    zero_padding: bool,
    quantize: Quantize | str | None,
) -> Plan:
    """Raises ConfigError naming the argument, its value and what is allowed."""
    import torch

    dtype = torch.bfloat16 if dtype is None else dtype
    for name in ("hidden", "num_experts", "topk", "max_tokens", "live_results"):
        _whole(name, locals()[name], 1, (1 << 31) - 1)
    if topk > num_experts:
        raise ConfigError(f"topk={topk} exceeds num_experts={num_experts}; a token can visit an expert once")
    values = value_types()
    recipe = recipe_of(quantize)
    if dtype not in _row_types(torch):
        raise ConfigError(f"dtype={dtype}: allowed are {names(_row_types(torch))}")
    if recipe is not None and dtype not in values:
        raise ConfigError(f"dtype={dtype} with quantize={recipe}: narrowed are only {names(values)}")
    if recipe is not None and scales is not None:
        raise ConfigError(f"scales={scales!r} with quantize={recipe}: its scales are made by dispatch")
    combine_dtype = combine_dtype or (dtype if dtype in values else torch.bfloat16)
    if combine_dtype not in values:
        raise ConfigError(f"combine_dtype={combine_dtype}: allowed are {names(values)}")
    received_dtype = dtype if recipe is None else recipe.dtype
    packed = received_dtype in _packed(torch)
    if packed and hidden % 2:
        raise ConfigError(f"hidden={hidden} must be even for packed fp4")
    row_elements = hidden // 2 if packed else hidden
    rows = [("a row", row_elements * received_dtype.itemsize), ("a combined row", hidden * combine_dtype.itemsize)]
    rows += [("a row of x", hidden * dtype.itemsize)] if recipe is not None else []
    for name, row_bytes in rows:
        if row_bytes % 16:
            raise ConfigError(f"hidden={hidden}: {name} has {row_bytes} bytes, it must be a multiple of 16")
    if recipe is not None and recipe.group and hidden % recipe.group:
        raise ConfigError(f"hidden={hidden} with quantize={recipe}: it must be a multiple of {recipe.group}")
    if scales is not None:
        good = isinstance(scales, tuple) and len(scales) == 2 and isinstance(scales[0], int)
        if not (good and 0 < scales[0] < 1 << 24 and isinstance(scales[1], torch.dtype)):
            raise ConfigError(f"scales={scales!r} must be (columns, dtype) with columns of 1 to 2^24 - 1")
    most_rows = world_size * max_tokens
    capacity = most_rows if capacity is None else capacity
    if not isinstance(capacity, int) or not 1 <= capacity < 1 << 32:
        raise ConfigError(f"capacity={capacity!r} must be a number of rows, 1 to 2^32 - 1")
    if not isinstance(zero_padding, bool) or (zero_padding and layout != "grouped"):
        raise ConfigError(f"zero_padding={zero_padding!r} with layout={layout!r}: True belongs to layout grouped")
    placement = place(expert_map, num_experts, world_size)
    align, expert_capacity, slots = _slots(
        layout, align, expert_capacity, slots, capacity, most_rows, topk, placement.most_on_a_rank
    )
    return Plan(
        hidden=hidden, num_experts=num_experts, topk=topk, max_tokens=max_tokens, live_results=live_results,
        dtype=dtype, received_dtype=received_dtype, row_elements=row_elements, combine_dtype=combine_dtype,
        scales=scales, recipe=recipe,
        received_scales=scales if recipe is None else (recipe.columns(hidden), recipe.scale_dtype),
        layout=layout, align=align, capacity=capacity, expert_capacity=expert_capacity, slots=slots,
        zero_padding=zero_padding, placement=placement,
    )  # fmt: skip


def _slots(
    layout: str,
    align: int | None,
    expert_capacity: int | None,
    slots: int | None,
    capacity: int,
    most_rows: int,
    topk: int,
    experts: int,
) -> tuple[int, int, int]:
    """(alignment, slots of an expert, slots in all) of a layout."""
    if layout not in LAYOUTS:
        raise ConfigError(f"layout={layout!r} is not one of {', '.join(LAYOUTS)}")
    for name, value, layouts in (
        ("align", align, ("expert", "grouped")),
        ("expert_capacity", expert_capacity, ("expert",)),
        ("slots", slots, ("grouped",)),
    ):
        if value is None:
            continue
        if layout not in layouts:
            raise ConfigError(f"{name}={value!r} belongs to layout={' or '.join(layouts)}, not {layout}")
        _whole(name, value, 1, (1 << 31) - 1)
    align = align or 1
    if layout == "rank":
        return 1, 0, capacity
    if layout == "expert":
        expert_capacity = -(-(expert_capacity or min(capacity, most_rows)) // align) * align
        total = expert_capacity * experts
    else:
        worst = capacity * min(topk, experts) + experts * (align - 1)
        total = slots if slots is not None else -(-worst // align) * align
        if total % align:
            raise ConfigError(f"slots={slots} must be a multiple of align={align}")
        expert_capacity = 0
    if total >= 1 << 31:
        raise ConfigError(f"layout={layout!r} would have {total} slots, less than 2^31 are allowed; lower capacity")
    return align, expert_capacity, total


def _whole(name: str, value: Any, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        limit = "2^31 - 1" if high == (1 << 31) - 1 else str(high)
        raise ConfigError(f"{name}={value!r} must be an integer of {low} to {limit}")


def value_types() -> dict[torch.dtype, Any]:
    """Types that can be added up, and the kernels' names for them."""
    import torch

    return _kinds(torch, _core.Element)


def wire_of(wire: str | None, dtype: torch.dtype, hidden: int) -> Any:
    """The kernels' name for what combine makes of rows on their way."""
    import torch

    if wire is None:
        return _core.EpWire.as_is
    if wire not in WIRES:
        raise ConfigError(f"wire={wire!r} is not one of None, {', '.join(WIRES)}")
    if dtype != torch.bfloat16:
        raise ConfigError(f"wire={wire!r} with rows of {dtype}: only bfloat16 is narrowed")
    if hidden % 16:
        raise ConfigError(f"wire={wire!r} with hidden={hidden}: it must be a multiple of 16")
    return getattr(_core.EpWire, wire)


def _kinds(torch_: Any, kinds: Any) -> dict[Any, Any]:
    return {torch_.bfloat16: kinds.bf16, torch_.float16: kinds.fp16, torch_.float32: kinds.fp32}


def _packed(torch_: Any) -> tuple[Any, ...]:
    """Types that hold two fp4 values in a byte."""
    return tuple(t for t in (torch_.uint8, getattr(torch_, "float4_e2m1fn_x2", None)) if t is not None)


def _row_types(torch_: Any) -> tuple[Any, ...]:
    plain = (torch_.bfloat16, torch_.float16, torch_.float32, torch_.float8_e4m3fn, torch_.float8_e4m3fnuz)
    return (*plain, *_packed(torch_))


def names(dtypes: Any) -> str:
    """Types as users read them."""
    return ", ".join(str(t).removeprefix("torch.") for t in dtypes)
