# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The two processes of one contender in `mori bench io`: the initiator, whose calls are timed, and the target.

The runner tells the initiator what to do; it tells the target. Words are msgpack over pipes, or over a connection
between two machines. A turn:

    runner -> initiator   (case, number, whole)
    initiator -> target   the same; the side that has the source stamps it; the target says that it is ready
    initiator             times each transfer; the target attends where its library needs that
    receiver              looks at every block; whole: at every byte
    initiator -> runner   nanoseconds of each transfer
"""

from __future__ import annotations

import ctypes
import importlib
import signal
import time
import traceback
from typing import Any

import msgspec

from ..errors import MoriError
from .io_contenders import Absent, Contender
from .io_memory import Memory, check, check_all, clear_landing, fill_source, stamp
from .io_settings import IoCase, IoSettings
from .verify import Mismatch

__all__ = ["CONTENDERS", "Broken", "initiate", "receive", "send", "serve"]

# Where each is found; imported in its own processes only.
CONTENDERS = {
    "mori": ".io_mori:Mori",
    "nixl": ".io_peers:Nixl",
    "mooncake": ".io_peers:Mooncake",
    "memcpy": ".io_contenders:PlainCopy",
    "process_vm": ".io_contenders:PlainVm",
    "stream": ".io_contenders:PlainStream",
    "copy_engine": ".io_gpu:CopyEngine",
}


class Broken(MoriError):
    """A contender failed; the message is what it said."""


def send(link: Any, word: str, *values: Any) -> None:
    link.send_bytes(msgspec.msgpack.encode((word, *values)))


def receive(link: Any, timeout_s: float) -> list[Any]:
    """The other end's next words. What it failed with is raised here."""
    try:
        if not link.poll(timeout_s):
            raise Broken(f"no answer within {timeout_s:g} s")
        word, *values = msgspec.msgpack.decode(link.recv_bytes())
    except (EOFError, ConnectionError):
        raise Broken("its process ended without a word") from None
    if word == "absent":
        raise Absent(values[0])
    if word == "mismatch":
        raise Mismatch(values[0])
    if word == "broken":
        raise Broken(values[0])
    return [word, *values]


def _make(name: str, settings: IoSettings, *, target: bool, gpu: int) -> Contender:
    module, _, attribute = CONTENDERS[name].partition(":")
    kind = getattr(importlib.import_module(module, __package__), attribute)
    made: Contender = kind(settings, target=target, gpu=gpu)
    return made


def _die_with_parent() -> None:
    """A stopped process is not ended by anybody but its parent's end."""
    ctypes.CDLL(None).prctl(1, int(signal.SIGKILL))


def _tell(link: Any, error: BaseException) -> None:
    word = "mismatch" if isinstance(error, Mismatch) else "absent" if isinstance(error, Absent) else "broken"
    text = str(error) if isinstance(error, MoriError) else traceback.format_exc()
    send(link, word, text)


class _End:
    """What both processes have: a contender, its memory, and which transfers are whose."""

    def __init__(self, name: str, settings: IoSettings, *, target: bool, gpu: int) -> None:
        self.contender = _make(name, settings, target=target, gpu=gpu)
        self.memory: Memory = self.contender.allocate(settings.pool_bytes)
        self.cases, self.seed, self.target = settings.cases(), settings.seed, target

    def source(self, case: IoCase) -> bool:
        return (case.op == "read") == self.target

    def open(self, case: IoCase) -> None:
        if not self.contender.verifies:
            return
        if self.source(case):
            fill_source(self.memory, case.pool_bytes, self.seed)
        else:
            clear_landing(self.memory, case.pool_bytes)

    def stamp(self, case: IoCase, number: int) -> None:
        if self.contender.verifies and self.source(case):
            for index, blocks in enumerate(case.turn(self.seed, number)):
                stamp(self.memory, case, blocks, _serial(number, index))

    def check(self, case: IoCase, number: int, whole: bool, fresh: bool) -> None:
        if self.source(case) or not self.contender.verifies:
            return
        turn = case.turn(self.seed, number)
        for index, blocks in enumerate(turn):
            check(self.memory, case, blocks, _serial(number, index))
        if whole:
            check_all(self.memory, case, turn, _serial(number, 0), self.seed, fresh)


def _serial(number: int, index: int) -> int:
    return 1 + number * 64 + index


def serve(link: Any, name: str, settings: IoSettings, gpu: int) -> None:
    """The target's life, until the link ends."""
    _die_with_parent()
    contender = None
    try:
        end = _End(name, settings, target=True, gpu=gpu)
        contender = end.contender
        send(link, "serving", contender.serve(end.memory))
        contender.accept(receive(link, settings.timeout_s)[1])
        while True:
            word, *values = receive(link, settings.timeout_s)
            if word == "end":
                break
            case = end.cases[values[0]]
            if word == "open":
                end.open(case)
            elif word == "turn":
                end.stamp(case, values[1])
                turn = case.turn(end.seed, values[1])
                send(link, "ready")  # what comes now shares the machine with what is timed
                for blocks in turn:
                    contender.attend(case.op, blocks)
                continue
            else:
                end.check(case, *values[1:])
            send(link, "done")
        contender.close()
        send(link, "done")
    except BaseException as error:
        _tell(link, error)


def initiate(runner: Any, link: Any, name: str, settings: IoSettings, gpu: int) -> None:
    """The initiator's life, until the runner says so."""
    _die_with_parent()
    try:
        end = _End(name, settings, target=False, gpu=gpu)
        contender, limit_s = end.contender, settings.timeout_s
        send(link, "connected", contender.connect(end.memory, receive(link, limit_s)[1]))
        send(runner, "ready", contender.path)
        while True:
            word, *values = receive(runner, 10 * limit_s)
            if word == "end":
                break
            case = end.cases[values[0]]
            send(link, word, *values)
            if word == "open":
                end.open(case)
                receive(link, limit_s)
                send(runner, "done")
                continue
            index, number, whole, fresh = values
            end.stamp(case, number)
            steps = [contender.prepare(case.op, blocks) for blocks in case.turn(end.seed, number)]
            receive(link, limit_s)
            times = []
            for step in steps:
                start = time.perf_counter_ns()
                own = step()
                times.append(time.perf_counter_ns() - start if own is None else own)
            send(link, "check", index, number, whole, fresh)
            end.check(case, number, whole, fresh)
            receive(link, limit_s)
            send(runner, "times", times[case.settles :])
        contender.close()
        send(link, "end")
        receive(link, limit_s)
        send(runner, "done")
    except BaseException as error:
        _tell(runner, error)
