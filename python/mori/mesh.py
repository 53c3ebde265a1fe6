# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The control plane between the ranks of one host: small messages, file descriptors, and who is still alive.

    mesh = Mesh.connect(rendezvous(group, timeout=30), timeout=30)
    handles = mesh.exchange("heap", my_handle, [my_fd])         # every rank's bytes and descriptors, by rank
    mesh.barrier()

All ranks make the same calls in the same order; whoever does not is told so. Every wait has a deadline, a rank that
died is noticed at once by the end of its socket, and those left over agree on who they are with `survivors()`.
Ranks may be processes or threads. docs/bootstrap.md tells how it works.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import select
import threading
import weakref
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType

from ._deadline import Deadline
from ._ledger import Ledger
from ._link import Frame, Kind, Link, State, close_fds, encode
from ._meet import meet
from ._watch import Watcher
from .bootstrap import Rendezvous
from .errors import ConfigError, PeerLost, TimeoutError, TransportError

__all__ = ["Mesh", "Message", "check_same"]

_WAKE_S = 0.1  # how often survivors() looks at the ledger by itself
_CROWDED_S = 0.005  # how soon to try again when too many descriptors are in flight


@dataclasses.dataclass(frozen=True)
class Message:
    """One rank's part of an exchange. Whoever receives `fds` owns them, and closes them."""

    payload: bytes = b""
    fds: tuple[int, ...] = ()


