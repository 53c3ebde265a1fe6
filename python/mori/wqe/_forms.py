# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Entries in forms that kernels do not post: several data segments, long inline data, receives, and older variants.

Formats: infiniband/mlx5dv.h for mlx5; rdma-core's providers/bnxt_re and providers/ionic (65.0) for the others.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

__all__ = [
    "OPS",
    "Post",
    "bnxt_re_entry",
    "bnxt_re_receive",
    "ionic_entry",
    "ionic_receive",
    "mlx5_entry",
    "mlx5_receive",
]

# name: opcodes of mlx5, bnxt_re, ionic version 2, ionic version 1
OPS = {
    "WRITE": (0x08, 0x04, 0x21, 4),
    "WRITE_IMM": (0x09, 0x05, 0x61, 5),
    "READ": (0x10, 0x06, 0x02, 3),
    "FETCH_ADD": (0x12, 0x0B, 0x05, 7),
    "CMP_SWAP": (0x11, 0x08, 0x04, 6),
    "SEND": (0x0A, 0x00, 0x20, 0),
    "SEND_IMM": (0x0B, 0x01, 0x60, 2),
}


@dataclass(frozen=True)
class Post:
    """A request, in host byte order. `pieces`: (address, bytes) of each data segment; `payload`: inline bytes."""

    op: str
    qpn: int
    index: int  # position in units of the send queue
    ring: int  # its size in units
    length: int
    pieces: tuple[tuple[int, int], ...]
    lkey: int
    remote: int = 0
    rkey: int = 0
    immediate: int = 0
    value: int = 0
    compare: int = 0
    signaled: bool = True
    fence: bool = False
    solicited: bool = False
    inline: bool = False
    payload: bytes = b""

    @property
    def atomic(self) -> bool:
        return self.op in ("FETCH_ADD", "CMP_SWAP")

    @property
    def send(self) -> bool:
        return self.op in ("SEND", "SEND_IMM")


def _padded(data: bytes, unit: int) -> bytes:
    return data + bytes(-len(data) % unit)


def mlx5_entry(post: Post) -> bytes:
    """Control, address, atomic and data segments of 16 bytes; not padded to whole blocks of 64."""
    body = b""
    if not post.send:
        body += struct.pack(">QII", post.remote, post.rkey, 0)
    if post.atomic:
        body += struct.pack(">QQ", post.value, post.compare)
    if post.inline:
        if post.payload:
            body += _padded(struct.pack(">I", len(post.payload) | 1 << 31) + post.payload, 16)
    else:
        body += b"".join(struct.pack(">IIQ", size, post.lkey, at) for at, size in post.pieces if size)
    bits = 0x08 * post.signaled | 0x80 * post.fence | 0x02 * post.solicited
    first = (post.index & 0xFFFF) << 8 | OPS[post.op][0]
    second = post.qpn << 8 | 1 + len(body) // 16
    return struct.pack(">IIBxxBI", first, second, 0, bits, post.immediate) + body


def mlx5_receive(post: Post) -> bytes:
    return b"".join(struct.pack(">IIQ", size, post.lkey, at) for at, size in post.pieces)


def bnxt_re_entry(post: Post) -> bytes:
    """Slots of 16 bytes: header, address, then data segments or inline bytes."""
    flags = 0x01 * post.signaled | 0x04 * post.fence | 0x08 * post.solicited | 0x10 * post.inline
    if post.inline:
        data = _padded(post.payload or b"\0", 16)
    else:
        data = b"".join(struct.pack("<QII", at, post.lkey, size) for at, size in post.pieces)
    header = OPS[post.op][1] | flags << 8 | (2 + len(data) // 16) << 16
    if post.atomic:
        start = struct.pack("<IIQQQ", header, post.rkey, post.remote, post.value, post.compare)
    else:
        where = (0, 0) if post.send else (post.remote, post.rkey)
        start = struct.pack("<IIQQQ", header, post.immediate, post.length, *where)
    return start + data


def bnxt_re_receive(post: Post, number: int) -> bytes:
    data = b"".join(struct.pack("<QII", at, post.lkey, size) for at, size in post.pieces)
    return struct.pack("<IIQQQ", 0x80 | (2 + len(data) // 16) << 16, 0, number, 0, 0) + data


def ionic_entry(post: Post, *, version: int = 2) -> bytes:
    """64 bytes. Version 1 has other opcodes, and a data segment in atomics."""
    first_lap = post.index // post.ring % 2 == 0
    flags = 0x01 * post.fence | 0x02 * post.solicited | 0x04 * post.inline | 0x08 * post.signaled | 0x10 * first_lap
    pieces = () if post.inline else post.pieces
    op = OPS[post.op][2 if version == 2 else 3]
    start = struct.pack("<Q", post.index % post.ring) + struct.pack(">BBHI", op, len(pieces), flags, post.immediate)
    data = b"".join(struct.pack(">QII", at, size, post.lkey) for at, size in pieces)
    if post.atomic:
        body = struct.pack(">QIQQ", post.remote, post.rkey, post.value, post.compare)
        body += struct.pack(">IQ", post.lkey, post.pieces[0][0]) if version == 2 else struct.pack(">I", 0) + data
    else:
        where = (0, 0) if post.send else (post.remote, post.rkey)
        body = struct.pack(">QII", *where, post.length) + (post.payload if post.inline else data)
    return (start + body).ljust(64, b"\0")


def ionic_receive(post: Post) -> bytes:
    start = struct.pack("<Q", post.index % post.ring) + struct.pack(">BBHI", 0, len(post.pieces), 0, post.length)
    data = b"".join(struct.pack(">QII", at, size, post.lkey) for at, size in post.pieces)
    return (start.ljust(32, b"\0") + data).ljust(64, b"\0")
