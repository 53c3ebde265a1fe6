# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Connects all ranks, each with each, by sockets whose addresses travel over a rendezvous.

Neighbours, ranks of one host, network namespace and user, by Unix sockets in Linux's abstract namespace under a random
name: there is no file, so nothing outlives a crash. Who connects must run as the same user (SO_PEERCRED) and know the
secret that only the rendezvous carried. All others by TCP, where both sides prove that secret (docs/hosts.md).
"""

from __future__ import annotations

import contextlib
import dataclasses
import hmac
import json
import os
import secrets
import select
import socket
import struct
import threading
import time
from typing import NamedTuple

from . import config
from ._deadline import Deadline
from ._greeting import NONCE_BYTES, addresses, prove, same, tune
from ._link import Frame, Kind, Link, encode
from .bootstrap import Rendezvous
from .errors import ConfigError, PeerLost, TimeoutError, TransportError
from .uid import host_mark

_ADDRESS = struct.Struct("<8sQQ16s16s")  # host, network namespace, user, name of the socket, secret
_HELLO = struct.Struct("<16sI")  # secret of the one called, rank of the caller
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid
TAG = "mesh"
_GREETING_S = 3.0  # for an address to answer, before the next is tried


@dataclasses.dataclass(frozen=True)
class Meeting:
    """`links` to every other rank, by rank, None for ourselves; `neighbours`: ranks of this host, this one too;
    `hosts`: whether there are others, anywhere."""

    links: list[Link | None]
    neighbours: frozenset[int]
    hosts: bool


def meet(rendezvous: Rendezvous, deadline: Deadline) -> Meeting:
    rank, size = rendezvous.rank, rendezvous.world_size
    name, secret = secrets.token_bytes(16), secrets.token_bytes(16)
    links: list[Link | None] = [None] * size
    settings = config.load()
    with contextlib.ExitStack() as open_sockets:
        listener = open_sockets.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        listener.bind(_path(name))
        listener.listen(size + 16)
        mine = (host_mark(), os.stat("/proc/self/ns/net").st_ino, os.geteuid(), name, secret)
        answers = rendezvous.exchange(TAG, _ADDRESS.pack(*mine), timeout=deadline.as_timeout())
        ranks = [_ADDRESS.unpack(answer) for answer in answers]
        _check_users(rank, ranks)
        homes = [theirs[:3] for theirs in ranks]
        neighbours = frozenset(peer for peer in range(size) if homes[peer] == homes[rank])
        doors, remote = [listener], {}
        if len(set(homes)) > 1:
            door = open_sockets.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            door.bind(("", 0))
            door.listen(size + 16)
            doors.append(door)
            remote = _exchange_doors(rendezvous, door, settings.socket_ifname, deadline)
        answering = _Answering(doors, secret, rank, links, neighbours, deadline)
        try:
            for peer in range(rank):
                if peer in neighbours:
                    links[peer] = _call(ranks[peer][3], ranks[peer][4], rank, peer, deadline)
                else:
                    links[peer] = _dial(remote[peer], ranks[peer][4], rank, peer, deadline)
            answering.finish()
        except BaseException:
            answering.stop()
            for link in links:
                if link is not None:
                    link.close()
            raise
    return Meeting(links, neighbours, len(set(homes)) > 1)


class _Door(NamedTuple):
    port: int
    addresses: list[str]


def _exchange_doors(
    rendezvous: Rendezvous, door: socket.socket, interface: str, deadline: Deadline
) -> dict[int, _Door]:
    here = addresses(interface)
    mine = json.dumps([door.getsockname()[1], here]).encode()
    found = rendezvous.exchange(f"{TAG} doors", mine, timeout=deadline.as_timeout())
    doors = {}
    for peer, answer in enumerate(found):
        port, there = json.loads(answer)
        # an address that is ours as well (a bridge of containers) is rarely the way to somebody else
        doors[peer] = _Door(port, sorted(there, key=lambda address: address in here))
    return doors


def _path(name: bytes) -> bytes:
    return b"\0mori-" + name.hex().encode()


def _check_users(rank: int, ranks: list[tuple[bytes, int, int, bytes, bytes]]) -> None:
    for peer, (host, namespace, user, _, _) in enumerate(ranks):
        if (host, namespace) == ranks[rank][:2] and user != ranks[rank][2]:
            raise ConfigError(f"rank {peer} runs as user {user}, rank {rank} as user {ranks[rank][2]}; use one user")


def _call(name: bytes, secret: bytes, rank: int, peer: int, deadline: Deadline) -> Link:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        while True:
            try:
                sock.connect(_path(name))
                break
            except BlockingIOError:  # its queue is full for the moment
                if deadline.expired():
                    raise _late([peer]) from None
                time.sleep(0.002)
            except OSError as error:
                raise PeerLost(f"rank {peer} announced itself, but is gone: {error}", peer=peer) from error
        if _user_of(sock) != os.geteuid():
            raise TransportError(f"the socket of rank {peer} belongs to user {_user_of(sock)}; use one user")
        link = Link(sock)
    except BaseException:
        sock.close()
        raise
    link.post(encode(Frame(Kind.HELLO, 0, 0, 0, payload=_HELLO.pack(secret, rank))))
    link.flush()  # some forty bytes into an empty socket: they fit
    return link


def _dial(door: _Door, secret: bytes, rank: int, peer: int, deadline: Deadline) -> Link:
    """Over TCP, by the first of the addresses at which the rank is found."""
    tried = []
    while True:
        for address in door.addresses:
            try:
                return _greet(address, door.port, secret, rank, deadline)
            except OSError as error:
                tried.append(f"{address}:{door.port}: {error}")
        if deadline.expired() or all(": [Errno 111]" in why for why in tried[-len(door.addresses) :]):
            break
    why = "; ".join(dict.fromkeys(tried[-len(door.addresses) :]))
    raise TransportError(
        f"rank {peer} is on another host and cannot be reached over TCP ({why}); see MORI_SOCKET_IFNAME"
    )


def _greet(address: str, port: int, secret: bytes, rank: int, deadline: Deadline) -> Link:
    """OSError if nobody is there who knows the secret."""
    deadline = Deadline(max(min(_GREETING_S, deadline.remaining()), 0.001))
    sock = socket.create_connection((address, port), timeout=deadline.timeout)
    try:
        tune(sock)
        link = Link(sock)
        nonce = _wait_for(link, Kind.CHALLENGE, deadline)
        mine, me = secrets.token_bytes(NONCE_BYTES), rank.to_bytes(4, "little")
        hello = me + mine + prove(secret, b"call", nonce, mine, me)
        link.post(encode(Frame(Kind.HELLO, 0, 0, 0, payload=hello)))
        link.flush()
        if not same(_wait_for(link, Kind.WELCOME, deadline), prove(secret, b"answer", nonce, mine, me)):
            raise OSError("somebody else listens there")
    except BaseException:
        sock.close()
        raise
    return link


def _wait_for(link: Link, kind: Kind, deadline: Deadline) -> bytes:
    poll = select.poll()
    poll.register(link, select.POLLIN)
    while True:
        link.pump()
        frame = link.take(lambda f: f.kind is kind)
        if frame is not None:
            return frame.payload
        if not link.is_open:
            raise OSError(f"it hung up {link.reason}".rstrip())
        if deadline.expired():
            raise OSError("it says nothing")
        poll.poll(deadline.poll_ms())


class _Answering:
    """Accepts the ranks above ours, while this one calls those below: who is greeted over TCP waits for an answer.
    Strangers, silent ones too, hold nobody up. Between ranks of one host nobody waits, and no thread is needed."""

    _LOOK_S = 0.05

    def __init__(
        self,
        doors: list[socket.socket],
        secret: bytes,
        rank: int,
        links: list[Link | None],
        neighbours: frozenset[int],
        deadline: Deadline,
    ) -> None:
        self._doors, self._secret, self._links, self._neighbours = doors, secret, links, neighbours
        self._deadline, self._missing = deadline, set(range(rank + 1, len(links)))
        self._stopped = threading.Event()
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = None
        for door in doors:
            door.setblocking(False)
        if len(doors) > 1:
            self._thread = threading.Thread(target=self._guarded, name="mori-meet", daemon=True)
            self._thread.start()

    def finish(self) -> None:
        """Returns when all have come."""
        if self._thread is None:
            self._run()
        else:
            self._thread.join()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def _guarded(self) -> None:
        try:
            self._run()
        except BaseException as error:  # told by finish()
            self._failure = error

    def _run(self) -> None:
        strangers: dict[Link, bytes] = {}  # and what they were asked
        try:
            while self._missing and not self._stopped.is_set():
                if self._deadline.expired():
                    raise _late(sorted(self._missing))
                poll = select.poll()
                for fd in [door.fileno() for door in self._doors] + [link.fileno() for link in strangers]:
                    poll.register(fd, select.POLLIN)
                poll.poll(self._deadline.poll_ms(3600.0 if self._thread is None else self._LOOK_S))
                for door in self._doors:
                    with contextlib.suppress(BlockingIOError):
                        while True:
                            _let_in(door.accept()[0], strangers)
                for link in list(strangers):
                    self._listen(link, strangers)
        finally:
            for link in strangers:
                link.close()

    def _listen(self, link: Link, strangers: dict[Link, bytes]) -> None:
        link.pump()
        hello = link.take(lambda frame: frame.kind is Kind.HELLO)
        if hello is None and link.is_open:
            return
        peer, welcome = _known(hello, self._secret, strangers.pop(link))
        if peer not in self._missing or (peer in self._neighbours) != link.carries_fds:
            link.close()
            return
        self._missing.discard(peer)
        self._links[peer] = link
        if welcome:
            link.post(encode(Frame(Kind.WELCOME, 0, 0, 0, payload=welcome)))
            link.flush()


def _let_in(sock: socket.socket, strangers: dict[Link, bytes]) -> None:
    if sock.family == socket.AF_UNIX:
        if _user_of(sock) == os.geteuid():
            strangers[Link(sock)] = b""
        else:
            sock.close()
        return
    tune(sock)
    link, nonce = Link(sock), secrets.token_bytes(NONCE_BYTES)
    strangers[link] = nonce
    link.post(encode(Frame(Kind.CHALLENGE, 0, 0, 0, payload=nonce)))
    link.flush()


def _known(hello: Frame | None, secret: bytes, nonce: bytes) -> tuple[int, bytes]:
    """The rank that says hello, -1 if it does not know our secret; and over TCP what it wants to hear."""
    if hello is None:
        return -1, b""
    if nonce:
        me, theirs, proof = hello.payload[:4], hello.payload[4 : 4 + NONCE_BYTES], hello.payload[4 + NONCE_BYTES :]
        if not same(proof, prove(secret, b"call", nonce, theirs, me)):
            return -1, b""
        return int.from_bytes(me, "little"), prove(secret, b"answer", nonce, theirs, me)
    if len(hello.payload) != _HELLO.size:
        return -1, b""
    said, peer = _HELLO.unpack(hello.payload)
    return (int(peer) if hmac.compare_digest(said, secret) else -1), b""


def _user_of(sock: socket.socket) -> int:
    return int(_CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))[1])


def _late(missing: list[int]) -> TimeoutError:
    names = ", ".join(map(str, missing))
    return TimeoutError(f"connecting the mesh: ranks {names} did not come in time", what=TAG, missing=missing)
