# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""A communicator's symmetric memory, and one launch of the kernels in src/ops/ccl."""

from __future__ import annotations

import dataclasses
import struct
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from mori import _core
from mori.ccl._kinds import WIRES, Algorithm, Op, Reduction, element_types, norm_types, quantised_types

if TYPE_CHECKING:
    from mori.context import Context

__all__ = ["MOST_MEMBERS", "Aliases", "Call", "Launcher", "Prepared", "Sizes"]

MOST_MEMBERS = 64  # mori::kCclMembers
_HEAD = struct.Struct("<7Q")  # mori::CclArgs behind its World: signals .. packet_words
_WHERE = struct.Struct("<6Q")  # source .. splits
_TAIL = struct.Struct("<Q6I64s")  # digest .. ranks
_NORM_BYTES = 48  # of mori::CclNormArgs behind its CclArgs
_ALIKE = struct.Struct("<IIIIQI")
_GRAIN = 16
_LANES = 512  # the kernels' launch bound
_LANE_BYTES = 64  # of a block's part, before more warps are worth while


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Of a communicator's symmetric memory; the same on all ranks."""

    blocks: int  # most of a launch
    chunk_bytes: int  # of a staging buffer, of which a block has three
    packet_words: int  # 4 bytes of payload each, of a block

    def rounded(self, members: int) -> Sizes:
        grain = _GRAIN * members
        return dataclasses.replace(self, chunk_bytes=-(-self.chunk_bytes // grain) * grain)


class Call(NamedTuple):
    """All of a collective but where its operands are."""

    op: Op
    amount: int = 0  # elements of a part; bytes where there is no dtype
    nbytes: int = 0  # that a member sends or gets in all
    dtype: Any = None
    reduction: Reduction = Reduction.sum
    algorithm: Algorithm = Algorithm.one_shot
    root: int = 0
    split: bool = False
    wire: str = ""


class Aliases(NamedTuple):
    """Of a member in a collective: what peers may read in place, docs/ccl.md."""

    source_bytes: int
    dest_bytes: int
    puts: bool = True  # peers read the source
    writes: bool = True  # dest, while they do
    own: int | None = None  # dest - source where they overlap and may
    shares_dest: bool = False  # peers read results there


class Prepared:
    """A collective of one kind, dtype and size."""

    def __init__(self, launch: Any, aliases: Aliases | None, window: tuple[int, int]) -> None:
        self.launch, self._aliases, self._window = launch, aliases, window

    def run(self, stream: int, source: int, dest: int) -> bool:
        """Queues it; on the CPU it has happened. Whether the context is clean afterwards."""
        if self._aliases is None:
            return bool(self.launch.run(stream, source, dest, 0, 0))
        return bool(self.launch.run(stream, source, dest, *self._homes(self._aliases, source, dest)))

    def _homes(self, aliases: Aliases, source: int, dest: int) -> tuple[int, int]:
        begin, end = self._window
        source_end, dest_end = source + aliases.source_bytes, dest + aliases.dest_bytes
        there = 1 + dest - begin if aliases.shares_dest and begin <= dest and dest_end <= end else 0
        if not aliases.puts:
            return 1, there  # nobody reads it
        if source < begin or source_end > end:
            return 0, there
        if aliases.writes and source < dest_end and dest < source_end and dest - source != aliases.own:
            return 0, there
        return 1 + source - begin, there


class Launcher:
    """One rank's. `members` are ranks of the context, this one among them."""

    def __init__(self, ctx: Context, members: Sequence[int], sizes: Sizes) -> None:
        n = len(members)
        self.ctx, self.sizes, self.members = ctx, sizes, n
        self._device = ctx.core_device
        parts = (  # of CclArgs, in its order: signals, told, counters, staging, packets
            sizes.blocks * n * 8,
            sizes.blocks * 2 * 3 * n * 8,
            sizes.blocks * 2 * 8,
            sizes.blocks * 3 * sizes.chunk_bytes,
            sizes.blocks * 2 * n * sizes.packet_words * 8,
        )
        self._memory = ctx.heap.allocate(sum(-(-part // 256) * 256 for part in parts), purpose="ccl", fill=0)
        places, at = [], int(self._memory.offset)
        for part in parts:
            places.append(at)
            at += -(-part // 256) * 256
        self.index = members.index(ctx.rank) if ctx.rank in members else -1
        self._head: bytes = ctx.core.world + _HEAD.pack(*places, sizes.chunk_bytes, sizes.packet_words)
        self._ranks = bytes(members)
        self._lanes = int(self._device.properties.warp_size)
        #: of a block that is to have all lanes of the kernels' launch bound, or only one
        self.full_warps = 1 if ctx.synchronous and self._lanes == 1 else _LANES // self._lanes
        self._args_bytes = len(self._head) + _WHERE.size + _TAIL.size
        begin = ctx.heap.address(self._memory) - int(self._memory.offset)
        self._window = begin, begin + int(ctx.heap.core.reserve_bytes)
        self._move = self._function("ccl_move", "ccl_move")
        self._sums = {dtype: self._function(e.unit, e.kernel) for dtype, e in element_types().items()}
        self._narrow = {
            (wire, dtype): self._function(f"ccl_quantised_{name}", f"ccl_{wire}_{name}")
            for dtype, name in quantised_types().items()
            for wire in WIRES
        }
        self.norms = {
            dtype: self._device.function("ccl_norm", f"ccl_norm_{name}", self._args_bytes + _NORM_BYTES)
            for dtype, name in norm_types().items()
        }
        self.blocks = self._agreed_blocks()

    def _function(self, unit: str, kernel: str) -> Any:
        return self._device.function(unit, kernel, self._args_bytes)

    def _agreed_blocks(self) -> int:
        """Collective over the context. The most blocks that every rank can launch, of any kernel."""
        mine = self.sizes.blocks
        if not self.ctx.synchronous:
            functions = (self._move, *self._sums.values(), *self._narrow.values(), *self.norms.values())
            mine = min(mine, *(self.ctx.core.resident_blocks(f, _LANES // self._lanes, 16) for f in functions))
        mine = min(mine, self.ctx.default_blocks or mine)
        answers = self.ctx.mesh.exchange("ccl.blocks", mine.to_bytes(4, "little"), timeout=self.ctx.timeout)
        return min(int.from_bytes(answer.payload, "little") for answer in answers)

    def prepare(self, call: Call, aliases: Aliases | None = None) -> Prepared:
        """`aliases`: where peers may read in place; None stages."""
        function, shape, tail = self._prepare(call)
        args = self.args(tail, 0, 0, call.amount)
        launch = _core.PreparedLaunch(self.ctx.core, function, shape, args, len(self._head))
        return Prepared(launch, aliases, self._window)

    def start_with_splits(self, call: Call, source: int, dest: int, splits: int) -> None:
        """Queues a collective. On the CPU it has happened, or raises, when this returns."""
        function, shape, tail = self._prepare(call)
        self.launch(function, shape, self.args(tail, source, dest, call.amount, splits))

    def launch(self, function: Any, shape: Any, args: bytes) -> None:
        self._device.launch(function, shape, self.ctx.stream(), args)
        if self.ctx.synchronous:
            self.ctx.check()

    def args(self, tail: bytes, source: int, dest: int, amount: int, splits: int = 0) -> bytes:
        """mori::CclArgs."""
        return self._head + _WHERE.pack(source, dest, 0, 0, amount, splits) + tail

    def tail(self, alike: bytes, op: Op, reduction: Reduction, algorithm: Algorithm, root: int = 0) -> bytes:
        """What of CclArgs is not an address. `alike`: all that the members must call alike."""
        digest = zlib.crc32(alike) + 1
        return _TAIL.pack(digest, op, reduction, algorithm, root, self.index, self.members, self._ranks)

    def _prepare(self, call: Call) -> tuple[Any, Any, bytes]:
        """Function, shape, and the end of the arguments."""
        function = self._move if call.dtype is None else self._sums[call.dtype]
        kind = 0 if call.dtype is None else element_types()[call.dtype].number
        if call.wire:
            function = self._narrow[call.wire, call.dtype]
            kind += 100 * (1 + WIRES.index(call.wire))
        warps = min(self.full_warps, max(1, -(-call.nbytes // _LANE_BYTES) // self._lanes))
        least = 1 << 16 if call.algorithm is not Algorithm.ll else 4 * _LANES
        # with splits members have different amounts, and must launch the same number of blocks
        blocks = self.blocks if call.split else max(1, min(self.blocks, -(-call.nbytes // least)))
        alike = (call.op, call.reduction, call.algorithm, call.root, 0 if call.split else call.amount, kind)
        tail = self.tail(_ALIKE.pack(*alike), call.op, call.reduction, call.algorithm, call.root)
        return function, _core.LaunchShape(blocks, warps, 16), tail
