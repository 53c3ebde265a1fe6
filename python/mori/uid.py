# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The 128-byte unique id: where the ranks of one context meet, in a form that any channel can carry.

It holds the address of a torch TCPStore in the process that made it, a random token (so that ids never
collide) and a mark of the host. One store serves all ids made by a process for an address; it lives as long
as the process.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import os
import secrets
import socket
import struct
import threading
import zlib
from pathlib import Path
from typing import Any

from . import config
from ._deadline import Deadline, call_within
from .errors import ConfigError, TimeoutError, TransportError

__all__ = ["UID_BYTES", "UniqueId", "connect", "host_mark", "unique_id"]

UID_BYTES = 128
_MAGIC = b"MoRI\x01"
_LAYOUT = struct.Struct("<5sB16s8sH")  # magic, length of the host, token, host mark, port; then host, zeros, CRC-32
_HOST_BYTES = UID_BYTES - _LAYOUT.size - 4

# What a process must keep alive for others: its stores. Keyed by process id too, as a forked child does not
# own its parent's server thread.
_kept: dict[tuple[Any, ...], Any] = {}
_kept_lock = threading.Lock()


@dataclasses.dataclass(frozen=True)
class UniqueId:
    """What the 128 bytes say."""

    host: str
    port: int
    token: bytes
    host_mark: bytes

    def pack(self) -> bytes:
        name = self.host.encode()
        if len(name) > _HOST_BYTES:
            raise ConfigError(f"host={self.host!r} has {len(name)} bytes; a unique id has room for {_HOST_BYTES}")
        body = _LAYOUT.pack(_MAGIC, len(name), self.token, self.host_mark, self.port) + name.ljust(_HOST_BYTES, b"\0")
        return body + zlib.crc32(body).to_bytes(4, "little")

    @classmethod
    def parse(cls, uid: bytes) -> UniqueId:
        if not isinstance(uid, (bytes, bytearray, memoryview)):
            raise ConfigError(f"uid is a {type(uid).__name__}; it must be the {UID_BYTES} bytes of unique_id()")
        data = bytes(uid)
        if len(data) != UID_BYTES:
            raise ConfigError(f"uid has {len(data)} bytes; unique_id() makes {UID_BYTES}")
        if not data.startswith(_MAGIC) or zlib.crc32(data[:-4]).to_bytes(4, "little") != data[-4:]:
            raise ConfigError("uid is not an id made by unique_id(), or was damaged on its way (checksum)")
        _, length, token, mark, port = _LAYOUT.unpack_from(data)
        return cls(data[_LAYOUT.size :][:length].decode(), port, token, mark)


def unique_id(host: str | None = None, port: int = 0) -> bytes:
    """Makes the id of one context: call it once, in any process, and bring the 128 bytes to all ranks.

    host: address at which this process listens and the ranks reach it; default MORI_BOOTSTRAP_HOST, else
    127.0.0.1. port: 0 takes a free one. The process must live until all ranks have met. Needs torch.
    """
    host = host or config.load().bootstrap_host or "127.0.0.1"
    if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port < 1 << 16:
        raise ConfigError(f"port={port!r} is outside 0..65535")
    key = ("server", host, port)
    with _kept_lock:
        store = _kept.get((os.getpid(), *key))
        if store is None:
            store = _serve(host, port)
            _kept[(os.getpid(), *key)] = store
    return UniqueId(host, store.port, secrets.token_bytes(16), host_mark()).pack()


def connect(uid: UniqueId, deadline: Deadline) -> Any:
    """A client of the store behind an id."""
    tcp_store = _tcp_store_class()
    where = f"{uid.host}:{uid.port}"

    def late() -> Exception:
        return TimeoutError(f"the store at {where} did not answer within {deadline.timeout:g} s", what="rendezvous")

    def open_client() -> Any:
        # A plain connection first: torch would retry a refused one until the deadline, and write about it.
        try:
            socket.create_connection((uid.host, uid.port), timeout=min(deadline.remaining(), 3600)).close()
        except OSError as error:
            raise TransportError(f"cannot reach the store at {where}: {error}{_why_unreachable(uid)}") from error
        return tcp_store(uid.host, uid.port, None, False, store_timeout(deadline), False)

    try:
        return call_within(deadline, open_client, late, grace_s=0.5)
    except RuntimeError as error:
        raise TransportError(f"the store at {where} failed: {str(error).splitlines()[0]}") from error


def host_mark() -> bytes:
    """Eight bytes that differ between running systems; containers of one host share them."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_bytes()
    except OSError:
        boot = socket.gethostname().encode()
    return hashlib.sha256(boot).digest()[:8]


def store_timeout(deadline: Deadline) -> datetime.timedelta:
    """A deadline as torch's stores take it."""
    return datetime.timedelta(seconds=max(0.001, min(deadline.remaining(), 86400.0 * 365)))


def keep(key: tuple[Any, ...], value: Any) -> None:
    with _kept_lock:
        _kept[(os.getpid(), *key)] = value


def kept(key: tuple[Any, ...]) -> Any:
    with _kept_lock:
        return _kept.get((os.getpid(), *key))


def _why_unreachable(uid: UniqueId) -> str:
    if uid.host_mark != host_mark():
        return (
            "; the id was made on another host: give unique_id(host=...), or MORI_BOOTSTRAP_HOST there, "
            "an address that this host reaches"
        )
    return "; has the process that made the id ended?"


def _serve(host: str, port: int) -> Any:
    tcp_store = _tcp_store_class()
    try:
        # Our own listening socket, because torch's would listen on all interfaces.
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=1024)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"unique_id() cannot listen on host={host!r}, port={port}: {error}") from error
    chosen = listener.getsockname()[1]
    forever = datetime.timedelta(days=365)
    return tcp_store(host, chosen, None, True, forever, False, master_listen_fd=listener.detach())


def _tcp_store_class() -> Any:
    try:
        from torch.distributed import TCPStore  # type: ignore[attr-defined]
    except ImportError as error:
        raise ConfigError(f"a unique id needs torch.distributed, which cannot be imported: {error}") from error
    return TCPStore


def _forget_in_child() -> None:
    """After a fork: the parent's server threads are not here, and joining them at exit would never end."""
    global _kept_lock
    _kept_lock = threading.Lock()
    _inherited.append(dict(_kept))
    _kept.clear()


_inherited: list[dict[tuple[Any, ...], Any]] = []
os.register_at_fork(after_in_child=_forget_in_child)
