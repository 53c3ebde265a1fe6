# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""One rank's stop-watch: the host's clock for CPU ranks, events in the stream for GPU ranks.

clock = HostClock(ctx.barrier)
result = clock.time("dispatch", lambda: moe.dispatch(x, ids, weights))
clock.drop()                       # what was timed so far was warm-up
clock.spans()["dispatch"]          # ends all waiting
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from .statistics import Spans

__all__ = ["EventClock", "HostClock"]

T = TypeVar("T")

_HOLD_CYCLES = 400_000  # about 0.2 ms a call: launching is quicker, with several ranks in one process too
_LONGEST_HOLD_CYCLES = 200_000_000  # about 0.1 s


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
        return result

    def drop(self, steps: int = 0) -> None:
        """Forgets what was timed so far. `steps`: about how many calls will follow."""
        self._marks.clear()

    def spans(self) -> dict[str, Spans]:
        return {n: Spans([a for a, _ in marks], [b for _, b in marks]) for n, marks in self._marks.items()}


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
            name: Spans(
                [0] * len(marks), [round(a.elapsed_time(b) * 1e6) for a, b in marks], shared_clock=False
            )
            for name, marks in self._marks.items()
        }
