# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The control plane between ranks: small messages, file descriptors, and who is still alive.

    mesh = Mesh.connect(rendezvous(group, timeout=30), timeout=30)
    handles = mesh.exchange("heap", my_handle, [my_fd])         # every rank's bytes and descriptors, by rank
    mesh.barrier()

All ranks make the same calls in the same order; whoever does not is told so. Every wait has a deadline, a
rank that died is noticed at once by the end of its socket, and those left over agree on who they are with
`survivors()`. Ranks may be processes or threads. docs/bootstrap.md tells how it works.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import struct
import threading
import weakref
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from types import TracebackType

from ._deadline import Deadline
from ._hub import Hub
from ._ledger import Ledger, StoreLedger
from ._link import Frame, Kind, Link, State, close_fds
from ._meet import meet
from ._same import check_same
from .bootstrap import Rendezvous
from .errors import ConfigError, PeerLost, TimeoutError, TransportError

__all__ = ["Mesh", "Message", "check_same"]

_LOOK_S = 0.1  # how often an agreement looks at the ledger by itself, in case the one who decided died
_NUMBERS = struct.Struct("<QQ")  # of reunite(): the next exchange, the last roll call


@dataclasses.dataclass(frozen=True)
class Message:
    """One rank's part of an exchange. Whoever receives `fds` owns them, and closes them."""

    payload: bytes = b""
    fds: tuple[int, ...] = ()


