# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""All links of one rank: moves bytes on every socket while a call waits, and knows who is gone."""

from __future__ import annotations

import select
import threading
from collections.abc import Callable, Iterable, Sequence

from ._deadline import Deadline
from ._link import Frame, Kind, Link, State, encode
from ._watch import Watcher

_CROWDED_S = 0.005  # how soon to try again when too many descriptors are in flight


class Hub:
    """`links[rank]` is None for this rank. Hold `lock` to look at a link: the watching thread reads them."""

    def __init__(self, links: Sequence[Link | None]) -> None:
        self.links = {peer: link for peer, link in enumerate(links) if link is not None}
        self.lock = threading.RLock()  # reentrant, because a collected mesh may close its hub from anywhere
        self._watcher: Watcher | None = None

    def post(self, frame: Frame, peers: Iterable[int] | None = None) -> None:
        """Queues a frame for these peers, or for all; its descriptors for those of this host."""
        pieces = encode(frame)
        without = encode(frame._replace(fds=())) if frame.fds else pieces
        for peer in self.links if peers is None else peers:
            link = self.links[peer]
            link.post(pieces if link.carries_fds else without)

    def flush(self) -> None:
        for link in self.links.values():
            link.flush()

    def wait(self, done: Callable[[Iterable[int]], bool], deadline: Deadline, look_again_s: float = 3600.0) -> bool:
        """Moves bytes until `done(peers)`, which gets the peers on whose sockets something happened, at first
        all.

        False if the deadline came first. `done` is also asked every `look_again_s`, with no peers.
        """
        poll = select.poll()
        peer_of: dict[int, int] = {}
        with self.lock:
            self.flush()
            for peer, link in self.links.items():
                if link.is_open:
                    peer_of[link.fileno()] = peer
                    poll.register(link, select.POLLIN)
        changed: Iterable[int] = self.links
        while True:
            with self.lock:
                if done(changed):
                    return True
                limit_s = look_again_s
                for fd, peer in list(peer_of.items()):
                    link = self.links[peer]
                    if not link.is_open:
                        poll.unregister(fd)
                        del peer_of[fd]
                    elif link.unsent:
                        poll.modify(fd, select.POLLIN | (0 if link.crowded else select.POLLOUT))
                        limit_s = min(limit_s, _CROWDED_S) if link.crowded else limit_s
                    elif peer in changed:
                        poll.modify(fd, select.POLLIN)
            if deadline.expired():
                return False
            changed = {peer_of[fd] for fd, _ in poll.poll(deadline.poll_ms(limit_s))}
            with self.lock:
                for peer, link in self.links.items():
                    if peer in changed or link.crowded:
                        link.flush()
                    if peer in changed:
                        link.pump()

    def notice_ends(self) -> None:
        """Takes in what came before the end of each socket that has ended."""
        poll = select.poll()
        links = {link.fileno(): link for link in self.links.values() if link.is_open}
        for fd in links:
            poll.register(fd, select.POLLRDHUP)
        for fd, _ in poll.poll(0):
            links[fd].pump(to_the_end=True)

    def lost(self) -> frozenset[int]:
        with self.lock:
            self.notice_ends()
            return frozenset(peer for peer, link in self.links.items() if link.state is State.LOST)

    def watch(self, callback: Callable[[int], None]) -> None:
        if self._watcher is None:
            self._watcher = Watcher(self.links, self.lock)
        self._watcher.add(callback)

    def release(self, peers: Iterable[int]) -> None:
        """Lets go of these links, which another hub takes."""
        if self._watcher is not None:
            self._watcher.stop(join=True)
        with self.lock:
            for peer in peers:
                del self.links[peer]

    def farewell(self) -> None:
        with self.lock:
            self.post(Frame(Kind.FAREWELL, 0, 0, 0))
            self.flush()

    def close(self, *, join: bool = True) -> None:
        """Ends the watching thread, waiting for it if `join`, and closes the sockets."""
        if self._watcher is not None:
            self._watcher.stop(join=join)
        with self.lock:
            for link in self.links.values():
                link.close()

    def close_in_child(self) -> None:
        """After a fork: the sockets only, as no lock can be trusted and no thread is there."""
        for link in self.links.values():
            link.sock.close()
