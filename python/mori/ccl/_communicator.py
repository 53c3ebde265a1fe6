# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""`Communicator`: the collectives of mori.ccl. docs/ccl_guide.md is the guide, docs/ccl.md tells how they work."""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from mori._same import check_same
from mori.ccl import _fused, _ops
from mori.ccl._kinds import Algorithm, Op, algorithm, check_wire, element_types, reduction
from mori.ccl._launch import MOST_MEMBERS, Aliases, Call, Launcher, Prepared, Sizes
from mori.ccl._zero_cu import ZeroCu
from mori.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from mori.context import Context

__all__ = ["Communicator"]

#: symmetric memory, and the largest messages in bytes that go by packets and in one shot, by device kind
_CPU_SIZES, _GPU_SIZES = Sizes(4, 1 << 20, 1 << 10), Sizes(32, 1 << 18, 1 << 10)
_CPU_LIMITS, _GPU_LIMITS = (0, 1 << 12), (1 << 16, 1 << 18)
#: from how many bytes on symmetric operands are read in place: below, a second meeting costs more than a copy
_CPU_IN_PLACE, _GPU_IN_PLACE = 1 << 14, 1 << 16
_MOST_KNOWN = 4096  # kinds of calls
_WIRE_PART_BYTES = 256  # 128 elements of 2 bytes: mori::ccl::kPartElements


