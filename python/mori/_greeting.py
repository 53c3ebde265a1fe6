# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""How ranks of different hosts make sure of each other over TCP, and where a host is reached (docs/hosts.md)."""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import socket
import struct

from .errors import ConfigError

__all__ = ["NONCE_BYTES", "PROOF_BYTES", "addresses", "prove", "same", "tune"]

NONCE_BYTES, PROOF_BYTES = 16, 32
_MOST_ADDRESSES = 6
_SIOCGIFADDR, _SIOCGIFFLAGS = 0x8915, 0x8913
_IFF_UP, _IFF_LOOPBACK = 0x1, 0x8
_SILENCE_S = 15  # of a host that vanished


def prove(secret: bytes, what: bytes, *parts: bytes) -> bytes:
    """32 bytes that only who knows `secret` can make."""
    return hmac.new(secret, b"mori mesh " + what + b"".join(parts), hashlib.sha256).digest()


def same(a: bytes, b: bytes) -> bool:
    return hmac.compare_digest(a, b)


def addresses(interface: str = "") -> list[str]:
    """This host's IPv4 addresses for others: of `interface`, or of all that are up, loopback last."""
    found: list[tuple[bool, str]] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            if interface and name != interface:
                continue
            request = struct.pack("256s", name.encode()[:15])
            try:
                flags = struct.unpack_from("<H", fcntl.ioctl(probe, _SIOCGIFFLAGS, request), 16)[0]
                address = socket.inet_ntoa(fcntl.ioctl(probe, _SIOCGIFADDR, request)[20:24])
            except OSError:  # no IPv4 address
                continue
            if flags & _IFF_UP:
                found.append((bool(flags & _IFF_LOOPBACK), address))
    if not found:
        raise ConfigError(
            f"MORI_SOCKET_IFNAME={interface!r} is no interface with an IPv4 address that is up"
            if interface
            else "no interface of this host is up and has an IPv4 address"
        )
    return [address for _, address in sorted(found)][:_MOST_ADDRESSES]


def tune(sock: socket.socket) -> None:
    """No delays, and an end when the other host has vanished."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        (socket.TCP_KEEPIDLE, 5),
        (socket.TCP_KEEPINTVL, 3),
        (socket.TCP_KEEPCNT, 3),
        (socket.TCP_USER_TIMEOUT, _SILENCE_S * 1000),
    ):
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
