# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Starts one operation of the kernels in src/shmem/shmem_host.kernel.cpp, in stream order."""

from __future__ import annotations

import contextlib
import ctypes
import struct
import threading
from typing import TYPE_CHECKING, Any

from mori import _core
from mori._fabric import lent
from mori.errors import ConfigError
from mori.shmem._kinds import REDUCTIONS, Op

if TYPE_CHECKING:
    import torch

    from mori.context import Context

__all__ = ["NO_TEAM", "Launcher", "Stream"]

Stream = Any  # None, a stream's handle, or a torch.cuda.Stream

_ARGS = struct.Struct("<40s40s7Q4I")  # mori::ShmemHostArgs
NO_TEAM = bytes(40)
_MOVES = {int(op) for op in (Op.put, Op.get, Op.put_signal)}
_COLLECTS = {int(op): op.name for op in (Op.broadcast, Op.fcollect, Op.alltoall)}
_REDUCTIONS = {int(op) for name, op in Op.__members__.items() if name.startswith("reduce_")}
_MEETINGS = {int(op) for op in (Op.sync, Op.barrier)}
_LANE_BYTES = 64  # of a move, before more warps are worth while
_MOVE_LANES, _MEETING_LANES, _REDUCE_LANES = 512, 256, 512  # the kernels' launch bounds


class Launcher:
    """One rank's. Threads may share it."""

    def __init__(self, ctx: Context) -> None:
        self._ctx, self._device = ctx, ctx.core_device
        self._world: bytes = ctx.core.world
        self._move, self._word = self._function("move"), self._function("word")
        self._collects = {code: self._function(name) for code, name in _COLLECTS.items()}
        self._reduce = {kind: self._function(f"reduce_{name}") for kind, name in REDUCTIONS.items()}
        self._lanes = int(self._device.properties.warp_size)
        self._result = self._device.allocate_host(64)
        self._one_at_a_time = threading.Lock()

    def start(
        self,
        op: Any,
        stream: Stream,
        *,
        team: bytes = NO_TEAM,
        dest: int = 0,
        source: int = 0,
        count: int = 0,
        signal: int = 0,
        out: int = 0,
        value: int = 0,
        condition: int = 0,
        type: int = 0,
        pe: int = 0,
        option: int = 0,
        width: int = 1,
        lends: tuple[int, int] = (0, 0),
    ) -> None:
        """Queues an operation; on the CPU it has happened, or raises, when this returns. `width` is what `count`
        counts, in bytes; `lends` is memory that a NIC may have to read or write, which
        need not be symmetric: address and bytes."""
        code = int(op)
        if code in _MOVES or code in _COLLECTS:
            function, warps = (
                self._collects.get(code, self._move),
                self._warps(count * width // _LANE_BYTES, _MOVE_LANES),
            )
        elif code in _REDUCTIONS:
            function, warps = self._reduce[type], self._warps(count * width // _LANE_BYTES, _REDUCE_LANES)
        else:
            function = self._word
            warps = self._warps(self._ctx.world_size, _MEETING_LANES) if code in _MEETINGS else 1
        args = _ARGS.pack(self._world, team, dest, source, count, signal, out, value, condition, code, type, pe, option)
        shape = _core.LaunchShape(1, warps, 16)
        fabric = self._ctx.heap.fabric
        with contextlib.nullcontext() if fabric is None else lent(fabric, *lends):
            self._device.launch(function, shape, self.handle(stream), args)
        if self._ctx.synchronous:
            self._ctx.check()

    def fetch(self, op: Any, stream: Stream, **operands: Any) -> int:
        """The word that the operation gives, after waiting for the stream."""
        self.may_wait(stream)
        with self._one_at_a_time:
            word = ctypes.c_uint64.from_address(self._result.host)
            word.value = 0
            self.start(op, stream, out=self._result.device, **operands)
            self.finish(stream)
            return int(word.value)

    def finish(self, stream: Stream) -> None:
        """Waits for the stream, and raises what its kernels recorded."""
        self._device.synchronize(self.handle(stream))
        self._ctx.check()

    def handle(self, stream: Stream) -> int:
        """The driver's handle of what a caller gave for a stream."""
        if stream is None:
            return self._ctx.stream()
        if self._ctx.synchronous:
            raise ConfigError(f"stream={stream!r}: calls on the CPU have no stream; leave it out")
        handle = getattr(stream, "cuda_stream", stream)
        if isinstance(handle, bool) or not isinstance(handle, int) or handle < 0:
            raise ConfigError(f"stream={stream!r} is neither a torch.cuda.Stream nor a stream's handle")
        return handle

    def on(self, stream: Stream) -> contextlib.AbstractContextManager[Any]:
        """Makes torch's calls go to the stream."""
        if stream is None:
            return contextlib.nullcontext()
        import torch

        if not isinstance(stream, torch.cuda.Stream):
            external: Any = torch.cuda.ExternalStream
            stream = external(self.handle(stream), device=self._ctx.device)
        return torch.cuda.stream(stream)

    def keep(self, stream: Stream, *tensors: torch.Tensor | None) -> None:
        """Keeps torch from giving the tensors' memory away before the stream has used it."""
        if stream is None or self._ctx.synchronous:
            return
        import torch

        with self.on(stream):
            current = torch.cuda.current_stream()
            for tensor in tensors:
                if tensor is not None:
                    tensor.record_stream(current)

    def may_wait(self, stream: Stream) -> None:
        """Refuses to wait while a graph is captured."""
        if self._ctx.synchronous:
            return
        import torch

        with self.on(stream):
            if torch.cuda.is_current_stream_capturing():
                raise ConfigError("out=None: a value for the host cannot be captured in a graph; give out=")

    def close(self) -> None:
        self._device.free_host(self._result)

    def _function(self, name: str) -> Any:
        return self._device.function("shmem_host", f"shmem_host_{name}", _ARGS.size)

    def _warps(self, lanes: int, limit: int) -> int:
        if self._lanes == 1:
            return 1  # a lane of the fast CPU target does the whole warp's work
        return max(1, min(-(-lanes // self._lanes), limit // self._lanes))
