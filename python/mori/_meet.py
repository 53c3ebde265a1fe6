# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Connects the ranks of one host, each with each, by Unix sockets whose addresses travel over a rendezvous.

The sockets lie in Linux's abstract namespace under a random name: there is no file, so nothing outlives a
crash. Who connects must run as the same user (SO_PEERCRED) and know the secret that only the rendezvous
carried.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import secrets
import select
import socket
import struct
import time

from ._deadline import Deadline
from ._link import Frame, Kind, Link, encode
from .bootstrap import Rendezvous
from .errors import ConfigError, PeerLost, TimeoutError, TransportError
from .uid import host_mark

_ADDRESS = struct.Struct("<8sQQ16s16s")  # host, network namespace, user, name of the socket, secret
_HELLO = struct.Struct("<16sI")  # secret of the one called, rank of the caller
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid
TAG = "mesh"


def meet(rendezvous: Rendezvous, deadline: Deadline) -> list[Link | None]:
    """A link to every other rank, by rank; None for ourselves."""
    rank, size = rendezvous.rank, rendezvous.world_size
    name, secret = secrets.token_bytes(16), secrets.token_bytes(16)
    links: list[Link | None] = [None] * size
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(_path(name))
        listener.listen(size + 16)
        mine = (host_mark(), os.stat("/proc/self/ns/net").st_ino, os.geteuid(), name, secret)
        answers = rendezvous.exchange(TAG, _ADDRESS.pack(*mine), timeout=deadline.as_timeout())
        addresses = [_ADDRESS.unpack(answer) for answer in answers]
        _check_one_host(rank, addresses)
        try:
            for peer in range(rank):
                links[peer] = _call(addresses[peer][3], addresses[peer][4], rank, peer, deadline)
            _answer(listener, secret, rank, links, deadline)
        except BaseException:
            for link in links:
                if link is not None:
                    link.close()
            raise
    return links


def _path(name: bytes) -> bytes:
    return b"\0mori-" + name.hex().encode()


def _check_one_host(rank: int, addresses: list[tuple[bytes, int, int, bytes, bytes]]) -> None:
    for peer, (host, namespace, user, _, _) in enumerate(addresses):
        if host != addresses[rank][0]:
            raise ConfigError(
                f"rank {peer} is on another host than rank {rank}; between hosts an RDMA transport is "
                "needed, and this build reaches only ranks of one host"
            )
        if namespace != addresses[rank][1]:
            raise ConfigError(
                f"rank {peer} is on the same host as rank {rank}, but in another network namespace "
                "(a container?); run them in one, e.g. with --network=host"
            )
        if user != addresses[rank][2]:
            raise ConfigError(
                f"rank {peer} runs as user {user}, rank {rank} as user {addresses[rank][2]}; use one user"
            )


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


def _answer(listener: socket.socket, secret: bytes, rank: int, links: list[Link | None], deadline: Deadline) -> None:
    """Accepts the ranks above ours. Strangers, silent ones too, hold nobody up."""
    listener.setblocking(False)
    missing = set(range(rank + 1, len(links)))
    strangers: list[Link] = []
    try:
        while missing:
            if deadline.expired():
                raise _late(sorted(missing))
            poll = select.poll()
            poll.register(listener, select.POLLIN)
            for link in strangers:
                poll.register(link, select.POLLIN)
            poll.poll(deadline.poll_ms())
            with contextlib.suppress(BlockingIOError):
                while True:
                    sock, _ = listener.accept()
                    if _user_of(sock) == os.geteuid():
                        strangers.append(Link(sock))
                    else:
                        sock.close()
            for link in list(strangers):
                link.pump()
                hello = link.take(lambda frame: frame.kind is Kind.HELLO)
                if hello is None and link.is_open:
                    continue
                strangers.remove(link)
                peer = _known(hello, secret)
                if peer in missing:
                    missing.discard(peer)
                    links[peer] = link
                else:
                    link.close()
    finally:
        for link in strangers:
            link.close()


def _known(hello: Frame | None, secret: bytes) -> int:
    """The rank that says hello, or -1 if it does not know our secret."""
    if hello is None or len(hello.payload) != _HELLO.size:
        return -1
    said, peer = _HELLO.unpack(hello.payload)
    return int(peer) if hmac.compare_digest(said, secret) else -1


def _user_of(sock: socket.socket) -> int:
    return int(_CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))[1])


def _late(missing: list[int]) -> TimeoutError:
    names = ", ".join(map(str, missing))
    return TimeoutError(f"connecting the mesh: ranks {names} did not come in time", what=TAG, missing=missing)