class Mesh:
    """Made with `connect()` or `subset()`; safe to use from several threads, which then take turns."""

    rank: int
    world_size: int
    timeout: float

    def __init__(
        self,
        rank: int,
        links: list[Link | None],
        ledger: Ledger | None,
        timeout: float,
        depth: int = 0,
        branch: int = 0,
    ) -> None:
        self.rank, self.world_size, self.timeout = rank, len(links), timeout
        self._links = {peer: link for peer, link in enumerate(links) if link is not None}
        self._ledger = ledger
        self._depth, self._branch = depth, branch
        self._sequence = 0
        self._epoch = 0
        self._turn = threading.Lock()  # one call at a time
        self._io = threading.RLock()  # the links, which the watching thread reads too
        self._watcher: Watcher | None = None
        self._closed = ""
        _meshes.add(self)

    @classmethod
    def connect(cls, rendezvous: Rendezvous, *, timeout: float) -> Mesh:
        """Joins all ranks of a rendezvous, which may be closed afterwards. `timeout` is also the default of each call.

        Raises TimeoutError naming the ranks that did not come, ConfigError if they are not on one host, in one network
        namespace and of one user.
        """
        deadline = Deadline(timeout)
        if rendezvous.world_size == 1:
            return cls(0, [None], None, timeout)
        mesh = cls(rendezvous.rank, meet(rendezvous, deadline), None, timeout)
        try:
            value_bytes = (mesh.world_size + 7) // 8
            if mesh.rank == 0:
                mesh._ledger = Ledger.create(value_bytes)
            fds = [mesh._ledger.fd] if mesh._ledger else []
            left = 0 if deadline.forever else max(deadline.remaining(), 0.001)
            messages = mesh.exchange("ledger", b"", fds, timeout=left)
            if mesh._ledger is None:
                mesh._ledger = Ledger(messages[0].fds[0], value_bytes)
        except BaseException:
            mesh._abandon("connecting failed")
            raise
        return mesh

    def exchange(
        self, tag: str, payload: bytes = b"", fds: Sequence[int] = (), *, timeout: float | None = None
    ) -> list[Message]:
        """An all-gather. Our own entry has our payload and no descriptors; received descriptors are the caller's.

        Raises ConfigError if ranks call with different tags, PeerLost at once if a rank needed has died or closed,
        TimeoutError naming the ranks that did not come. After an error the ranks may go on with the next call.
        """
        deadline = Deadline(self.timeout if timeout is None else timeout)
        with self._my_turn(tag, deadline):
            call = _Call(tag, self._sequence)
            self._sequence += 1
            frame = Frame(
                Kind.DATA, self._depth, self._branch, call.sequence, tag, bytes(payload), tuple(fds)
            )
            with self._io:
                pieces = encode(frame)
                for link in self._links.values():
                    link.drop(lambda old: self._is_over(old, call.sequence))
                    link.post(pieces)
            del pieces
            try:
                self._wait(lambda: self._gather(call), lambda: self._overdue(call, deadline), deadline)
            except BaseException:
                for message in call.got.values():
                    close_fds(message.fds)
                raise
            return [call.got.get(r, Message(bytes(payload))) for r in range(self.world_size)]

    def barrier(self, tag: str = "barrier", *, timeout: float | None = None) -> None:
        """Returns when all ranks have called it; raises as `exchange()` does."""
        self.exchange(tag, timeout=timeout)

    def lost(self) -> frozenset[int]:
        """Ranks whose socket ended without a farewell: they crashed, or gave this rank up."""
        with self._io:
            self._notice_ends()
            return frozenset(peer for peer, link in self._links.items() if link.state is State.LOST)

    def watch(self, callback: Callable[[int], None]) -> None:
        """Calls `callback(rank)` once for each rank lost, from a daemon thread. It ends with the mesh."""
        self._check_usable("watch")
        with self._turn:
            if self._watcher is None:
                self._watcher = Watcher(self._links, self._io)
            self._watcher.add(callback)

    def survivors(self, *, timeout: float) -> tuple[int, ...]:
        """Agrees on who is left: all ranks that call this within `timeout`. Whoever returns has the same answer.

        Sockets to the others are closed; go on with `mesh.subset(mesh.survivors(timeout=5))`. A rank that comes when
        the others have decided without it gets PeerLost. Ranks must call this equally often on one mesh.
        """
        deadline = Deadline(timeout)
        with self._my_turn("survivors", deadline):
            self._epoch += 1
            with self._io:
                for link in self._links.values():
                    link.post(encode(self._control(Kind.JOIN)))
            self._wait(self._all_joined, lambda: None, deadline)
            with self._io:
                self._notice_ends()
                mine = {
                    peer for peer, link in self._links.items() if link.is_open and link.find(self._is_join)
                }
                decided = self._decide(mine | {self.rank})
                for peer, link in self._links.items():
                    if peer in decided:
                        link.post(encode(self._control(Kind.DECIDED)))
                        link.flush()
                    elif self.rank in decided:
                        link.give_up()
            if self.rank not in decided:
                raise PeerLost(
                    f"ranks {sorted(decided)} went on without this rank ({self.rank}), which came too late"
                )
            return tuple(sorted(decided))

    def subset(self, ranks: Sequence[int]) -> Mesh:
        """A mesh of these ranks, numbered by their place in `ranks`. It takes over the sockets; this one is closed.

        Every rank of the subset calls it with the same `ranks`. Ranks outside see an orderly close.
        """
        self._check_usable("subset")
        chosen = [_index(rank) for rank in ranks]
        outside = [rank for rank in chosen if not 0 <= rank < self.world_size]
        if outside or len(set(chosen)) != len(chosen) or self.rank not in chosen:
            raise ConfigError(
                f"ranks={chosen} must be different ranks of 0..{self.world_size - 1}, this one ({self.rank}) among them"
            )
        for peer in chosen:
            if peer != self.rank and not self._links[peer].is_open:
                raise PeerLost(f"rank {peer} of the subset is gone", peer=peer)
        with self._turn:
            links = [self._links.pop(peer) if peer != self.rank else None for peer in chosen]
            ledger = self._ledger.share() if self._ledger and len(chosen) > 1 else None
            branch = zlib.crc32(repr((self._branch, chosen)).encode())
            self._retire("taken over by subset()")
        return Mesh(chosen.index(self.rank), links, ledger, self.timeout, self._depth + 1, branch)

    def close(self) -> None:
        """Says farewell, so that no peer takes it for a crash, and closes the sockets. May be called twice."""
        if not self._closed:
            self._retire("closed")

    def __enter__(self) -> Mesh:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        """Leaving by an exception is no orderly end: the peers see a crash."""
        if error is None:
            self.close()
        else:
            self._abandon("left by an exception")

    def __del__(self) -> None:
        if getattr(self, "_closed", "never connected") == "":
            self._abandon(
                "dropped", join=False
            )  # at the end of the interpreter the thread would never answer

    # What follows runs under `_turn`.

    def _wait(self, done: Callable[[], bool], late: Callable[[], None], deadline: Deadline) -> None:
        """Moves bytes until `done()`, or calls `late()` at the deadline."""
        while True:
            with self._io:
                for link in self._links.values():
                    link.flush()
                    link.pump()
                if done():
                    return
                poll, limit_s = select.poll(), _WAKE_S
                for link in self._links.values():
                    if link.is_open:
                        poll.register(
                            link, select.POLLIN | (select.POLLOUT if link.unsent and not link.crowded else 0)
                        )
                        limit_s = _CROWDED_S if link.crowded else limit_s
            if deadline.expired():
                return late()
            poll.poll(deadline.poll_ms(limit_s))

    def _gather(self, call: _Call) -> bool:
        waiting = [peer for peer in self._links if peer not in call.got]
        gone = None
        for peer in waiting:
            link = self._links[peer]
            frame = link.take(
                lambda f: f.kind is Kind.DATA and self._is_mine(f) and f.sequence == call.sequence
            )
            if frame is not None:
                call.got[peer] = Message(frame.payload, frame.fds)
                call.tags[peer] = frame.tag
            elif not link.is_open and gone is None:
                gone = peer
            elif other := link.find(lambda f: f.depth == self._depth and f.branch != self._branch):
                raise ConfigError(
                    f"rank {peer} made another subset() than rank {self.rank} (its tag: {other.tag!r})"
                )
        if gone is not None:
            self._check_tags(call)
            link = self._links[gone]
            how = (
                "closed its mesh"
                if link.state is State.LEFT
                else f"died{': ' if link.reason else ''}{link.reason}"
            )
            raise PeerLost(f"{call.tag!r}: rank {gone} {how}", peer=gone)
        if len(call.got) < len(self._links):
            for peer, link in self._links.items():
                if link.find(lambda f: f.kind is Kind.JOIN and self._is_mine(f) and f.sequence > self._epoch):
                    raise TransportError(
                        f"{call.tag!r}: rank {peer} asks who survives; call survivors() as well"
                    )
            return False
        self._check_tags(call)
        return not any(link.unsent and link.is_open for link in self._links.values())

    def _check_tags(self, call: _Call) -> None:
        for peer, tag in sorted(call.tags.items()):
            if tag != call.tag:
                raise ConfigError(
                    f"ranks call different things: rank {self.rank} is at {call.tag!r}, rank {peer} at {tag!r} "
                    f"(call {call.sequence})"
                )

    def _overdue(self, call: _Call, deadline: Deadline) -> None:
        self._check_tags(call)
        missing = [peer for peer, link in self._links.items() if peer not in call.got or link.unsent]
        names = ", ".join(map(str, missing))
        raise TimeoutError(
            f"{call.tag!r}: rank {self.rank} waited {deadline.timeout:g} s for ranks {names}",
            what=call.tag,
            missing=missing,
        )

    def _all_joined(self) -> bool:
        if self._ledger and self._ledger.decision(self._name, self._epoch) is not None:
            return True
        return all(not link.is_open or link.find(self._is_join) for link in self._links.values())

    def _decide(self, proposal: set[int]) -> set[int]:
        if self._ledger is None:
            return proposal
        bits = sum(1 << rank for rank in proposal).to_bytes(self._ledger.value_bytes, "little")
        decided = int.from_bytes(self._ledger.decide(self._name, self._epoch, bits), "little")
        return {rank for rank in range(self.world_size) if decided >> rank & 1}

    def _control(self, kind: Kind) -> Frame:
        return Frame(kind, self._depth, self._branch, self._epoch)

    def _is_mine(self, frame: Frame) -> bool:
        return frame.depth == self._depth and frame.branch == self._branch

    def _is_join(self, frame: Frame) -> bool:
        return frame.kind is Kind.JOIN and self._is_mine(frame) and frame.sequence == self._epoch

    def _is_over(self, frame: Frame, sequence: int) -> bool:
        """Whether a frame belongs to a call that nobody will come back to."""
        if not self._is_mine(frame):
            return frame.depth < self._depth
        return frame.sequence < sequence if frame.kind is Kind.DATA else frame.sequence <= self._epoch

    @property
    def _name(self) -> int:
        return self._depth << 32 | self._branch

    def _notice_ends(self) -> None:
        """Takes in what came before the end of each socket that has ended."""
        poll = select.poll()
        links = {link.fileno(): link for link in self._links.values() if link.is_open}
        for fd in links:
            poll.register(fd, select.POLLRDHUP)
        for fd, _ in poll.poll(0):
            links[fd].pump()

    @contextlib.contextmanager
    def _my_turn(self, what: str, deadline: Deadline) -> Iterator[None]:
        self._check_usable(what)
        if not self._turn.acquire(timeout=-1 if deadline.forever else deadline.remaining()):
            raise TimeoutError(
                f"{what!r}: another thread's call on this mesh did not end", what=what, peer=self.rank
            )
        try:
            self._check_usable(what)
            yield
        finally:
            self._turn.release()

    def _check_usable(self, what: str) -> None:
        if self._closed:
            raise ConfigError(f"{what!r} on a mesh that is {self._closed}")

    def _retire(self, why: str) -> None:
        with self._io:
            farewell = encode(Frame(Kind.FAREWELL, self._depth, self._branch, 0))
            for link in self._links.values():
                link.post(farewell)
                link.flush()
        self._abandon(why)

    def _abandon(self, why: str, *, join: bool = True) -> None:
        self._closed = why
        if self._watcher is not None:
            self._watcher.stop(join=join)
        with self._io:
            for link in self._links.values():
                link.close()
            if self._ledger is not None:
                self._ledger.close()


