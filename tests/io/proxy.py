# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""A TCP proxy that delays, cuts and corrupts, between two engines of a test.

with Proxy(port_of_the_engine) as proxy:
    engine.introduce(other, port=proxy.port)
    proxy.cut_after = 1_000_000       # of each connection from the second on: the first is the control one
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from types import TracebackType

_RESET = struct.pack("ii", 1, 0)


class Proxy:
    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.delay_s = 0.0  # of each piece
        self.cut_after: int | None = None  # bytes of a stream, then both its ends are reset
        self.cuts_left = 1_000_000
        self.flip_at: int | None = None  # number of a byte of the first stream, dialler to listener, to be changed
        self.hold = False  # passes nothing on
        self.count = 0
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()
        for pair in self._pairs:
            self._reset(*pair)

    def reset(self, which: slice = slice(None)) -> None:
        """Cuts connections, in the order in which they came; slice(1) is the control connection."""
        for pair in self._pairs[which]:
            self._reset(*pair)

    @staticmethod
    def _reset(*sockets: socket.socket) -> None:
        for sock in sockets:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._target))
            for sock in (near, far):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            number, self.count = self.count, self.count + 1
            self._pairs.append((near, far))
            for source, sink, forward in ((near, far, True), (far, near, False)):
                threading.Thread(target=self._carry, args=(source, sink, number, forward), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, number: int, forward: bool) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if self.delay_s:
                    time.sleep(self.delay_s)
                while self.hold:
                    time.sleep(0.002)
                if number == 1 and forward and self.flip_at is not None and passed <= self.flip_at < passed + len(data):
                    at = self.flip_at - passed
                    data = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
                    self.flip_at = None
                passed += len(data)
                limit = self.cut_after
                if number > 0 and limit is not None and passed > limit and self.cuts_left > 0:
                    self.cuts_left -= 1
                    sink.sendall(data[: max(0, len(data) - (passed - limit))])
                    self._reset(source, sink)
                    return
                sink.sendall(data)
        self._reset(source, sink)
