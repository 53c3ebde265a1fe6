# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The thread that notices dead peers while nobody is in a call of the mesh."""

from __future__ import annotations

import logging
import os
import select
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

from ._link import Link, State

_log = logging.getLogger(__name__)


class Watcher:
    """Polls for the end of each socket. It knows the links, not the mesh, so that a mesh may be dropped."""

    def __init__(self, links: Mapping[int, Link], io: AbstractContextManager[object]) -> None:
        self._links, self._io = dict(links), io
        self._callbacks: list[tuple[Callable[[int], None], set[int]]] = []
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="mori-watch", daemon=True)
        self._thread.start()

    def add(self, callback: Callable[[int], None]) -> None:
        """`callback(rank)` for each rank already lost, and each one that will be."""
        with self._io:
            self._callbacks.append((callback, set()))
            if not self._stopping:
                os.eventfd_write(self._wake, 1)

    def stop(self, *, join: bool) -> None:
        """Ends the thread; a callback may call this too."""
        if self._stopping:
            return
        with self._io:  # the thread closes the descriptor under the same lock
            self._stopping = True
            os.eventfd_write(self._wake, 1)
        if join and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        peers = {}
        with self._io:
            for peer, link in self._links.items():
                if link.fileno() >= 0:
                    peers[link.fileno()] = peer
                    poll.register(link.fileno(), select.POLLRDHUP)
        while not self._stopping:
            for fd, _ in poll.poll():
                if fd == self._wake:
                    os.eventfd_read(fd)
                else:
                    poll.unregister(fd)
                    with self._io:
                        self._links[peers[fd]].pump(to_the_end=True)
            self._report()
        with self._io:
            os.close(self._wake)

    def _report(self) -> None:
        with self._io:
            lost = [peer for peer, link in self._links.items() if link.state is State.LOST]
            calls = [(callback, told, peer) for callback, told in self._callbacks for peer in lost if peer not in told]
        for callback, told, peer in calls:
            told.add(peer)
            if self._stopping:
                return
            try:
                callback(peer)
            except Exception:
                _log.exception("the callback of Mesh.watch() failed for rank %d", peer)
