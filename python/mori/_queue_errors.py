# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""What a NIC's error completion says, in words: docs/ibgda.md, "When something goes wrong"."""

from __future__ import annotations

from typing import Protocol

from mori.errors import TransportError

_FAILED, _ABANDONED = 1 << 63, 1 << 62
_NO_ANSWER = "the peer does not answer"

# Per NIC family: its name, and the status of a requester's completion.
_FAMILIES: dict[int, tuple[str, dict[int, str]]] = {
    1: (
        "mlx5",
        {
            0x01: "local length error",
            0x02: "malformed request",
            0x04: "local memory is not registered, or not for this",
            0x05: "flushed behind an earlier error",
            0x06: "memory window bind error",
            0x10: "bad response",
            0x11: "local access error",
            0x12: "the peer refused the request as invalid",
            0x13: "the peer's memory is not registered there, or not for this",
            0x14: "the peer could not execute the request",
            0x15: _NO_ANSWER,
            0x16: "the peer is not ready to receive",
            0x22: "the peer aborted the request",
        },
    ),
    2: (
        "bnxt_re",
        {
            0x1: "bad response",
            0x2: "local length error",
            0x3: "malformed request",
            0x4: "local memory is not registered, or not for this",
            0x5: "memory management error",
            0x6: "the peer refused the request as invalid",
            0x7: "the peer's memory is not registered there, or not for this",
            0x8: "the peer could not execute the request",
            0x9: "the peer is not ready to receive",
            0xA: _NO_ANSWER,
            0xB: "flushed behind an earlier error",
        },
    ),
    3: (
        "ionic",
        {
            0x1: "local length error",
            0x2: "malformed request",
            0x3: "local memory is not registered, or not for this",
            0x4: "flushed behind an earlier error",
            0x5: "memory management error",
            0x6: "bad response",
            0x7: "local access error",
            0x8: "the peer refused the request as invalid",
            0x9: "the peer's memory is not registered there, or not for this",
            0xA: "the peer could not execute the request",
            0xB: _NO_ANSWER,
            0xC: "the peer is not ready to receive",
            0xD: "XRC domain violation",
        },
    ),
}


class Word(Protocol):
    """The fields of an error word that are used here."""

    @property
    def peer(self) -> int: ...
    @property
    def expected(self) -> int: ...
    @property
    def seen(self) -> int: ...


def no_answer(word: Word) -> bool:
    """Whether the status says that the peer does not answer. The word's wait is "ibgda.error"."""
    _, statuses = _FAMILIES.get(word.expected, ("", {}))
    return not word.seen & _ABANDONED and statuses.get(word.seen & 0xFF) == _NO_ANSWER


def queue_failure(word: Word, trouble: str = "") -> TransportError:
    """The exception for an error word whose wait is "ibgda.error": expected = family, seen = Queue::error. `trouble` is
    what the NIC can say of the peer."""
    name, statuses = _FAMILIES.get(word.expected, (f"NIC family {word.expected}", {}))
    error = word.seen & ~_FAILED
    if error & _ABANDONED:
        why = "an earlier kernel gave up waiting for it"
    else:
        vendor, status = error >> 8, error & 0xFF
        why = f"{statuses.get(status, 'unknown')} (status {status:#x}, vendor code {vendor:#x})"
        why += f", {trouble}" if trouble else ""
    return TransportError(f"the {name} queue to rank {word.peer} failed: {why}; recover() makes another")
