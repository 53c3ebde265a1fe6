# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Ranks as threads that stay: a test asks all of them for one thing after the other.

def test_...(crew3):
    moes = crew3.each(lambda ctx: Dispatcher(ctx, 16, 8, topk=2, max_tokens=4))
    errors = crew3.each(lambda ctx: refusal(lambda: moes[ctx.rank].dispatch(...)))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

from ep_cases import open_context
from mori.errors import MoriError
from mori.uid import unique_id

__all__ = ["Crew", "refusal"]

_DEADLINE_S = 45.0
Result = TypeVar("Result")


class Crew:
    """One thread and one context a rank."""

    def __init__(self, world_size: int, **options: Any) -> None:
        self.world_size, self.broken = world_size, False
        self._threads = [ThreadPoolExecutor(1, f"rank{rank}") for rank in range(world_size)]
        uid = unique_id()
        opening = [
            thread.submit(open_context, rank, world_size, uid, **options) for rank, thread in enumerate(self._threads)
        ]
        self.contexts: Sequence[Any] = _results(opening)

    def each(self, work: Callable[..., Result], *per_rank: Sequence[Any]) -> list[Result]:
        """`work(ctx, ...)` on all ranks at the same time; `per_rank` has further arguments, an entry for each rank.
        The first rank's exception is raised here, after all have ended."""
        arguments = zip(self.contexts, *per_rank, strict=True)
        futures = [t.submit(work, *a) for t, a in zip(self._threads, arguments, strict=True)]
        self.broken = True  # ranks that failed may be out of step
        results = _results(futures)
        self.broken = False
        return results

    def close(self) -> None:
        for context, thread in zip(self.contexts, self._threads, strict=True):
            thread.submit(context.close)
            thread.shutdown(wait=not self.broken)


def _results(futures: Sequence[Future[Result]]) -> list[Result]:
    _, late = wait(futures, _DEADLINE_S)
    ranks = [rank for rank, future in enumerate(futures) if future in late]
    if ranks:
        raise TimeoutError(f"ranks {ranks} did not end within {_DEADLINE_S:g} s")
    return [future.result() for future in futures]


def refusal(call: Callable[[], Any]) -> MoriError | None:
    """What MoRI raised, without the frames that keep the call's tensors alive; None if it returned."""
    try:
        call()
    except MoriError as error:
        return error.with_traceback(None)
    return None
