# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Runs a function as several ranks, in fresh processes or in threads, for tests: yours as well as ours.

    def work(rank, world_size, uid, n):                        # at the top level of a module, so that it can
    be sent
        with mori.init(uid=uid, rank=rank, world_size=world_size) as ctx:
            ...
            return n + rank

    assert run_ranks(work, 3, 10) == [10, 11, 12]

A failure in any rank ends all of them and is raised here with that rank's traceback; so is a deadline.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Collection
from typing import Any

from . import config
from ._deadline import Deadline
from .errors import ConfigError, MoriError
from .uid import unique_id

__all__ = ["MODES", "RankError", "run_ranks"]

MODES = ("process", "thread", "spawn", "fork")
_GRACE_S = 2.0  # for the other ranks to report, after the first has failed
_Report = tuple[bool, Any, str]  # whether it went well, the result or exception, the traceback


class RankError(MoriError):
    """Ranks failed. `tracebacks` has the text of each; the cause is the first one's exception."""

    def __init__(self, message: str, tracebacks: dict[int, str]) -> None:
        self.tracebacks = tracebacks
        super().__init__(message)


def run_ranks(
    fn: Callable[..., Any],
    world_size: int,
    *args: Any,
    mode: str = "process",
    timeout: float = 60.0,
    expendable: Collection[int] = (),
) -> list[Any]:
    """Calls `fn(rank, world_size, uid, *args)` as every rank, and gives the results by rank.

    mode: "process" (forked from a clean server that has torch imported, so a rank starts in milliseconds),
    "spawn" (a fresh interpreter each), "fork" (of this process), or "thread". Whatever is sent must be
    picklable but for the last two. timeout: seconds once they have started; 0 waits for ever. expendable:
    ranks that may be killed or stopped, for tests of that; their result is None if they do not return one,
    and what is left of them is killed at the end.

    Raises RankError with the tracebacks of all ranks that failed, died, or did not end in time.
    """
    if mode not in MODES:
        raise ConfigError(f"mode={mode!r} is not one of {', '.join(MODES)}")
    if world_size < 1:
        raise ConfigError(f"world_size={world_size} is less than 1")
    crew = _Threads if mode == "thread" else _Processes
    Deadline(timeout)  # refuses a bad one before anything is started
    ranks = crew(fn, world_size, unique_id(), args, mode)
    reports = ranks.collect(Deadline(timeout), frozenset(expendable))
    failed = {rank: report for rank, report in sorted(reports.items()) if not report[0] and rank not in expendable}
    if not failed:
        return [reports[rank][1] if rank in reports and reports[rank][0] else None for rank in range(world_size)]
    # Ranks that failed by themselves explain more than those that then missed them.
    cause = next(iter(failed.values()))[1]
    texts = {r: report[2] for r, report in failed.items()}
    parts = [f"rank {r} of {world_size} failed:\n{t}" for r, t in texts.items()]
    raise RankError("\n".join(parts), texts) from (cause if isinstance(cause, BaseException) else None)


