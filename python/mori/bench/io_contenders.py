# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""What can carry blocks in `mori bench io`: one shape for MoRI, its peers and the plain moves of the limit.

One object lives in the initiator, one in the target. The initiator's calls are the ones that are timed.

    target      memory = c.allocate(n); words = c.serve(memory)      c.attend(op, blocks)   once per transfer
    initiator   memory = c.allocate(n); c.connect(memory, words)     step = c.prepare(op, blocks); step()

Peers that are not installed raise Absent with the line that gets them.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import socket
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from ..errors import MoriError, TransportError
from .io_memory import GpuMemory, Memory
from .io_settings import Blocks, IoSettings

__all__ = ["Absent", "Contender", "PlainCopy", "PlainStream", "PlainVm", "Step", "touched"]

Step = Callable[[], "int | None"]  # one transfer; its nanoseconds if it has a clock of its own


class Absent(MoriError):
    """This peer cannot take part; the message says why, and how to get it."""


def touched(nbytes: int) -> Memory:
    """Private host memory whose pages exist."""
    array = np.empty(nbytes + mmap.PAGESIZE, np.uint8)
    start = -array.ctypes.data % mmap.PAGESIZE
    array.fill(0)
    return Memory(array[start : start + nbytes], array)


class Contender:
    """One process's end."""

    name = ""
    path = ""  # how bytes travel, for the report
    verifies = True  # whether what it moved is looked at

    def __init__(self, settings: IoSettings, *, target: bool, gpu: int = 0) -> None:
        self.settings, self.target, self.gpu = settings, target, gpu

    def allocate(self, nbytes: int) -> Memory:
        if self.settings.memories[1 if self.target else 0] == "gpu":
            return GpuMemory(nbytes, self.gpu)
        return touched(nbytes)

    def serve(self, memory: Memory) -> bytes:
        """The target's memory is open to the initiator from here on, who needs these words."""
        raise NotImplementedError

    def connect(self, memory: Memory, words: bytes) -> bytes:
        """What the target's accept() needs."""
        raise NotImplementedError

    def accept(self, words: bytes) -> None:
        """The target's answer to connect()."""

    def prepare(self, op: str, blocks: Blocks) -> Step:
        raise NotImplementedError

    def attend(self, op: str, blocks: Blocks) -> None:
        """The target's part of one transfer, where it has one."""

    def close(self) -> None:
        pass


class PlainCopy(Contender):
    """The limit of shm: memcpy into, or out of, the target's shared mapping."""

    name, path = "limit", "memcpy"

    def allocate(self, nbytes: int) -> Memory:
        if not self.target:
            return touched(nbytes)
        self._fd = os.memfd_create("mori-bench")
        os.ftruncate(self._fd, nbytes)
        view = mmap.mmap(self._fd, nbytes)
        array = np.frombuffer(view, np.uint8)
        array.fill(0)
        return Memory(array, view)

    def serve(self, memory: Memory) -> bytes:
        return f"/proc/{os.getpid()}/fd/{self._fd}".encode()

    def connect(self, memory: Memory, words: bytes) -> bytes:
        with open(words.decode(), "r+b") as file:
            self._view = mmap.mmap(file.fileno(), os.fstat(file.fileno()).st_size)
        self._theirs = np.frombuffer(self._view, np.uint8)
        self._theirs[:: mmap.PAGESIZE].sum()  # so that the first copy does not pay for the page table
        self._mine = memory
        return b""

    def prepare(self, op: str, blocks: Blocks) -> Step:
        from .. import _core

        mine = blocks.local + np.uint64(self._mine.address)
        theirs = blocks.remote + np.uint64(self._theirs.ctypes.data)
        pair = (mine, theirs) if op == "write" else (theirs, mine)
        return lambda: int(_core.plain_copy(*pair, blocks.sizes))


class PlainVm(Contender):
    """The limit of vm: process_vm_writev and readv with 512 blocks in a call."""

    name, path = "limit", "process_vm"

    def serve(self, memory: Memory) -> bytes:
        _allow_peers()
        return msgspec.json.encode((os.getpid(), memory.address))

    def connect(self, memory: Memory, words: bytes) -> bytes:
        self._pid, self._theirs = msgspec.json.decode(words)
        self._mine = memory
        return b""

    def prepare(self, op: str, blocks: Blocks) -> Step:
        from .. import _core

        mine = blocks.local + np.uint64(self._mine.address)
        theirs = blocks.remote + np.uint64(self._theirs)
        pair = (mine, theirs) if op == "write" else (theirs, mine)
        return lambda: int(_core.plain_vm(*pair, blocks.sizes, self._pid, op == "read"))


def _allow_peers() -> None:
    """Lets another process of this user read this one's memory where Yama wants to be asked (ptrace_scope 1)."""
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(-1 & (1 << 64) - 1), 0, 0, 0)


class PlainStream(Contender):
    """The limit of tcp: one connection, writev at one end and readv at the other, one byte back at the end."""

    name, path = "limit", "one TCP stream"

    def serve(self, memory: Memory) -> bytes:
        self._mine = memory
        self._listener = socket.create_server(("", 0) if self.settings.host else ("127.0.0.1", 0))
        self._listener.settimeout(self.settings.timeout_s)
        return msgspec.json.encode(self._listener.getsockname()[1])

    def connect(self, memory: Memory, words: bytes) -> bytes:
        self._mine = memory
        host = self.settings.host.rpartition(":")[0] or "127.0.0.1"
        self._socket = socket.create_connection((host, msgspec.json.decode(words)), self.settings.timeout_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return b""

    def accept(self, words: bytes) -> None:
        self._socket, _ = self._listener.accept()
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def prepare(self, op: str, blocks: Blocks) -> Step:
        return lambda: self._move(op == "write", blocks.local, blocks.sizes)

    def attend(self, op: str, blocks: Blocks) -> None:
        self._move(op == "read", blocks.remote, blocks.sizes)

    def _move(self, out: bool, offsets: Any, sizes: Any) -> int:
        from .. import _core

        move = _core.plain_stream_out if out else _core.plain_stream_in
        return int(move(self._socket.fileno(), offsets + np.uint64(self._mine.address), sizes, 30.0))

    def close(self) -> None:
        with contextlib.suppress(AttributeError):
            self._socket.close()


def require_backend(name: str, allowed: tuple[str, ...], settings: IoSettings) -> None:
    """Absent unless the peer has a way that can be compared with settings.backend."""
    if settings.backend not in allowed:
        raise Absent(f"{name} skipped: nothing of it compares with backend {settings.backend}")


def failed(name: str, what: str) -> Exception:
    return TransportError(f"{name}: {what}")