class Mesh:
    """Made with `connect()` or `subset()`. Threads may share it; their calls then take turns."""

    rank: int
    world_size: int
    timeout: float

    def __init__(
        self,
        rank: int,
        links: Sequence[Link | None],
        ledger: Ledger | StoreLedger | None,
        timeout: float,
        *,
        lineage: _Lineage,
        neighbours: frozenset[int] | None = None,
    ) -> None:
        self.rank, self.world_size, self.timeout = rank, len(links), timeout
        self._hub, self._ledger, self._lineage = Hub(links), ledger, lineage
        #: ranks of this host, this one too: descriptors reach them, and no others
        self.neighbours = frozenset(range(len(links))) if neighbours is None else neighbours
        #: by which ranks of other hosts reach this one: that of a connection which one of them has; "" without any
        self.address = next((link.address for link in links if link is not None and not link.carries_fds), "")
        self._sequence = 0  # of the next exchange
        self._completed = 0  # the first exchange that did not succeed here
        self._epoch = 0  # how often survivors() was called
        self._rolls = 0  # how often roll_call() was
        self._away = ""  # or how the others went on without this rank
        self._turn = threading.Lock()
        self._closed = ""  # or why it cannot be used
        _meshes.add(self)

    @classmethod
    def connect(cls, rendezvous: Rendezvous, *, timeout: float) -> Mesh:
        """Joins all ranks of a rendezvous, which may be closed afterwards.

        `timeout` is in seconds (0 waits for ever) and also the default of every later call. Raises
        TimeoutError naming the ranks that did not come, ConfigError if they are not on one host, in one
        network namespace and of one user.
        """
        deadline = Deadline(timeout)
        if rendezvous.world_size == 1:
            return cls(0, [None], None, timeout, lineage=_Lineage())
        met = meet(rendezvous, deadline)
        mesh = cls(rendezvous.rank, met.links, None, timeout, lineage=_Lineage(), neighbours=met.neighbours)
        try:
            value_bytes = (mesh.world_size + 7) // 8
            if met.hosts:
                mesh._ledger = rendezvous.ledger(value_bytes)
                mesh.exchange("ledger", timeout=deadline.as_timeout())
                return mesh
            if mesh.rank == 0:
                mesh._ledger = Ledger.create(value_bytes)
            fds = [mesh._ledger.fd] if mesh._ledger else []
            messages = mesh.exchange("ledger", b"", fds, timeout=deadline.as_timeout())
            if mesh._ledger is None:
                mesh._ledger = Ledger(messages[0].fds[0], value_bytes)
        except BaseException:
            mesh._abandon("not connected")
            raise
        return mesh

    @property
    def remote(self) -> tuple[int, ...]:
        """Ranks of other hosts."""
        return tuple(peer for peer in range(self.world_size) if peer not in self.neighbours)

    def exchange(
        self, tag: str, payload: bytes = b"", fds: Sequence[int] = (), *, timeout: float | None = None
    ) -> list[Message]:
        """An all-gather of bytes and file descriptors.

        Gives every rank's message, by rank. Our own entry has our payload and no descriptors; received
        descriptors belong to the caller, and come from ranks of this host only. Raises ConfigError if ranks call with
        different tags, PeerLost at once if a rank that is needed has died or closed, TimeoutError naming the ranks that
        did not come. After an error, ranks may go on with the next call.
        """
        deadline = Deadline(self.timeout if timeout is None else timeout)
        with self._my_turn(tag, deadline):
            call = _Call(tag, self._sequence, set(self._hub.links))
            with self._hub.lock:
                for link in self._hub.links.values():
                    link.drop(lambda frame: self._is_over(frame, call.sequence))
                self._hub.post(self._frame(Kind.DATA, call.sequence, tag, bytes(payload), tuple(fds)))
            self._sequence += 1  # only here: a call refused for its arguments is none
            try:
                if not self._hub.wait(lambda changed: self._gather(call, changed), deadline):
                    self._overdue(call, deadline)
            except BaseException:
                for message in call.got.values():
                    close_fds(message.fds)
                raise
            self._completed = self._sequence
            return [call.got.get(peer) or Message(bytes(payload)) for peer in range(self.world_size)]

    def barrier(self, tag: str = "barrier", *, timeout: float | None = None) -> None:
        """Returns when all ranks have called it; raises as `exchange()` does."""
        self.exchange(tag, timeout=timeout)

    def lost(self) -> frozenset[int]:
        """Ranks whose socket ended without a farewell: they crashed, or gave this rank up."""
        return self._hub.lost()

    def watch(self, callback: Callable[[int], None]) -> None:
        """Calls `callback(rank)` once for each rank lost, from a daemon thread, until the mesh is closed.

        The mesh holds the callback, and the thread too: whoever owns the mesh should pass a weak reference of
        itself, if it wants to be collected without `close()`.
        """
        with self._my_turn("watch", Deadline(self.timeout)):
            self._hub.watch(callback)

    def survivors(self, *, timeout: float) -> tuple[int, ...]:
        """Agrees on who is left: the ranks that call this within `timeout`. Whoever returns has the same
        answer.

        Returns as soon as every rank has called it or died. Sockets to the others are then closed; go on with
        `mesh.subset(mesh.survivors(timeout=5))`. A rank that comes after the others decided without it gets
        PeerLost. Ranks that wait in `exchange()` meanwhile get TransportError, so that they call this as
        well.
        """
        deadline = Deadline(timeout)
        with self._my_turn("survivors", deadline):
            self._epoch += 1
            ballot = _Ballot(Kind.JOIN, Kind.DECIDED, self._lineage.name, self._epoch)
            decided = self._agree(ballot, self._completed.to_bytes(8, "little"), frozenset(), deadline)
            if self.rank not in decided:
                raise PeerLost(f"ranks {sorted(decided)} went on without rank {self.rank}, which came too late")
            with self._hub.lock:
                for peer in self._hub.links.keys() - decided:
                    self._hub.links[peer].give_up()
            return tuple(sorted(decided))

    def roll_call(self, *, timeout: float, without: Collection[int] = ()) -> tuple[int, ...]:
        """Agrees on who is here: the ranks that call this within `timeout`. Whoever returns has the same answer.

        Returns as soon as every rank has called it or died, but for those in `without`, which are not awaited.
        Nothing is closed. A rank that comes after the others decided without it gets PeerLost, then and from every
        later roll call, until `reunite()`.
        """
        deadline = Deadline(timeout)
        with self._my_turn("roll_call", deadline):
            if self._away:
                raise PeerLost(self._away)
            self._rolls += 1
            ballot = _Ballot(Kind.ROLL, Kind.CALLED, self._lineage.name | 1 << 63, self._rolls)
            with self._hub.lock:
                for link in self._hub.links.values():
                    link.drop(lambda f: f.kind in (Kind.ROLL, Kind.CALLED) and f.sequence < self._rolls)
            decided = self._agree(ballot, b"", frozenset(without), deadline)
            if self.rank not in decided:
                self._away = f"ranks {sorted(decided)} went on without rank {self.rank}, which came too late"
                raise PeerLost(self._away)
            return tuple(sorted(decided))

    def reunite(self, payload: bytes = b"", *, timeout: float) -> list[bytes]:
        """Brings all ranks back into step, those that roll calls left out too. Collective over all ranks, in no order
        with exchanges that failed; gives every rank's payload, by rank. Whoever returns should meet the others in
        a barrier: a rank that called this in vain before counts as here. Raises as `exchange()`."""
        deadline = Deadline(timeout)
        with self._my_turn("reunite", deadline):
            mine = _NUMBERS.pack(self._sequence, self._rolls)
            with self._hub.lock:
                self._hub.post(self._frame(Kind.BACK, 0, payload=mine + bytes(payload)))
            if not self._hub.wait(lambda changed: not self._not_back(), deadline):
                missing = self._not_back()
                text = f"'reunite': rank {self.rank} waited {deadline.timeout:g} s for ranks {missing}"
                raise TimeoutError(text, what="reunite", missing=missing)
            told = {self.rank: mine + bytes(payload)}
            with self._hub.lock:
                for peer, link in self._hub.links.items():
                    while (frame := link.take(lambda f: self._is_mine(f, Kind.BACK))) is not None:
                        told[peer] = frame.payload
            numbers = [_NUMBERS.unpack_from(part) for part in told.values()]
            self._sequence = self._completed = max(sequence for sequence, _ in numbers)
            self._rolls, self._away = max(rolls for _, rolls in numbers), ""
            return [told[peer][_NUMBERS.size :] for peer in range(self.world_size)]

    def subset(self, ranks: Sequence[int]) -> Mesh:
        """A mesh of these ranks, numbered by their place in `ranks`. It takes over the sockets; this one is
        closed.

        Every rank of the subset calls it with the same `ranks`. Ranks outside see an orderly close.
        """
        chosen = [_index(rank) for rank in ranks]
        outside = [rank for rank in chosen if not 0 <= rank < self.world_size]
        if outside or len(set(chosen)) != len(chosen) or self.rank not in chosen:
            raise ConfigError(
                f"ranks={chosen} must be different ranks of 0..{self.world_size - 1}, this one ({self.rank}) among them"
            )
        with self._my_turn("subset", Deadline(self.timeout)):
            gone = self._hub.lost() | {peer for peer, link in self._hub.links.items() if not link.is_open}
            for peer in chosen:
                if peer in gone:
                    raise PeerLost(f"rank {peer} of the subset is gone", peer=peer)
            links = [None if peer == self.rank else self._hub.links[peer] for peer in chosen]
            ledger = self._ledger.share() if self._ledger and len(chosen) > 1 else None
            self._hub.release([peer for peer in chosen if peer != self.rank])
            self._retire("taken over by its subset()")
        lineage, near = self._lineage.child(chosen), frozenset(chosen.index(r) for r in chosen if r in self.neighbours)
        return Mesh(chosen.index(self.rank), links, ledger, self.timeout, lineage=lineage, neighbours=near)

    def close(self) -> None:
        """Says farewell, so that no peer takes it for a crash, and closes the sockets."""
        if not self._closed:
            self._retire("closed")

    def __enter__(self) -> Mesh:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Leaving by an exception is no orderly end: the peers see a crash."""
        if error is None:
            self.close()
        elif not self._closed:
            self._abandon("left by an exception")

    def __del__(self) -> None:
        if getattr(self, "_closed", "never made") == "":
            self._abandon("dropped", join=False)  # at the interpreter's end the thread would never answer

    # An exchange, under `_turn` and the hub's lock.

    def _gather(self, call: _Call, changed: Iterable[int]) -> bool:
        """Takes what has come; whether the call is complete, and all of ours is sent."""
        for peer in call.waiting.intersection(changed):
            link = self._hub.links[peer]
            frame = link.take(lambda f: self._is_mine(f, Kind.DATA) and f.sequence == call.sequence)
            if frame is not None:
                call.got[peer], call.tags[peer] = Message(frame.payload, frame.fds), frame.tag
                call.waiting.discard(peer)
            elif not link.is_open:
                self._check_usable(call.tag)  # another thread may have closed it meanwhile
                self._check_tags(call)
                how = "closed its mesh" if link.state is State.LEFT else f"died{link.reason and ': '}{link.reason}"
                raise PeerLost(f"{call.tag!r}: rank {peer} {how}", peer=peer)
            elif link.find(self._is_of_sibling):
                raise ConfigError(f"rank {peer} gave another list of ranks to subset() than rank {self.rank}")
        if call.waiting:
            for peer in changed:
                if self._hub.links[peer].find(lambda frame: self._calls_off(frame, call)):
                    raise TransportError(f"{call.tag!r}: rank {peer} asks who survives; call survivors() as well")
            return False
        self._check_tags(call)
        return not any(link.unsent and link.is_open for link in self._hub.links.values())

    def _check_tags(self, call: _Call) -> None:
        for peer, tag in sorted(call.tags.items()):
            if tag != call.tag:
                raise ConfigError(
                    f"ranks call different things: rank {self.rank} is at {call.tag!r}, "
                    f"rank {peer} at {tag!r} (call {call.sequence})"
                )

    def _overdue(self, call: _Call, deadline: Deadline) -> None:
        self._check_tags(call)
        missing = [peer for peer, link in self._hub.links.items() if peer in call.waiting or link.unsent]
        names = ", ".join(map(str, missing))
        text = f"{call.tag!r}: rank {self.rank} waited {deadline.timeout:g} s for ranks {names}"
        raise TimeoutError(text, what=call.tag, missing=missing)

    def _calls_off(self, frame: Frame, call: _Call) -> bool:
        """Whether a peer gave up this call. If it completed it, so shall we: all parts are on their way."""
        if not self._is_mine(frame, Kind.JOIN) or frame.sequence <= self._epoch:
            return False
        return int.from_bytes(frame.payload, "little") <= call.sequence

    # Agreements: who calls.

    def _agree(self, ballot: _Ballot, payload: bytes, without: frozenset[int], deadline: Deadline) -> set[int]:
        """What the ledger says. Under `_turn`."""
        with self._hub.lock:
            self._hub.post(self._frame(ballot.call, ballot.number, payload=payload))
        self._hub.wait(lambda changed: self._all_called(ballot, without), deadline, _LOOK_S)
        with self._hub.lock:
            self._check_usable(ballot.call.name.lower())
            self._hub.notice_ends()
            decided = self._decide(
                ballot, {self.rank} | {peer for peer in self._hub.links if self._called(ballot, peer)}
            )
            if self.rank in decided:
                self._hub.post(self._frame(ballot.decided, ballot.number), decided - {self.rank})
                self._hub.flush()
        return decided

    def _called(self, ballot: _Ballot, peer: int) -> bool:
        link = self._hub.links[peer]
        call = link.find(lambda f: self._is_mine(f, ballot.call) and f.sequence == ballot.number)
        return link.is_open and call is not None

    def _all_called(self, ballot: _Ballot, without: frozenset[int]) -> bool:
        if self._ledger and self._ledger.decision(ballot.name, ballot.number) is not None:
            return True
        return all(
            peer in without or not link.is_open or self._called(ballot, peer) for peer, link in self._hub.links.items()
        )

    def _decide(self, ballot: _Ballot, proposal: set[int]) -> set[int]:
        if self._ledger is None:
            return proposal
        bits = sum(1 << rank for rank in proposal).to_bytes(self._ledger.value_bytes, "little")
        decided = int.from_bytes(self._ledger.decide(ballot.name, ballot.number, bits), "little")
        return {rank for rank in range(self.world_size) if decided >> rank & 1}

    def _not_back(self) -> list[int]:
        with self._hub.lock:
            missing = []
            for peer, link in self._hub.links.items():
                if link.find(lambda f: self._is_mine(f, Kind.BACK)) is None:
                    if not link.is_open:
                        raise PeerLost(f"'reunite': rank {peer} died or closed its mesh", peer=peer)
                    missing.append(peer)
            return missing

    # Frames.

    def _frame(
        self, kind: Kind, sequence: int, tag: str = "", payload: bytes = b"", fds: tuple[int, ...] = ()
    ) -> Frame:
        return Frame(kind, self._lineage.depth, self._lineage.branch, sequence, tag, payload, fds)

    def _is_mine(self, frame: Frame, kind: Kind) -> bool:
        return frame.kind is kind and (frame.depth, frame.branch) == (
            self._lineage.depth,
            self._lineage.branch,
        )

    def _is_of_sibling(self, frame: Frame) -> bool:
        return frame.depth == self._lineage.depth and frame.branch != self._lineage.branch

    def _is_over(self, frame: Frame, sequence: int) -> bool:
        """Whether a frame belongs to a call that nobody will come back to."""
        if frame.depth != self._lineage.depth:
            return frame.depth < self._lineage.depth
        if frame.kind is Kind.DATA:
            return frame.sequence < sequence
        return frame.kind in (Kind.JOIN, Kind.DECIDED) and frame.sequence <= self._epoch

    # Life.

    @contextlib.contextmanager
    def _my_turn(self, what: str, deadline: Deadline) -> Iterator[None]:
        self._check_usable(what)
        if not self._turn.acquire(timeout=-1 if deadline.forever else deadline.remaining()):
            text = f"{what!r}: another thread's call on this mesh did not end in time"
            raise TimeoutError(text, what=what, peer=self.rank)
        try:
            self._check_usable(what)
            yield
        finally:
            self._turn.release()

    def _check_usable(self, what: str) -> None:
        if self._closed:
            raise ConfigError(f"{what!r} on a mesh that is {self._closed}")

    def _retire(self, why: str) -> None:
        self._hub.farewell()
        self._abandon(why)

    def _abandon(self, why: str, *, join: bool = True) -> None:
        self._closed = why
        self._hub.close(join=join)
        if self._ledger is not None:
            self._ledger.close()


@dataclasses.dataclass(frozen=True)
class _Lineage:
    """Which mesh a frame is for: subsets use the sockets of the mesh they came from."""

    depth: int = 0
    branch: int = 0

    @property
    def name(self) -> int:
        return self.depth << 32 | self.branch

    def child(self, ranks: list[int]) -> _Lineage:
        return _Lineage(self.depth + 1, zlib.crc32(repr((self.branch, ranks)).encode()))


@dataclasses.dataclass(frozen=True)
class _Ballot:
    """One agreement: the frames that say "I am here" and "look at the ledger", and the ledger's name for it."""

    call: Kind
    decided: Kind
    name: int
    number: int


@dataclasses.dataclass
class _Call:
    """One exchange under way."""

    tag: str
    sequence: int
    waiting: set[int]
    got: dict[int, Message] = dataclasses.field(default_factory=dict)
    tags: dict[int, str] = dataclasses.field(default_factory=dict)


def _index(rank: object) -> int:
    if isinstance(rank, bool) or not hasattr(rank, "__index__"):
        raise ConfigError(f"ranks contains {rank!r}, which is not an int")
    return int(rank)


def _close_in_child() -> None:
    """A forked child must not hold our sockets open: peers would not notice when we die."""
    for mesh in list(_meshes):
        mesh._closed = "another process's: it was made before a fork"
        mesh._hub.close_in_child()
        if mesh._ledger is not None:
            mesh._ledger.close()


_meshes: weakref.WeakSet[Mesh] = weakref.WeakSet()
os.register_at_fork(after_in_child=_close_in_child)