class _Processes:
    def __init__(self, fn: Callable[..., Any], world_size: int, uid: bytes, args: tuple[Any, ...], mode: str) -> None:
        context: Any = multiprocessing.get_context("forkserver" if mode == "process" else mode)
        if mode == "process":
            context.set_forkserver_preload(["torch", "torch.distributed", __name__])
        self._processes, self._pipes = [], {}
        for rank in range(world_size):
            mine, theirs = context.Pipe(duplex=False)
            job = (theirs, config.environment(), fn, rank, world_size, uid, args)
            process = context.Process(target=_rank_process, args=job, name=f"rank {rank}", daemon=True)
            try:
                process.start()
            except (pickle.PicklingError, AttributeError, TypeError) as error:
                self._end()
                raise ConfigError(f"fn and args must be picklable in mode={mode!r}: {error}") from error
            finally:
                theirs.close()
            self._processes.append(process)
            self._pipes[mine] = rank

    def collect(self, deadline: Deadline, expendable: frozenset[int]) -> dict[int, _Report]:
        reports: dict[int, _Report] = {}
        try:
            while set(self._pipes.values()) - expendable and not deadline.expired():
                limit_s = None if deadline.forever else deadline.remaining()
                for pipe in multiprocessing.connection.wait(list(self._pipes), limit_s):
                    rank = self._pipes.pop(pipe)
                    reports[rank] = self._receive(pipe, rank)
                    if not reports[rank][0] and rank not in expendable:
                        deadline = _shorter(deadline, _GRACE_S)
            for rank in set(self._pipes.values()) - expendable:
                reports[rank] = (False, None, f"it did not end in time ({_where(self._processes[rank].pid)})")
            return reports
        finally:
            self._end()

    def _end(self) -> None:
        for process in self._processes:
            process.kill()  # ends a stopped one too
            process.join()
            process.close()
        for pipe in self._pipes:
            pipe.close()

    def _receive(self, pipe: Any, rank: int) -> _Report:
        try:
            report: _Report = pickle.loads(pipe.recv_bytes())
            return report
        except EOFError:
            process = self._processes[rank]
            process.join(_GRACE_S)
            code = process.exitcode
            how = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
            return (False, None, f"it died without a report ({how})")
        except Exception:
            return (False, None, f"its result cannot be unpickled:\n{traceback.format_exc()}")
        finally:
            pipe.close()


class _Threads:
    def __init__(self, fn: Callable[..., Any], world_size: int, uid: bytes, args: tuple[Any, ...], mode: str) -> None:
        self._size = world_size
        self._reports: dict[int, _Report] = {}
        self._changed = threading.Condition()
        for rank in range(world_size):
            body = (fn, rank, world_size, uid, args)
            threading.Thread(target=self._body, args=body, name=f"rank {rank}", daemon=True).start()

    def _body(self, fn: Callable[..., Any], rank: int, world_size: int, uid: bytes, args: tuple[Any, ...]) -> None:
        report = _report(fn, rank, world_size, uid, args)
        with self._changed:
            self._reports[rank] = report
            self._changed.notify()

    def collect(self, deadline: Deadline, expendable: frozenset[int]) -> dict[int, _Report]:
        needed = set(range(self._size)) - expendable
        shortened = False
        with self._changed:
            while needed - set(self._reports) and not deadline.expired():
                if not shortened and any(not self._reports[rank][0] for rank in needed & set(self._reports)):
                    deadline, shortened = _shorter(deadline, _GRACE_S), True
                self._changed.wait(None if deadline.forever else deadline.remaining())
            reports = dict(self._reports)
        for rank in needed - set(reports):
            reports[rank] = (False, None, "it did not end in time; its thread goes on")
        return reports


def _report(fn: Callable[..., Any], rank: int, world_size: int, uid: bytes, args: tuple[Any, ...]) -> _Report:
    try:
        return (True, fn(rank, world_size, uid, *args), "")
    except BaseException as error:
        return (False, error, traceback.format_exc())


def _rank_process(
    pipe: Any,
    environment: dict[str, str],
    fn: Callable[..., Any],
    rank: int,
    world_size: int,
    uid: bytes,
    args: tuple[Any, ...],
) -> None:
    config.set_environment(environment)  # the server of forks was started with an older one
    good, value, text = _report(fn, rank, world_size, uid, args)
    try:
        packed = pickle.dumps((good, value, text))
        if not good:
            pickle.loads(packed)  # exceptions with constructors of their own often fail only here
    except Exception:
        what = f"its result cannot be pickled:\n{traceback.format_exc()}" if good else text
        packed = pickle.dumps((False, None, what))
    pipe.send_bytes(packed)
    pipe.close()


def _shorter(deadline: Deadline, limit_s: float) -> Deadline:
    return deadline if deadline.remaining() < limit_s else Deadline(limit_s)


def _where(pid: int | None) -> str:
    """What a process is waiting for, as far as the kernel tells."""
    try:
        with open(f"/proc/{pid}/wchan") as file:
            return f"process {pid}, in {file.read() or 'user code'}"
    except OSError:
        return f"process {pid}"
