# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""mlx5's masked atomics and NOP, which no verbs driver posts: byte for byte as docs/nic_mlx5.md lays them out."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from mori import _core

NOP, ADD, SWAP = 0, 6, 7
REMOTE, RKEY, LOCAL, LKEY, QPN = 0x1122334455667788, 0xCAFEBABE, 0x0102030405060708, 0x00AA0103, 0x1234
VALUE, COMPARE, VALUE_MASK, COMPARE_MASK = (
    0xF1F2F3F4F5F6F7F8,
    0x0807060504030201,
    0xFF00FF00FF00FF00,
    0x00FF00FF00FF00FF,
)


def encode(op: int, length: int, position: int, **changes: Any) -> dict[str, Any]:
    arguments = {
        "position": position,
        "depth": 64,
        "qpn": QPN,
        "op": op,
        "flags": 1,
        "length": length,
        "immediate": 0,
        "local": LOCAL,
        "remote": REMOTE,
        "lkey": LKEY,
        "rkey": RKEY,
        "value": VALUE & (1 << 8 * length) - 1,
        "compare": COMPARE & (1 << 8 * length) - 1,
        "value_mask": VALUE_MASK & (1 << 8 * length) - 1,
        "compare_mask": COMPARE_MASK & (1 << 8 * length) - 1,
        "payload": b"",
        "packets": 0,
        "mtu": 4096,
    }
    made = _core.ibgda.encode("mlx5", **(arguments | changes))
    return dict(made)


def control(position: int, mode: int, opcode: int, segments: int, signaled: bool = True) -> bytes:
    word = mode << 24 | (position & 0xFFFF) << 8 | opcode
    return struct.pack(">IIIxxxx", word, QPN << 8 | segments, 8 if signaled else 0)[:16]


ADDRESS = struct.pack(">QII", REMOTE, RKEY, 0)


def data(length: int) -> bytes:
    return struct.pack(">IIQ", length, LKEY, LOCAL)


@pytest.mark.parametrize("position", [0, 63, 0xFFFF, 0x10001])
def test_words_of_four_bytes(position: int) -> None:
    add = (
        control(position, 8, 0x15, 4) + ADDRESS + struct.pack(">IIQ", VALUE & 0xFFFFFFFF, COMPARE_MASK & 0xFFFFFFFF, 0)
    )
    assert encode(ADD, 4, position)["wqe"] == add + data(4)
    words = [w & 0xFFFFFFFF for w in (VALUE, COMPARE, VALUE_MASK, COMPARE_MASK)]
    swap = control(position, 8, 0x14, 4) + ADDRESS + struct.pack(">IIII", *words)
    assert encode(SWAP, 4, position)["wqe"] == swap + data(4)


@pytest.mark.parametrize("position", [0, 61, 62, 63, 0xFFFE])
def test_words_of_eight_bytes(position: int) -> None:
    add = control(position, 9, 0x15, 4) + ADDRESS + struct.pack(">QQ", VALUE, COMPARE_MASK) + data(8)
    assert encode(ADD, 8, position)["wqe"] == add
    made = encode(SWAP, 8, position)
    entry = control(position, 9, 0x14, 5, signaled=False) + ADDRESS
    entry += struct.pack(">QQQQ", VALUE, COMPARE, VALUE_MASK, COMPARE_MASK) + data(8)
    # Two blocks, then a NOP that reports: a completion names an entry's first block.
    assert made["wqe"] == entry.ljust(128, b"\0") + control(position + 2, 0, 0, 1).ljust(64, b"\0")
    assert made["units"] == 3
    assert made["record"] == bytes(4) + struct.pack(">I", position + 3 & 0xFFFF)
    assert made["doorbell"] == control(position + 2, 0, 0, 1)[:8]


def test_nop() -> None:
    assert encode(NOP, 0, 7)["wqe"] == control(7, 0, 0, 1).ljust(64, b"\0")
