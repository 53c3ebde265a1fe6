# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Runs `mori bench io`: two processes for each contender, turns that take each other's place, one report.

Contenders take turns in every case, in another order each round, so that what else the machine does hits all alike.
Those that keep a processor busy while idle are stopped (SIGSTOP) between their turns.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Client
from typing import Any

import numpy as np

from ..errors import ConfigError, MoriError
from .io_contenders import Absent
from .io_pair import Broken, initiate, receive, send, serve
from .io_serve import ask_target, secret
from .io_settings import IoCase, IoSettings
from .progress import Pulse
from .report import Report, Row, build_row
from .statistics import Traffic, gbps, summarise

__all__ = ["LIMITS", "Times", "run_io"]

# What moves the same blocks by the barest means, per backend; in processes of its own, as a contender.
LIMITS = {"shm": "memcpy", "auto": "memcpy", "vm": "process_vm", "tcp": "stream", "p2p": "copy_engine"}

SPINNING = ("nixl", "mooncake")  # these keep processors busy while nothing is asked of them

Times = dict[tuple[str, int], list[int]]  # (contender, case) -> nanoseconds


class Pair:
    """The two processes of a contender, from outside."""

    def __init__(self, name: str, settings: IoSettings, gpus: tuple[int, int]) -> None:
        self.name, self.path, self._limit_s = name, "", settings.timeout_s
        self._processes: list[Any] = []
        context: Any = multiprocessing.get_context("spawn")
        self._link, runner = context.Pipe()
        if settings.host:
            mine = Client(_address(settings.host), authkey=secret())
            ask_target(mine, name, settings)
        else:
            mine, theirs = context.Pipe()
            self._start(context, serve, theirs, name, settings, gpus[1])
        self._start(context, initiate, runner, mine, name, settings, gpus[0])

    def _start(self, context: Any, body: Callable[..., None], *arguments: Any) -> None:
        process = context.Process(target=body, args=arguments, daemon=True)
        process.start()
        self._processes.append(process)

    def ready(self) -> None:
        try:
            self.path = receive(self._link, self._limit_s)[1]
        except MoriError:
            self.kill()
            raise

    def ask(self, word: str, *values: Any) -> list[Any]:
        send(self._link, word, *values)
        return receive(self._link, self._limit_s)

    def stop(self, stopped: bool) -> None:
        if self.name not in SPINNING:
            return
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGSTOP if stopped else signal.SIGCONT)

    def end(self) -> None:
        self.stop(False)
        with contextlib.suppress(MoriError, OSError):
            send(self._link, "end")
            receive(self._link, 10)
        self.kill()

    def kill(self) -> None:
        for process in self._processes:
            process.kill()
            process.join()


def _address(host: str) -> tuple[str, int]:
    name, _, port = host.rpartition(":")
    if not name or not port.isdigit():
        raise ConfigError(
            f"host={host!r} is not ADDRESS:PORT, as printed by `mori bench io --serve` on the other machine"
        )
    return name, int(port)


def contenders(settings: IoSettings) -> list[str]:
    limit = [LIMITS[settings.backend]] if settings.backend in LIMITS else []
    if limit and settings.host:
        limit = ["stream"] if settings.backend in ("auto", "tcp") else []
    if limit and "gpu" in settings.memories:
        limit = ["copy_engine"]
    return ["mori", *limit, *(peer for peer in settings.peers if peer in ("nixl", "mooncake"))]


def run_io(settings: IoSettings, *, pulse: str = "", names: list[str] | None = None) -> Report:
    """Runs the bench and gives its report. Raises verify.Mismatch if any transfer was wrong, Broken if MoRI failed.

    `pulse` is the path that progress.draw() gave; `names` replaces the contenders.
    """
    from .io_report import assemble
    from .io_tools import tool_rows

    deadline = time.monotonic() + settings.timeout_s
    signs, notes = Pulse(pulse), []
    wanted = contenders(settings) if names is None else names
    gpus = _gpus(settings)
    signs.phase("starting ranks", len(wanted))
    pairs: list[Pair] = []
    try:
        for name in wanted:
            pair = Pair(name, settings, gpus)
            try:
                pair.ready()
            except Absent as error:
                notes.append(str(error))
                continue
            except Broken as error:
                if name == "mori":
                    raise
                notes.append(f"{name} skipped: it failed: {_last_line(error)}")
                continue
            pair.stop(True)
            pairs.append(pair)
            signs.step()
        times = _rounds(settings, pairs, signs, deadline, notes)
    finally:
        for pair in pairs:
            pair.end()
    signs.phase("peers")
    rows = tool_rows(settings, notes)
    signs.phase("done")
    paths = {pair.name: pair.path for pair in pairs}
    return assemble(settings, times, paths, rows, notes)


def _gpus(settings: IoSettings) -> tuple[int, int]:
    """GPU of the initiator and of the target."""
    if "gpu" not in settings.memories:
        return 0, 0
    try:
        import torch
    except ImportError:
        raise ConfigError(f"memory={settings.memory or 'gpu'}: torch is not installed") from None
    count = torch.cuda.device_count()
    if count == 0:
        raise ConfigError(
            f"memory={settings.memory or 'gpu'}: torch finds no GPU here; `mori doctor` tells what is missing"
        )
    return 0, min(1, count - 1)


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1][:300]


def _rounds(settings: IoSettings, pairs: list[Pair], signs: Pulse, deadline: float, notes: list[str]) -> Times:
    times: Times = {}
    cases = settings.cases()
    rounds = settings.warmup + settings.iters
    signs.phase("transfers", len(cases) * rounds * len(pairs))
    number = 0
    for index in range(len(cases)):
        for pair in pairs:
            pair.stop(False)
            pair.ask("open", index)
            pair.stop(True)
        for turn in range(rounds):
            number += 1
            whole = turn in (0, rounds - 1)
            shift = turn % max(1, len(pairs))
            for pair in [*pairs[shift:], *pairs[:shift]]:
                if time.monotonic() > deadline:
                    raise Broken(f"the run took more than timeout={settings.timeout_s:g} s")
                pair.stop(False)
                try:
                    _, found = pair.ask("turn", index, number, whole, turn == 0)
                except Broken as error:
                    if pair.name == "mori":
                        raise
                    notes.append(f"{pair.name} left out from {cases[index].op} on: {_last_line(error)}")
                    pair.kill()
                    pairs.remove(pair)
                    continue
                pair.stop(True)
                if turn >= settings.warmup:
                    times.setdefault((pair.name, index), []).extend(found)
                signs.step()
    return times


def row_of(settings: IoSettings, case: IoCase, nanoseconds: list[int], limit_us: float | None, **fields: Any) -> Row:
    summary = summarise(np.array(nanoseconds) / 1e3)
    limit = gbps(case.bytes, limit_us) if limit_us else None
    return build_row(
        summary,
        Traffic(case.bytes, case.bytes),
        limit,
        op=case.op,
        ranks=2,
        block_bytes=case.block_bytes,
        batch=case.batch,
        blocks="contiguous" if settings.contiguous else "random",
        p99_us=round(float(np.percentile(np.array(nanoseconds) / 1e3, 99)), 3),
        samples=len(nanoseconds),
        verified=True,
        **fields,
    )
