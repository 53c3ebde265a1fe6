# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""One rank's stop-watch: the host's clock for CPU ranks, events in the stream for GPU ranks.

clock = HostClock(SpinBarrier(ctx))
result = clock.time("dispatch", lambda: moe.dispatch(x, ids, weights))
clock.drop()                       # what was timed so far was warm-up
clock.spans()["dispatch"]          # ends all waiting
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, TypeVar

from ..errors import TimeoutError
from .statistics import Spans

__all__ = ["STEADY", "EventClock", "HostClock", "SpinBarrier", "repeated", "steady", "steady_rounds"]

#: Calls in one window of the steady rows: one CUDA graph has them all.
STEADY = 20

T = TypeVar("T")

_HOLD_CYCLES = 400_000  # about 0.2 ms a call: launching is quicker, with several ranks in one process too
_LONGEST_HOLD_CYCLES = 200_000_000  # about 0.1 s


def repeated(call: Callable[[], T]) -> Callable[[], T]:
    """The window of a steady row, where no graph holds it."""

    def window() -> T:
        for _ in range(STEADY - 1):
            call()
        return call()

    return window


def steady(
    clock: Any, windows: dict[str, Callable[[], Any]], iters: int, step: Callable[[], Any] | None = None
) -> tuple[dict[str, Spans], dict[str, Any]]:
    """A call's share of windows of `STEADY` calls, named "steady " and the window's name, and what each window
    returned last. `step` is called after each round of windows."""
    results: dict[str, Any] = {}
    clock.drop()
    rounds = steady_rounds(iters)
    for iteration in range(-2, rounds):
        if iteration == 0:
            clock.drop(steps=len(windows) * rounds)
        for name, window in windows.items():
            results[name] = clock.time(f"steady {name}", window)
        if step:
            step()
    found: dict[str, Spans] = clock.spans()
    return {name: value.divided(STEADY) for name, value in found.items()}, results


def steady_rounds(iters: int) -> int:
    """How often the windows of steady rows are timed in a run of `iters` iterations."""
    return max(3, min(20, iters))


class HostClock:
    """All ranks leave a barrier, then each notes when it starts and ends, on the clock they share."""

    def __init__(self, barrier: Callable[[], Any]) -> None:
        self._barrier = barrier
        self._marks: dict[str, list[tuple[int, int]]] = {}

    def time(self, name: str, operation: Callable[[], T]) -> T:
        self._barrier()
        start = time.monotonic_ns()
        result = operation()
        self._marks.setdefault(name, []).append((start, time.monotonic_ns()))
        self._barrier()  # what this rank does next would take the core of one that is still in the operation
        return result

    def drop(self, steps: int = 0) -> None:
        """Forgets what was timed so far. `steps`: about how many calls will follow."""
        self._marks.clear()

    def spans(self) -> dict[str, Spans]:
        return {n: Spans([a for a, _ in marks], [b for _, b in marks]) for n, marks in self._marks.items()}


class SpinBarrier:
    """A barrier that CPU ranks leave almost at once: each tells the others through symmetric memory, and
    looks until all have told. For ranks that are processes. The context's barrier goes over sockets; after
    it ranks wake one by one.
    """

    def __init__(self, ctx: Any) -> None:
        import torch

        self._ctx, self._round = ctx, 0
        told = ctx.empty((ctx.world_size,), torch.int64, fill=0)
        self._kept = [told, *(ctx.peer_tensor(told, peer) for peer in range(ctx.world_size))]
        self._mine, *self._theirs = (tensor.numpy() for tensor in self._kept)

    def __call__(self) -> None:
        self._round += 1
        for theirs in self._theirs:
            theirs[self._ctx.rank] = self._round
        deadline = time.monotonic() + (self._ctx.timeout or float("inf"))
        while self._mine.min() < self._round:
            os.sched_yield()
            if time.monotonic() > deadline:
                late = [peer for peer, told in enumerate(self._mine) if told < self._round]
                raise TimeoutError(what="bench barrier", missing=late)


class EventClock:
    """Events in the current stream. Ranks wait for each other only where the operations make them.

    The stream is held while the host queues what is to be timed, so that no launch is waited for.
    """

    def __init__(self, barrier: Callable[[], Any]) -> None:
        self._barrier = barrier
        self._marks: dict[str, list[tuple[Any, Any]]] = {}

    def time(self, name: str, operation: Callable[[], T]) -> T:
        import torch

        event: Any = torch.cuda.Event
        before, after = event(enable_timing=True), event(enable_timing=True)
        before.record()
        result = operation()
        after.record()
        self._marks.setdefault(name, []).append((before, after))
        return result

    def drop(self, steps: int = 0) -> None:
        """Forgets what was timed so far, and holds the stream for about `steps` calls to be queued."""
        import torch

        self._marks.clear()
        self._barrier()
        if steps:
            sleep: Any = torch.cuda._sleep
            sleep(min(steps * _HOLD_CYCLES, _LONGEST_HOLD_CYCLES))

    def spans(self) -> dict[str, Spans]:
        self._barrier()
        return {
            name: Spans([0] * len(marks), [round(a.elapsed_time(b) * 1e6) for a, b in marks], shared_clock=False)
            for name, marks in self._marks.items()
        }
