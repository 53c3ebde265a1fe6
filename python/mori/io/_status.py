# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""What Python adds to `TransferStatus`: exceptions, progress, `await`.

status.wait(timeout_s=5)        # raises what went wrong, TimeoutError if it is not over by then
status.raise_()                 # raises if it failed
await status                    # in an event loop; cancelling the task cancels the transfer
"""

from __future__ import annotations

import asyncio
import math
import weakref
from collections.abc import Callable, Generator
from typing import Any

from mori._core import io as _io

from .. import errors

StatusCode = _io.StatusCode
TransferStatus = _io.TransferStatus

_CLASSES: dict[Any, type[errors.MoriError]] = {
    StatusCode.ERR_INVALID_ARGS: errors.ConfigError,
    StatusCode.ERR_TIMEOUT: errors.TimeoutError,
    StatusCode.ERR_PEER_LOST: errors.PeerLost,
}


def error_of(code: Any, message: str) -> errors.MoriError:
    """The exception for a failed status; its `code` is the `StatusCode`."""
    error = _CLASSES.get(code, errors.TransportError)(message or code.name)
    error.code = code  # type: ignore[attr-defined]
    return error


def raise_(self: Any) -> None:
    """Raises the transfer's failure: ConfigError, TimeoutError, PeerLost or TransportError, each with `.code`."""
    if self.Failed():
        raise error_of(self.Code(), self.Message())


def wait(
    self: Any,
    timeout_s: float | None = None,
    *,
    progress: Callable[[int, int], object] | None = None,
    interval_s: float = 0.1,
) -> None:
    """Waits until the transfer is over and raises its failure.

    After `timeout_s` it raises TimeoutError, and the transfer goes on. `progress(done_bytes, total_bytes)` is called
    every `interval_s` and at the end.
    """
    if timeout_s is not None and not timeout_s >= 0:
        raise errors.ConfigError(f"timeout_s={timeout_s} must not be negative")
    left_ms = -1 if timeout_s is None else math.ceil(timeout_s * 1e3)
    if progress is None:
        self.WaitFor(left_ms)
    else:
        step_ms = max(1, round(interval_s * 1e3))
        while not self.done() and left_ms != 0:
            step = step_ms if left_ms < 0 else min(step_ms, left_ms)
            self.WaitFor(step)
            left_ms = left_ms if left_ms < 0 else left_ms - step
            progress(self.bytes_done, self.bytes_total)
    if not self.done():
        raise errors.TimeoutError(
            f"the transfer is not over after {timeout_s} s ({self.bytes_done} of {self.bytes_total} bytes); it goes on",
            what="a transfer",
        )
    raise_(self)


class _Loop:
    """The completions of one event loop: an eventfd that the engine's threads write and the loop reads."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.completions = _io.Completions()
        self.pending: dict[int, asyncio.Future[None]] = {}
        self.next_id = 0
        loop.add_reader(self.completions.fileno(), self.read)

    def read(self) -> None:
        for name in self.completions.take():
            future = self.pending.pop(name, None)
            if future is not None and not future.done():
                future.set_result(None)


_loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Loop] = weakref.WeakKeyDictionary()


async def _finish(status: Any) -> None:
    if not status.done():
        loop = asyncio.get_running_loop()
        state = _loops.get(loop)
        if state is None:
            state = _loops[loop] = _Loop(loop)
        state.next_id += 1
        name = state.next_id
        future = state.pending[name] = loop.create_future()
        status._tell(state.completions, name)
        try:
            await asyncio.shield(future)
        except asyncio.CancelledError:
            # The memory belongs to the transfer until it is over: cancel it and stay until then.
            status.cancel()
            while not future.done():
                try:
                    await asyncio.shield(future)
                except asyncio.CancelledError:
                    continue
            raise
    raise_(status)


def _await(self: Any) -> Generator[Any, None, None]:
    """Waits in the running event loop and raises the transfer's failure."""
    return _finish(self).__await__()


TransferStatus.raise_ = raise_
TransferStatus.wait = wait
TransferStatus.__await__ = _await
