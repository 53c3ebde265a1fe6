# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""One socket to one peer, Unix or TCP: frames of bytes and, over Unix, file descriptors, without ever blocking.

A frame is a fixed header, a tag and a payload; its descriptors ride on its first bytes. The owner polls
`sock`, calls `flush()` when it can be written and `pump()` when it can be read, and takes frames out with
`take()`. A farewell frame before the end of the stream tells a peer that closed from one that crashed.
"""

from __future__ import annotations

import array
import contextlib
import enum
import errno
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from .errors import ConfigError

_MAGIC = b"MoRI"
_HEADER = struct.Struct("<4sBHIIQQI")  # magic, kind, tag bytes, depth, branch, sequence, payload bytes, descriptors
_FDS_AT_ONCE = 250  # the kernel takes 253 in one call
_READ_BYTES = 1 << 18
_ANCILLARY_BYTES = socket.CMSG_SPACE(253 * 4)


class Kind(enum.IntEnum):
    HELLO = 1  # the first frame of a connection: who is calling
    DATA = 2  # one rank's part of an exchange
    JOIN = 3  # "I am here" of survivors()
    DECIDED = 4  # survivors() is decided: look at the ledger
    FAREWELL = 5  # an orderly close follows
    ROLL = 6  # "I am here" of roll_call()
    CALLED = 7  # roll_call() is decided: look at the ledger
    BACK = 8  # one rank's part of reunite()
    CHALLENGE = 9  # over TCP, what the caller's hello must answer
    WELCOME = 10  # and what answers the caller's own challenge


class State(enum.Enum):
    OPEN = "open"
    LEFT = "left"  # closed after a farewell
    LOST = "lost"  # ended without one


class Frame(NamedTuple):
    """`depth` and `branch` say which mesh it belongs to (subsets share sockets), `sequence` which call."""

    kind: Kind
    depth: int
    branch: int
    sequence: int
    tag: str = ""
    payload: bytes = b""
    fds: tuple[int, ...] = ()


class OwnedFds:
    """Duplicates, closed when the last user drops them: the caller may close its own at any time."""

    def __init__(self, fds: Iterable[int]) -> None:
        self.fds: list[int] = []
        for fd in fds:
            try:
                self.fds.append(os.dup(fd))
            except (OSError, TypeError) as error:
                self.close()
                raise ConfigError(f"fds contains {fd!r}, which cannot be duplicated: {error}") from error

    def close(self) -> None:
        while self.fds:
            os.close(self.fds.pop())

    def __del__(self) -> None:
        self.close()


# Bytes still to be sent, the descriptors that go with the first of them, and who owns those.
Piece = tuple[memoryview, Sequence[int], OwnedFds]


def encode(frame: Frame) -> list[Piece]:
    """The pieces to post to any number of links."""
    owned = OwnedFds(frame.fds)
    tag = frame.tag.encode()
    head = _HEADER.pack(
        _MAGIC,
        frame.kind,
        len(tag),
        frame.depth,
        frame.branch,
        frame.sequence,
        len(frame.payload),
        len(owned.fds),
    )
    rest = memoryview(head + tag)
    pieces: list[Piece] = []
    groups = [owned.fds[i : i + _FDS_AT_ONCE] for i in range(0, len(owned.fds), _FDS_AT_ONCE)] or [[]]
    if len(groups) >= len(rest):
        raise ConfigError(f"{len(owned.fds)} descriptors are too many for one message")
    for group in groups[:-1]:
        pieces.append((rest[:1], group, owned))
        rest = rest[1:]
    pieces.append((rest, groups[-1], owned))
    if frame.payload:
        pieces.append((memoryview(frame.payload), (), owned))
    return pieces


class Link:
    """The socket to one peer. Not thread-safe: its mesh holds a lock."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.carries_fds = sock.family == socket.AF_UNIX
        self.state = State.OPEN
        self.reason = ""  # why it is LOST, where that is not simply the end of the stream
        self.crowded = False  # the kernel holds as many descriptors in flight as it will; try again soon
        self._outbox: deque[Piece] = deque()
        self._bytes = bytearray()
        self._fds: deque[int] = deque()
        self._inbox: deque[Frame] = deque()

    def fileno(self) -> int:
        return self.sock.fileno()

    @property
    def address(self) -> str:
        """Ours, over TCP."""
        return str(self.sock.getsockname()[0])

    @property
    def is_open(self) -> bool:
        return self.state is State.OPEN

    @property
    def unsent(self) -> bool:
        return bool(self._outbox)

    def post(self, pieces: Iterable[Piece]) -> None:
        if self.is_open:
            self._outbox.extend(pieces)

    def flush(self) -> None:
        """Sends what the socket takes."""
        self.crowded = False
        while self._outbox and self.is_open:
            data, fds, owned = self._outbox[0]
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
            try:
                sent = self.sock.sendmsg([data], ancillary, socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == errno.ETOOMANYREFS:
                    self.crowded = True
                    return
                self._outbox.clear()
                self.pump(to_the_end=True)  # what it said before it went
                self._end(str(error))
                return
            self._outbox.popleft()
            if sent < len(data):
                self._outbox.appendleft((data[sent:], (), owned))

    def pump(self, *, to_the_end: bool = False) -> None:
        """Takes in what has arrived; with `to_the_end` surely all of it, and the end of the stream too."""
        while self.is_open:
            try:
                data, ancillary, flags, _ = self.sock.recvmsg(
                    _READ_BYTES, _ANCILLARY_BYTES, socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT
                )
            except BlockingIOError:
                return
            except OSError as error:
                self._end(str(error))
                return
            for level, kind, value in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    self._fds.extend(array.array("i", value[: len(value) - len(value) % 4]))
            if flags & socket.MSG_CTRUNC:
                self._end("descriptors were dropped: this process has too many open files (see ulimit -n)")
                return
            if not data:
                self._end("")
                return
            self._bytes += data
            self._parse()
            if len(data) < _READ_BYTES and not to_the_end:
                return  # there is hardly more, and poll() would tell

    def take(self, wanted: Callable[[Frame], bool]) -> Frame | None:
        """Removes and gives the first frame that fits."""
        for frame in self._inbox:
            if wanted(frame):
                self._inbox.remove(frame)
                return frame
        return None

    def find(self, wanted: Callable[[Frame], bool]) -> Frame | None:
        return next((frame for frame in self._inbox if wanted(frame)), None)

    def drop(self, stale: Callable[[Frame], bool]) -> None:
        """Forgets frames of calls that are over, and closes their descriptors."""
        for frame in [frame for frame in self._inbox if stale(frame)]:
            self._inbox.remove(frame)
            close_fds(frame.fds)

    def give_up(self) -> None:
        """Ends the connection from our side. The socket stays until close(): the watcher may hold it."""
        if self.is_open:
            self._end("given up")
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)  # wakes a thread that polls it
        self.sock.close()
        self._outbox.clear()
        self.drop(lambda frame: True)
        close_fds(self._fds)
        self._fds.clear()
        if self.is_open:
            self.state = State.LEFT

    def _parse(self) -> None:
        while self.is_open and len(self._bytes) >= _HEADER.size:
            magic, kind, tags, depth, branch, sequence, size, fds = _HEADER.unpack_from(self._bytes)
            end = _HEADER.size + tags + size
            if magic != _MAGIC or kind not in Kind._value2member_map_:
                self._end("it does not speak our protocol")
                return
            if len(self._bytes) < end:
                return
            with memoryview(self._bytes) as view:
                tag = str(view[_HEADER.size : _HEADER.size + tags], "utf-8", "replace")
                payload = bytes(view[_HEADER.size + tags : end])
            del self._bytes[:end]
            if len(self._fds) < fds:
                self._end("descriptors of a message are missing")
                return
            passed = tuple(self._fds.popleft() for _ in range(fds))
            if Kind(kind) is Kind.FAREWELL:
                self._end("", State.LEFT)
            else:
                self._inbox.append(Frame(Kind(kind), depth, branch, sequence, tag, payload, passed))

    def _end(self, reason: str, state: State = State.LOST) -> None:
        if self.is_open:
            self.state, self.reason = state, reason


def close_fds(fds: Iterable[int]) -> None:
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)