@dataclasses.dataclass
class _Call:
    """One exchange under way."""

    tag: str
    sequence: int
    got: dict[int, Message] = dataclasses.field(default_factory=dict)
    tags: dict[int, str] = dataclasses.field(default_factory=dict)


def check_same(mesh: Mesh, what: str, fields: Mapping[str, object], *, timeout: float | None = None) -> None:
    """Refuses a configuration in which ranks differ, naming each field, its values and the ranks: ConfigError.

    Values are compared by their repr(), which must not contain an address; the order of sets and dicts is ignored.
    """
    texts = {name: _text(fields[name]) for name in sorted(fields)}
    for name, text in texts.items():
        if " at 0x" in text:
            raise ConfigError(f"{what}: field {name!r} = {text} cannot be compared between ranks")
    packed = "\0".join(f"{name}\1{text}" for name, text in texts.items()).encode()
    digest = hashlib.sha256(packed).digest()
    if len({message.payload for message in mesh.exchange(f"check {what}", digest, timeout=timeout)}) == 1:
        return
    everyone = []
    for message in mesh.exchange(f"fields of {what}", packed, timeout=timeout):
        pairs = [pair.split("\1") for pair in message.payload.decode().split("\0")] if message.payload else []
        everyone.append(dict(pairs))
    complaints = []
    for name in sorted(set().union(*everyone)):
        first: dict[str, int] = {}
        for rank, theirs in enumerate(everyone):
            first.setdefault(theirs.get(name, "nothing"), rank)
        if len(first) > 1:
            values = ", ".join(f"rank {rank} has {text}" for text, rank in first.items())
            complaints.append(f"{name} differs between ranks: {values}")
    raise ConfigError(f"{what}: {'; '.join(complaints)}")


def _text(value: object) -> str:
    if isinstance(value, (set, frozenset)):
        return "{" + ", ".join(sorted(map(_text, value))) + "}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(sorted(f"{_text(k)}: {_text(v)}" for k, v in value.items())) + "}"
    if type(value) in (tuple, list):
        return "[" + ", ".join(map(_text, value)) + "]"  # type: ignore[arg-type]
    return repr(value)


def _index(rank: object) -> int:
    if isinstance(rank, bool) or not hasattr(rank, "__index__"):
        raise ConfigError(f"ranks contains {rank!r}, which is not an int")
    return int(rank)  # type: ignore[call-overload, no-any-return]


def _close_in_child() -> None:
    """A forked child must not hold our sockets open: peers would not notice when we die."""
    for mesh in list(_meshes):
        mesh._closed = "another process's: it was made before a fork"
        for link in mesh._links.values():
            link.sock.close()
        if mesh._ledger is not None:
            mesh._ledger.close()


_meshes: weakref.WeakSet[Mesh] = weakref.WeakSet()
os.register_at_fork(after_in_child=_close_in_child)
