# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""One-sided operations that the host starts: put, get, signals, atomics, waits, ordering."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mori.errors import ConfigError
from mori.shmem._check import Checks, whole
from mori.shmem._kinds import ANY_PE, Op, bits, comparison, signal_operation, value_of
from mori.shmem._launch import Launcher, Stream

if TYPE_CHECKING:
    import torch

    from mori.context import Context

__all__ = ["Operations"]

_BIG_BYTES = 128 << 10  # from here on a GPU's copy engine is faster than one block of a kernel


class Operations:
    """In every call `pe` is a rank, this one included. `dst` or `src` is *symmetric* where it says so: this rank's own
    tensor out of `Shmem.empty()`, or a contiguous part of one, standing for the same place on every rank; the other is
    any contiguous tensor of the device.

    `stream`: None for torch's current stream, a torch.cuda.Stream, or a handle. On a GPU a call queues its work there
    and can be captured in a graph; what goes wrong is raised by a later call, or by `ctx.synchronize()`. On the CPU
    there is no stream: a call has happened when it returns, and raises itself. All raise ConfigError for arguments that
    cannot be right, before anything is sent, and TimeoutError or PeerLost naming the rank when a wait fails."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._checks = Checks(ctx)
        self._launcher = Launcher(ctx)
        self._closed = False

    # Moving.

    def put(self, dst: torch.Tensor, src: torch.Tensor, pe: int, *, stream: Stream = None) -> None:
        """Writes `src` to `pe`'s copy of `dst` (symmetric, same dtype and number of elements). Orders nothing: see
        fence() and quiet(). Capturable."""
        pe, to, source, nbytes = self._transfer(dst, src, "dst", pe)
        if nbytes == 0:
            return
        if self._is_big(nbytes):
            return self._copy(self._ctx.heap.peer_tensor(dst, pe), src, stream)
        self._launcher.keep(stream, src)
        self._launcher.start(Op.put, stream, dest=to, source=source, count=nbytes, pe=pe, lends=(source, nbytes))

    def get(self, dst: torch.Tensor, src: torch.Tensor, pe: int, *, stream: Stream = None) -> None:
        """Reads `pe`'s copy of `src` (symmetric) into `dst`, of the same dtype and number of elements. Capturable."""
        pe, to, source, nbytes = self._transfer(dst, src, "src", pe)
        if nbytes == 0:
            return
        if self._is_big(nbytes):
            return self._copy(dst, self._ctx.heap.peer_tensor(src, pe), stream)
        self._launcher.keep(stream, dst)
        self._launcher.start(Op.get, stream, dest=to, source=source, count=nbytes, pe=pe, lends=(to, nbytes))

    def put_signal(
        self,
        dst: torch.Tensor,
        src: torch.Tensor,
        signal: torch.Tensor,
        value: int,
        pe: int,
        *,
        op: Any = "set",
        stream: Stream = None,
    ) -> None:
        """put(), and then signal_op() on `signal`: who waits for the signal sees the data. With 0 elements it only
        signals. Capturable."""
        pe, to, source, nbytes = self._transfer(dst, src, "dst", pe)
        address, _ = self._checks.word("signal", signal, "signal")
        word, option = _signal_value(value), signal_operation(op)
        if self._is_big(nbytes):
            self._copy(self._ctx.heap.peer_tensor(dst, pe), src, stream)
            return self._launcher.start(Op.signal_op, stream, dest=address, value=word, option=option, pe=pe)
        self._launcher.keep(stream, src)
        self._launcher.start(
            Op.put_signal,
            stream,
            dest=to,
            source=source,
            count=nbytes,
            signal=address,
            value=word,
            option=option,
            pe=pe,
            lends=(source, nbytes),
        )

    # Signals: one-element int64 or uint64 tensors, compared as unsigned numbers.

    def signal_op(self, signal: torch.Tensor, value: int, pe: int, *, op: Any = "set", stream: Stream = None) -> None:
        """Sets `pe`'s copy of `signal` (symmetric, one int64 or uint64) to `value`, or adds `value` to it (op="add"),
        behind this rank's earlier work on the stream. Capturable."""
        pe = self._begin(pe)
        address, _ = self._checks.word("signal", signal, "signal")
        self._launcher.start(
            Op.signal_op, stream, dest=address, value=_signal_value(value), option=signal_operation(op), pe=pe
        )

    def signal_fetch(
        self, signal: torch.Tensor, *, out: torch.Tensor | None = None, stream: Stream = None
    ) -> int | None:
        """The value of this rank's own copy of `signal`, read with acquire. Into `out` (int64 or uint64, one element:
        capturable), or returned after waiting for the stream."""
        self._ready()
        address, _ = self._checks.word("signal", signal, "signal")
        to = self._checks.out(out, *self._signal_dtypes())
        if out is None:
            return self._launcher.fetch(Op.signal_fetch, stream, dest=address)
        self._launcher.keep(stream, out)
        self._launcher.start(Op.signal_fetch, stream, dest=address, out=to)
        return None

    def signal_wait_until(
        self, signal: torch.Tensor, cmp: Any, value: int, *, from_pe: int | None = None, stream: Stream = None
    ) -> None:
        """Holds the stream (on the CPU: the caller) until this rank's copy of `signal` compares so with `value`: cmp is
        "eq", "ne", "gt", "ge", "lt", "le" or its sign. What the signal's setter put before it can be read behind it.
        `from_pe`: who sets it, for the error's words. Ends with the context's timeout. Capturable."""
        self._ready()
        address, _ = self._checks.word("signal", signal, "signal")
        word, option, pe = _signal_value(value), comparison(cmp), self._from(from_pe)
        self._launcher.start(Op.signal_wait_until, stream, dest=address, value=word, option=option, pe=pe)

    def wait_until(
        self, tensor: torch.Tensor, cmp: Any, value: int, *, from_pe: int | None = None, stream: Stream = None
    ) -> None:
        """signal_wait_until() for a symmetric int32, int64, uint32 or uint64 of one element, compared as its dtype is
        signed. Capturable."""
        self._ready()
        address, kind = self._checks.word("tensor", tensor, "wait")
        word, option, pe = bits(tensor.dtype, "value", value), comparison(cmp), self._from(from_pe)
        self._launcher.start(Op.wait_until, stream, dest=address, value=word, option=option, type=kind, pe=pe)

    def test(
        self, tensor: torch.Tensor, cmp: Any, value: int, *, out: torch.Tensor | None = None, stream: Stream = None
    ) -> bool | None:
        """Whether wait_until() would return at once. Into `out` (bool or uint8, one element: capturable), or returned
        after waiting for the stream."""
        import torch

        self._ready()
        address, kind = self._checks.word("tensor", tensor, "wait")
        word, option = bits(tensor.dtype, "value", value), comparison(cmp)
        to = self._checks.out(out, torch.bool, torch.uint8)
        if out is None:
            return bool(self._launcher.fetch(Op.test, stream, dest=address, value=word, option=option, type=kind))
        self._launcher.keep(stream, out)
        self._launcher.start(Op.test, stream, dest=address, value=word, option=option, type=kind, out=to)
        return None

    # Atomics on one element of `pe`'s copy: int32, int64, uint32, uint64; fetch, set, swap, add also float32, float64.

    def atomic_set(self, dst: torch.Tensor, value: float, pe: int, *, stream: Stream = None) -> None:
        """dst = value. Capturable, as all atomics without a result or with `out`."""
        self._atomic(Op.atomic_set, "amo", dst, pe, value, stream=stream)

    def atomic_add(self, dst: torch.Tensor, value: float, pe: int, *, stream: Stream = None) -> None:
        """dst += value; integers wrap."""
        self._atomic(Op.atomic_fetch_add, "amo", dst, pe, value, stream=stream)

    def atomic_inc(self, dst: torch.Tensor, pe: int, *, stream: Stream = None) -> None:
        """dst += 1."""
        self._atomic(Op.atomic_fetch_add, "amo", dst, pe, 1, stream=stream)

    def atomic_and(self, dst: torch.Tensor, value: int, pe: int, *, stream: Stream = None) -> None:
        """dst &= value; integers only, as or and xor."""
        self._atomic(Op.atomic_fetch_and, "bitwise amo", dst, pe, value, stream=stream)

    def atomic_or(self, dst: torch.Tensor, value: int, pe: int, *, stream: Stream = None) -> None:
        """dst |= value."""
        self._atomic(Op.atomic_fetch_or, "bitwise amo", dst, pe, value, stream=stream)

    def atomic_xor(self, dst: torch.Tensor, value: int, pe: int, *, stream: Stream = None) -> None:
        """dst ^= value."""
        self._atomic(Op.atomic_fetch_xor, "bitwise amo", dst, pe, value, stream=stream)

    def atomic_fetch(
        self, dst: torch.Tensor, pe: int, *, out: torch.Tensor | None = None, stream: Stream = None
    ) -> float | None:
        """The value of `pe`'s copy. As of all fetching atomics: into `out` (one element of dst's dtype: capturable), or
        returned as a Python number after waiting for the stream."""
        return self._fetching(Op.atomic_fetch, "amo", dst, pe, 0, out, stream)

    def atomic_swap(
        self, dst: torch.Tensor, value: float, pe: int, *, out: torch.Tensor | None = None, stream: Stream = None
    ) -> float | None:
        """dst = value; gives what it was."""
        return self._fetching(Op.atomic_swap, "amo", dst, pe, value, out, stream)

    def atomic_compare_swap(
        self,
        dst: torch.Tensor,
        cond: int,
        value: int,
        pe: int,
        *,
        out: torch.Tensor | None = None,
        stream: Stream = None,
    ) -> float | None:
        """dst = value if it equals `cond`; gives what it was. Integers only."""
        return self._fetching(Op.atomic_compare_swap, "bitwise amo", dst, pe, value, out, stream, cond)

    def atomic_fetch_add(
        self, dst: torch.Tensor, value: float, pe: int, *, out: torch.Tensor | None = None, stream: Stream = None
    ) -> float | None:
        """dst += value; gives what it was."""
        return self._fetching(Op.atomic_fetch_add, "amo", dst, pe, value, out, stream)

    def atomic_fetch_inc(
        self, dst: torch.Tensor, pe: int, *, out: torch.Tensor | None = None, stream: Stream = None
    ) -> float | None:
        """dst += 1; gives what it was."""
        return self._fetching(Op.atomic_fetch_add, "amo", dst, pe, 1, out, stream)

    def atomic_fetch_and(
        self, dst: torch.Tensor, value: int, pe: int, *, out: torch.Tensor | None = None, stream: Stream = None
    ) -> float | None:
        """dst &= value; gives what it was."""
        return self._fetching(Op.atomic_fetch_and, "bitwise amo", dst, pe, value, out, stream)

    def atomic_fetch_or(
        self, dst: torch.Tensor, value: int, pe: int, *, out: torch.Tensor | None = None, stream: Stream = None
    ) -> float | None:
        """dst |= value; gives what it was."""
        return self._fetching(Op.atomic_fetch_or, "bitwise amo", dst, pe, value, out, stream)

    def atomic_fetch_xor(
        self, dst: torch.Tensor, value: int, pe: int, *, out: torch.Tensor | None = None, stream: Stream = None
    ) -> float | None:
        """dst ^= value; gives what it was."""
        return self._fetching(Op.atomic_fetch_xor, "bitwise amo", dst, pe, value, out, stream)

    # Ordering.

    def fence(self, *, stream: Stream = None) -> None:
        """This rank's earlier puts, signals and atomics on the stream arrive at each rank before its later ones.
        Capturable."""
        self._ready()
        self._launcher.start(Op.fence, stream)

    def quiet(self, *, stream: Stream = None) -> None:
        """This rank's earlier operations on the stream are complete at their targets before what follows.
        Capturable."""
        self._ready()
        self._launcher.start(Op.quiet, stream)

    # What they have in common.

    def _ready(self) -> None:
        if self._closed:
            raise ConfigError("the Shmem is closed")
        self._ctx.ready()

    def _begin(self, pe: int) -> int:
        self._ready()
        return self._checks.pe(pe)

    def _transfer(self, dst: torch.Tensor, src: torch.Tensor, symmetric: str, pe: int) -> tuple[int, int, int, int]:
        """PE, addresses of dst and src, bytes."""
        pe = self._begin(pe)
        to = self._checks.symmetric("dst", dst) if symmetric == "dst" else self._checks.tensor("dst", dst)
        source = self._checks.symmetric("src", src) if symmetric == "src" else self._checks.tensor("src", src)
        self._checks.alike(dst, src)
        return pe, to, source, dst.numel() * dst.element_size()

    def _is_big(self, nbytes: int) -> bool:
        return nbytes >= _BIG_BYTES and not self._ctx.synchronous and self._ctx.transport == "p2p"

    def _copy(self, to: torch.Tensor, source: torch.Tensor, stream: Stream) -> None:
        """By a copy engine, in stream order."""
        self._launcher.keep(stream, to, source)
        with self._launcher.on(stream):
            to.copy_(source.view(to.shape), non_blocking=True)

    def _from(self, pe: int | None) -> int:
        return int(ANY_PE) if pe is None else self._checks.pe(pe, "from_pe")

    def _signal_dtypes(self) -> tuple[torch.dtype, ...]:
        import torch

        return (torch.int64, torch.uint64)

    def _atomic(
        self,
        op: Any,
        family: str,
        dst: torch.Tensor,
        pe: int,
        value: float,
        *,
        stream: Stream,
        out: int = 0,
        cond: int = 0,
    ) -> None:
        self._launcher.start(op, stream, out=out, **self._operands(family, dst, pe, value, cond))

    def _operands(self, family: str, dst: torch.Tensor, pe: int, value: float, cond: int) -> dict[str, Any]:
        pe = self._begin(pe)
        address, kind = self._checks.word("dst", dst, family)
        return {
            "dest": address,
            "type": kind,
            "pe": pe,
            "value": bits(dst.dtype, "value", value),
            "condition": bits(dst.dtype, "cond", cond),
        }

    def _fetching(
        self,
        op: Any,
        family: str,
        dst: torch.Tensor,
        pe: int,
        value: float,
        out: torch.Tensor | None,
        stream: Stream,
        cond: int = 0,
    ) -> float | None:
        operands = self._operands(family, dst, pe, value, cond)
        to = self._checks.out(out, dst.dtype)
        if out is None:
            return value_of(dst.dtype, self._launcher.fetch(op, stream, **operands))
        self._launcher.keep(stream, out)
        self._launcher.start(op, stream, out=to, **operands)
        return None


def _signal_value(value: int) -> int:
    return whole("value", value, 0, 2**64 - 1)
