# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""A failed queue is a TransportError that names the peer, the family and the NIC's reason."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from mori._queue_errors import queue_failure

from mori import TransportError

FAILED = 1 << 63


@pytest.mark.parametrize(
    ("family", "error", "words"),
    [
        (1, 0x13, ["mlx5", "rank 3", "peer's memory is not registered", "0x13"]),
        (1, 0x8A15, ["mlx5", "does not answer", "status 0x15, vendor code 0x8a"]),
        (2, 0x0B, ["bnxt_re", "flushed"]),
        (3, 0x03, ["ionic", "local memory is not registered"]),
        (3, 0xEE, ["ionic", "unknown", "0xee"]),
        (2, 1 << 62, ["bnxt_re", "gave up waiting"]),
        (9, 0x01, ["NIC family 9", "unknown"]),
    ],
)
def test_words(family: int, error: int, words: list[str]) -> None:
    failure = queue_failure(SimpleNamespace(peer=3, expected=family, seen=FAILED | error))
    assert type(failure) is TransportError
    for word in words:
        assert word in str(failure)