class Communicator:
    """Some ranks of a context that call collectives together, in the same order. Not thread-safe.

    Collective over the whole context, also for ranks outside of `ranks` (an ordered list of ranks of the context, by
    default all; at most 64), who cannot call anything afterwards. `chunk_bytes` is the size of a staging buffer, of
    which each of `blocks` blocks has three; `zero_cu_bytes` that of the staging for calls with zero_cu=True, which need
    it; every rank gives the same. Attributes: `rank` (number among the members,
    -1 outside), `size`, `ranks`, `ctx`.

    Tensors are contiguous, on the context's device, of any alignment and length, in ordinary or symmetric memory. Calls
    are queued on torch's current stream and can be captured in CUDA graphs; on the CPU they have happened on return.
    Wrong arguments raise ConfigError before anything is launched; a dead rank PeerLost, a late one TimeoutError, here
    or at the next call.
    """

    def __init__(
        self,
        ctx: Context,
        *,
        ranks: Sequence[int] | None = None,
        chunk_bytes: int | None = None,
        blocks: int | None = None,
        zero_cu_bytes: int = 0,
    ) -> None:
        import torch

        ctx.ready()
        members = list(range(ctx.world_size)) if ranks is None else [int(rank) for rank in ranks]
        if not members or len(set(members)) != len(members) or not all(0 <= r < ctx.world_size for r in members):
            raise ConfigError(f"ranks={members} must be different ranks of 0..{ctx.world_size - 1}")
        if len(members) > MOST_MEMBERS:
            raise ConfigError(f"ranks has {len(members)} members; allowed are {MOST_MEMBERS}")
        if ctx.transport != "p2p":
            raise ConfigError(f"transport={ctx.transport!r}: mori.ccl reaches peers by load and store ('p2p') only")
        usual = _CPU_SIZES if ctx.synchronous else _GPU_SIZES
        for name, value in (("chunk_bytes", chunk_bytes), ("blocks", blocks)):
            if value is not None and value < 1:
                raise ConfigError(f"{name}={value} must be positive")
        if zero_cu_bytes < 0:
            raise ConfigError(f"zero_cu_bytes={zero_cu_bytes} must not be negative")
        sizes = Sizes(blocks or usual.blocks, chunk_bytes or usual.chunk_bytes, usual.packet_words)
        agreed = {"ranks": members, "chunk_bytes": chunk_bytes, "blocks": blocks, "zero_cu_bytes": zero_cu_bytes}
        check_same(ctx.mesh, "mori.ccl.Communicator", agreed, timeout=ctx.timeout)
        self.ctx, self.ranks, self.size = ctx, tuple(members), len(members)
        self._launcher = Launcher(ctx, members, sizes.rounded(len(members)))
        self.rank = self._launcher.index
        self._zero_cu = ZeroCu(ctx, members, zero_cu_bytes) if zero_cu_bytes else None
        self._device, self._tensor_type, self._element_types = ctx.device, torch.Tensor, element_types()
        self._limits = _CPU_LIMITS if ctx.synchronous else _GPU_LIMITS
        self._in_place = _CPU_IN_PLACE if ctx.synchronous else _GPU_IN_PLACE
        self._known: dict[tuple[Any, ...], Prepared] = {}
        self._synchronous = ctx.synchronous

    @functools.cached_property
    def number(self) -> int:
        """By which torch.ops.mori.ccl_* know it, see mori.ccl.register_ops."""
        return _ops.enlist(self)

    def all_reduce(
        self,
        x: torch.Tensor,
        *,
        op: str = "sum",
        out: torch.Tensor | None = None,
        algorithm: str = "auto",
        wire: str | None = None,
    ) -> torch.Tensor:
        """The sum of all members' `x`, of equal shape and dtype, on every member: the same bits everywhere, by every
        algorithm. `op`: "sum", "avg", "min", "max", "prod". `out`: a fresh tensor, or `x` itself for in place.
        `algorithm`: "auto", "one_shot", "two_shot" or "ll", which is for elements of up to 4 bytes.

        `wire`: "fp8" (e4m3fn), "int8", "int6" or "int4" sends codes with an fp32 scale for every 128 elements (int6 and
        int4: 64) in place of bf16 or fp16: fewer bytes, and an error that docs/ccl_guide.md states. Sums and averages
        only."""
        self._check("x", x)
        out = self._result(x, out, x.shape)
        key = "all_reduce", x.dtype, x.numel(), op, algorithm, wire
        self._run(self._known.get(key) or self._prepare_all_reduce(key, x, op, algorithm, wire), x, out)
        return out

    def all_reduce_rms_norm(
        self,
        x: torch.Tensor,
        residual: torch.Tensor | None,
        weight: torch.Tensor,
        *,
        eps: float = 1e-6,
        quantize: str | None = None,
        algorithm: str = "auto",
        out: torch.Tensor | None = None,
        residual_out: torch.Tensor | None = None,
    ) -> tuple[Any, torch.Tensor]:
        """`(normed, new residual)` in one launch: the new residual is all_reduce(x) + residual, normed is its RMSNorm
        over the last dimension, times `weight`. The same bits as these calls one after the other (docs/ccl_fused.md).

        `x`, `residual` [..., hidden], `weight` [hidden]: bf16, fp16 or fp32, all alike; hidden is a multiple of 8.
        residual=None: there is none. Residual and weight are equal on all members. `quantize`: "fp8" gives
        `((codes, scales), new residual)`, e4m3fn with an fp32 scale for every row [..., 1], "fp8_block" one for every
        128 elements. `out` (may be `x`) and `residual_out` (may be `residual`): where results go. `algorithm`: "auto",
        "one_shot", "two_shot": the same bits. Can be captured in a graph."""
        return _fused.all_reduce_rms_norm(self, x, residual, weight, eps, quantize, algorithm, out, residual_out)

    def reduce(
        self, x: torch.Tensor, root: int = 0, *, op: str = "sum", out: torch.Tensor | None = None
    ) -> torch.Tensor | None:
        """As all_reduce, on member `root` only; None elsewhere, where `out` is left alone."""
        self._check_sum("x", x)
        self._check_root(root)
        result = self._result(x, out, x.shape) if self.rank == root else None
        self._sum(Op.reduce, op, x, x if result is None else result, x.numel(), root)
        return result

    def reduce_scatter(self, x: torch.Tensor, *, op: str = "sum", out: torch.Tensor | None = None) -> torch.Tensor:
        """The part of this member of the sum: `x` is [size * n, ...], the result [n, ...]; `out` may be that part."""
        self._check_sum("x", x)
        out = self._result(x, out, self._part("x", x))
        self._sum(Op.reduce_scatter, op, x, out, out.numel())
        return out

    def all_gather(self, x: torch.Tensor, *, out: torch.Tensor | None = None, zero_cu: bool = False) -> torch.Tensor:
        """All members' `x`, [n, ...] of equal shape, in a row: [size * n, ...]. `x` may be its part of `out`.

        `zero_cu`, here and below: by copies and stream memory operations, with no kernel (docs/ccl_zero_cu.md)."""
        self._check("x", x)
        out = self._result(x, out, self._whole(x))
        self._move(Op.all_gather, x, out, x, zero_cu=zero_cu)
        return out

    def gather(
        self, x: torch.Tensor, root: int = 0, *, out: torch.Tensor | None = None, zero_cu: bool = False
    ) -> torch.Tensor | None:
        """As all_gather, on member `root` only; None elsewhere."""
        self._check("x", x)
        self._check_root(root)
        result = self._result(x, out, self._whole(x)) if self.rank == root else None
        self._move(Op.gather, x, x if result is None else result, x, root, zero_cu=zero_cu)
        return result

    def broadcast(self, x: torch.Tensor, root: int = 0, *, zero_cu: bool = False) -> torch.Tensor:
        """Fills every member's `x`, of equal size, with that of member `root`. In place."""
        self._check("x", x)
        self._check_root(root)
        self._move(Op.broadcast, x, x, x, root, zero_cu=zero_cu)
        return x

    def scatter(
        self, x: torch.Tensor | None, out: torch.Tensor, root: int = 0, *, zero_cu: bool = False
    ) -> torch.Tensor:
        """Part i of `x`, [size * n, ...], which only `root` gives, into `out`, [n, ...], of member i."""
        self._check("out", out)
        self._check_root(root)
        if self.rank == root:
            if x is None:
                raise ConfigError("x=None on the root of a scatter; it must be a tensor")
            self._check_tensor("x", x)
            self._check_shape("out", out, self._part("x", x), x.dtype)
        self._move(Op.scatter, out if x is None or self.rank != root else x, out, out, root, zero_cu=zero_cu)
        return out

    def all_to_all(
        self,
        x: torch.Tensor,
        *,
        out: torch.Tensor | None = None,
        send: Sequence[int] | None = None,
        receive: Sequence[int] | None = None,
        zero_cu: bool = False,
    ) -> torch.Tensor:
        """Part i of `x` to member i; the result has the part from member j as its part j.

        Without splits parts are equal, [size * n, ...], and `out` may be `x`. With `send` and `receive`, the rows
        (along dimension 0) for and from each member, they may differ, and be 0; `out` must not overlap `x` then. What a
        member sends must be what the other receives: ConfigError on the receiver otherwise. Splits travel to the device
        at the call, so with them a call cannot be captured."""
        self._check("x", x)
        if send is None and receive is None:
            self._part("x", x)
            out = self._result(x, out, x.shape)
            self._move(Op.all_to_all, x, out, x, parts=self.size, zero_cu=zero_cu)
            return out
        if zero_cu:
            raise ConfigError("zero_cu=True is for equal parts, without send and receive")
        splits, rows = self._splits(x, send, receive)
        out = self._result(x, out, (rows, *x.shape[1:]))
        if x.numel() and out.data_ptr() < _end(x) and x.data_ptr() < _end(out):
            raise ConfigError("out overlaps x; with splits they must be apart")
        call = Call(Op.all_to_all, nbytes=max(_bytes(x), _bytes(out)), split=True)
        self._launcher.start_with_splits(call, x.data_ptr(), out.data_ptr(), splits.data_ptr())
        return out

    def barrier(self) -> None:
        """Returns (on a GPU: lets the stream go on) when all members have called it."""
        self._check_member()
        prepared = self._known.get(("barrier",)) or self._learn(("barrier",), Call(Op.barrier))
        self._start(prepared, 0, 0)

    def __repr__(self) -> str:
        return f"<mori.ccl.Communicator member {self.rank} of {self.size} on {self.ctx.device}>"

    # Launching.

    def _run(self, prepared: Prepared, x: torch.Tensor, out: torch.Tensor) -> None:
        self._start(prepared, x.data_ptr(), out.data_ptr())

    def _start(self, prepared: Prepared, source: int, dest: int) -> None:
        stream = 0 if self._synchronous else self.ctx.stream()
        if not prepared.run(stream, source, dest) and self._synchronous:
            self.ctx.check()

    def _learn(self, key: tuple[Any, ...], call: Call, aliases: Aliases | None = None) -> Prepared:
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        in_place = aliases is not None and call.nbytes >= self._in_place and self.size > 1
        self._known[key] = prepared = self._launcher.prepare(call, aliases if in_place else None)
        return prepared

    def _prepare_all_reduce(
        self, key: tuple[Any, ...], x: torch.Tensor, op: str, algorithm: str, wire: str | None
    ) -> Prepared:
        self._check_sum("x", x)
        nbytes = _bytes(x)
        if wire is not None:
            check_wire(wire, x.dtype, op, algorithm)
            least = _WIRE_PART_BYTES * self.size
            if self._chunk_bytes < least:
                raise ConfigError(f"wire={wire!r} needs chunk_bytes of {least}; there are {self._chunk_bytes}")
            two_shot = Call(Op.all_reduce, x.numel(), nbytes, x.dtype, reduction(op), Algorithm.two_shot, wire=wire)
            return self._learn(key, two_shot)
        chosen = self._choose(algorithm, x)
        call = Call(Op.all_reduce, x.numel(), nbytes, x.dtype, reduction(op), chosen)
        if chosen is Algorithm.ll:
            return self._learn(key, call)
        halves = chosen is Algorithm.two_shot
        return self._learn(key, call, Aliases(nbytes, nbytes, own=0 if halves else None, shares_dest=halves))

    def _sum(self, op: Op, how: str, x: torch.Tensor, out: torch.Tensor, count: int, root: int = 0) -> None:
        """reduce, reduce_scatter."""
        key = op.name, x.dtype, count, how, root
        prepared = self._known.get(key)
        if prepared is None:
            call = Call(op, count, _bytes(x), x.dtype, reduction(how), Algorithm.one_shot, root)
            part = count * x.element_size()
            if op is Op.reduce:
                aliases = Aliases(part, part, puts=self.rank != root, writes=self.rank == root)
            else:
                aliases = Aliases(part * self.size, part, own=self.rank * part)
            prepared = self._learn(key, call, aliases)
        self._run(prepared, x, out)

    def _move(
        self,
        op: Op,
        x: torch.Tensor,
        out: torch.Tensor,
        part: torch.Tensor,
        root: int = 0,
        parts: int = 1,
        zero_cu: bool = False,
    ) -> None:
        count = _bytes(part) // parts
        if zero_cu:
            if self._zero_cu is None:
                raise ConfigError("zero_cu=True needs staging: make the communicator with zero_cu_bytes")
            return self._zero_cu.run(op, x.data_ptr(), out.data_ptr(), count, root)
        key = op.name, count, root
        prepared = self._known.get(key)
        if prepared is None:
            whole, mine, is_root = count * self.size, count * self.rank, self.rank == root
            aliases = {
                Op.all_gather: Aliases(count, whole, own=-mine),
                Op.all_to_all: Aliases(whole, whole),
                Op.broadcast: Aliases(count, count, puts=is_root, own=0),
                Op.scatter: Aliases(whole if is_root else count, count, puts=is_root, own=mine),
                Op.gather: Aliases(count, whole if is_root else count, puts=not is_root, writes=is_root),
            }[op]
            prepared = self._learn(key, Call(op, count, whole, root=root), aliases)
        self._run(prepared, x, out)

    # Choosing.

    @property
    def _chunk_bytes(self) -> int:
        return self._launcher.sizes.chunk_bytes

    def _choose_shots(self, name: str, x: torch.Tensor) -> Algorithm:
        """Of what has no packets."""
        asked = algorithm(name)
        if asked is Algorithm.ll:
            raise ConfigError("algorithm='ll' is for all_reduce; allowed are auto, one_shot, two_shot")
        shots = Algorithm.one_shot if _bytes(x) <= self._limits[1] or self.size == 1 else Algorithm.two_shot
        return shots if asked is None else asked

    def _choose(self, name: str, x: torch.Tensor) -> Algorithm:
        asked = algorithm(name)
        packets, one_shot = self._limits
        if asked is Algorithm.ll and x.element_size() > 4:
            raise ConfigError(f"algorithm='ll' is for elements of up to 4 bytes; x is {x.dtype}")
        if asked is not None:
            return asked
        nbytes = _bytes(x)
        if nbytes <= packets and x.element_size() <= 4:
            return Algorithm.ll
        return Algorithm.one_shot if nbytes <= one_shot or self.size == 1 else Algorithm.two_shot

    # Checking.

    def _check_member(self) -> None:
        if self.rank < 0:
            raise ConfigError(f"rank {self.ctx.rank} is not a member: ranks={list(self.ranks)}")
        self.ctx.ready()

    def _check_tensor(self, name: str, tensor: torch.Tensor) -> None:
        if not isinstance(tensor, self._tensor_type):
            raise ConfigError(f"{name} must be a torch tensor, got {type(tensor).__name__}")
        if tensor.device != self._device:
            raise ConfigError(f"{name} is on {tensor.device}, the context on {self._device}")
        if not tensor.is_contiguous():
            raise ConfigError(f"{name} has strides {tuple(tensor.stride())}; it must be contiguous")

    def _check_operand(
        self, name: str, tensor: torch.Tensor, shape: Sequence[int] | None = None, dtype: Any = None
    ) -> None:
        self._check(name, tensor)
        if shape is not None:
            self._check_shape(name, tensor, shape, dtype)

    def _check(self, name: str, tensor: torch.Tensor) -> None:
        """Of the first tensor of a call."""
        self._check_member()
        self._check_tensor(name, tensor)

    def _check_sum(self, name: str, tensor: torch.Tensor) -> None:
        self._check(name, tensor)
        if tensor.dtype not in self._element_types:
            raise ConfigError(f"{name} is {tensor.dtype}; allowed: {_names(self._element_types)}")

    def _check_root(self, root: int) -> None:
        if isinstance(root, bool) or not isinstance(root, int) or not 0 <= root < self.size:
            raise ConfigError(f"root={root!r} is not a member: 0..{self.size - 1}")

    def _check_shape(self, name: str, tensor: torch.Tensor, shape: Sequence[int], dtype: Any) -> None:
        if tensor.dtype != dtype or tensor.shape != shape:
            raise ConfigError(f"{name} is {tensor.dtype} {tuple(tensor.shape)}; wanted {dtype} {tuple(shape)}")

    def _result(self, x: torch.Tensor, out: torch.Tensor | None, shape: Sequence[int]) -> torch.Tensor:
        if out is None:
            return x.new_empty(shape)
        if out is not x:
            self._check_tensor("out", out)
        self._check_shape("out", out, shape, x.dtype)
        return out

    def _part(self, name: str, x: torch.Tensor) -> tuple[int, ...]:
        if x.dim() == 0 or x.shape[0] % self.size:
            raise ConfigError(f"{name} has shape {tuple(x.shape)}; dimension 0 must be a multiple of {self.size}")
        return (x.shape[0] // self.size, *x.shape[1:])

    def _whole(self, x: torch.Tensor) -> tuple[int, ...]:
        return (self.size * x.shape[0], *x.shape[1:]) if x.dim() else (self.size,)

    def _splits(
        self, x: torch.Tensor, send: Sequence[int] | None, receive: Sequence[int] | None
    ) -> tuple[torch.Tensor, int]:
        """mori::CclArgs::splits on the device, and how many rows come in."""
        import torch

        if send is None or receive is None:
            raise ConfigError("send and receive must both be given, or neither")
        if x.dim() == 0:
            raise ConfigError("x has no dimension to split")
        row = math.prod(x.shape[1:]) * x.element_size()
        table: list[int] = []
        for name, rows in (("send", send), ("receive", receive)):
            if len(rows) != self.size or any(n < 0 for n in rows):
                raise ConfigError(f"{name}={list(rows)} must be {self.size} numbers, none negative")
            sizes = [int(n) * row for n in rows]
            table += [sum(sizes[:i]) for i in range(self.size)] + sizes
        if sum(send) != x.shape[0]:
            raise ConfigError(f"send={list(send)} has a sum of {sum(send)}; x has {x.shape[0]} rows")
        return torch.tensor(table, dtype=torch.int64, device=x.device), sum(receive)


def _bytes(x: torch.Tensor) -> int:
    return x.numel() * x.element_size()


def _end(x: torch.Tensor) -> int:
    return x.data_ptr() + _bytes(x)


def _names(dtypes: Collection[Any]) -> str:
    return ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
