# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""What one run of `mori bench ep` measures: its arguments, checked before any process starts, and the row
formats.

A row is what one token sends to one rank: `hidden` elements plus, for the narrow formats, their scales.
FORMATS is the one table of them. Nothing here needs torch.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ..errors import ConfigError

__all__ = ["DEVICES", "FORMATS", "MAX_RANKS", "MAX_TOPK", "RECORDED", "EpSettings", "Format", "one_of", "within"]

MAX_RANKS = 64
MAX_TOPK = 32
ROUTINGS = ("uniform", "zipf", "hot")
PEERS = ("gloo", "mpi", "nccl", "deepep_v1", "deepep_v2", "flashinfer")
GPU_PEERS = ("nccl", "deepep_v1", "deepep_v2", "flashinfer")
DEVICES = ("cpu", "cuda")
LAYOUTS = ("rank", "expert", "grouped")

#: The routing used when none is named. tools/record_routing.py made it.
RECORDED = Path(__file__).with_name("data") / "deepseek_v3_small.npz"


@dataclasses.dataclass(frozen=True)
class Format:
    """How a row's elements lie in memory. `combine` is the format in which the experts' results go back."""

    name: str
    torch_dtype: str
    bits: int
    combine: str
    scale_block: int = 0  # elements that share one scale; 0: no scales
    scale_width: int = 0  # bytes of one scale

    def payload_bytes(self, hidden: int) -> int:
        return hidden * self.bits // 8

    def scale_bytes(self, hidden: int) -> int:
        return -(-hidden // self.scale_block) * self.scale_width if self.scale_block else 0

    def row_bytes(self, hidden: int) -> int:
        """Payload and scales: the bytes that count as one row."""
        return self.payload_bytes(hidden) + self.scale_bytes(hidden)


FORMATS = {
    row.name: row
    for row in (
        Format("bf16", "bfloat16", 16, "bf16"),
        Format("fp16", "float16", 16, "fp16"),
        Format("fp32", "float32", 32, "fp32"),
        Format("fp8", "float8_e4m3fn", 8, "bf16", scale_block=128, scale_width=4),
        Format("fp4", "float4_e2m1fn_x2", 4, "bf16", scale_block=32, scale_width=1),
    )
}


@dataclasses.dataclass(frozen=True)
class EpSettings:
    """Arguments of `mori bench ep`, refused with ConfigError where they cannot be run."""

    ranks: int = 8
    device: str = "cpu"
    tokens: int = 256  # per rank
    hidden: int = 7168  # elements per token
    topk: int = 8
    experts: int = 256
    dtype: str = "bf16"
    layout: str = "rank"
    align: int = 1  # of groups, in rows
    quantize: str = ""  # a name of mori.ep.RECIPES: dispatch narrows rows itself
    blocks: int = 0  # at most so many blocks (SMs) a call; 0: chosen
    flush: bool = False  # the GPU's cache before each single call
    trace: str = ""  # file for the times of all blocks in one dispatch and one combine
    routing: str = ""  # uniform, zipf, hot, or the path of an .npz; empty: the recorded one shipped with MoRI
    iters: int = 20
    warmup: int = 3
    graph: bool = False
    peers: tuple[str, ...] = ()
    timeout_s: float = 120.0  # for the whole run
    seed: int = 1

    def __post_init__(self) -> None:
        within("ranks", self.ranks, 1, MAX_RANKS)
        within("tokens", self.tokens, 1, 1 << 24)
        within("hidden", self.hidden, 1, 1 << 20)
        within("experts", self.experts, 1, 1 << 15)
        within("topk", self.topk, 1, MAX_TOPK)
        within("iters", self.iters, 1, 1_000_000)
        within("warmup", self.warmup, 0, 1_000_000)
        one_of("device", self.device, DEVICES)
        one_of("dtype", self.dtype, tuple(FORMATS))
        one_of("layout", self.layout, LAYOUTS)
        within("align", self.align, 1, 1 << 16)
        within("blocks", self.blocks, 0, 512)
        for peer in self.peers:
            one_of("peers", peer, PEERS)
        self._check_quantize()
        if self.align != 1 and self.layout == "rank":
            raise ConfigError(f"align={self.align} belongs to layout expert or grouped, not rank")
        if not self.timeout_s > 0:
            raise ConfigError(f"timeout={self.timeout_s:g} must be more than 0 seconds")
        if self.topk > self.experts:
            raise ConfigError(f"topk={self.topk} exceeds experts={self.experts}; each token can visit an expert once")
        if self.experts < self.ranks:
            raise ConfigError(f"experts={self.experts} is less than ranks={self.ranks}; each rank holds at least one")
        if self.payload_bytes % 16:
            raise ConfigError(
                f"hidden={self.hidden} makes {self.dtype} rows of {self.hidden * self.format.bits / 8:g} "
                "bytes; rows must be a multiple of 16 bytes, so hidden a multiple of "
                f"{128 // self.format.bits}"
            )
        if self.graph and self.device != "cuda":
            raise ConfigError("graph needs device=cuda; a CPU has no graphs")
        if self.flush and self.device != "cuda":
            raise ConfigError("flush needs device=cuda")
        for peer in self.peers:
            if peer in GPU_PEERS and self.device != "cuda":
                raise ConfigError(f"peers={peer} needs device=cuda")
        if self.routing not in ("", *ROUTINGS) and not Path(self.routing).is_file():
            raise ConfigError(f"routing={self.routing!r} is neither {', '.join(ROUTINGS)} nor an existing .npz file")

    def _check_quantize(self) -> None:
        if not self.quantize:
            return
        from ..ep._recipe import RECIPES

        one_of("quantize", self.quantize, tuple(RECIPES))
        if self.format.scale_block:
            raise ConfigError(f"quantize={self.quantize!r} with dtype={self.dtype!r}: narrowed are bf16, fp16 and fp32")
        group = RECIPES[self.quantize].group
        if group and self.hidden % group:
            raise ConfigError(f"hidden={self.hidden} with quantize={self.quantize!r} must be a multiple of {group}")

    @property
    def format(self) -> Format:
        """Of the tokens that dispatch is given."""
        return FORMATS[self.dtype]

    @property
    def wire(self) -> Format:
        """Of the rows that travel."""
        if not self.quantize:
            return self.format
        from ..ep._recipe import ELEMENTS, RECIPES

        recipe = RECIPES[self.quantize]
        element = ELEMENTS[recipe.element]
        return Format(
            f"fp{element.bits}", element.torch_dtype, element.bits, self.format.combine,
            scale_block=recipe.group or self.hidden, scale_width=4 if recipe.scale == "float32" else 1,
        )  # fmt: skip

    @property
    def label(self) -> str:
        """Of a dispatch's type in a table."""
        return f"{self.dtype}>{self.quantize}" if self.quantize else self.dtype

    @property
    def payload_bytes(self) -> int:
        """Of a token that dispatch is given."""
        return self.format.payload_bytes(self.hidden) if self.hidden * self.format.bits % 8 == 0 else -1

    @property
    def combine_format(self) -> Format:
        return FORMATS[self.format.combine]

    @property
    def routing_file(self) -> Path | None:
        if self.routing in ROUTINGS:
            return None
        return Path(self.routing) if self.routing else RECORDED


def within(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ConfigError(f"{name}={value} is outside {low} to {high}")


def one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"{name}={value!r} is not one of {', '.join(allowed)}")
