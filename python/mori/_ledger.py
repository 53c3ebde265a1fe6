# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Agreement between processes that may die or be stopped at any instruction.

On one host the ledger is an anonymous file that every rank has open for appending. To decide something, each rank
appends what it proposes, in one write, and then everyone reads the first proposal for that decision: the kernel orders
appends, so there is exactly one first, and nobody ever waits for anybody. A file in memory leaves nothing behind.
"""

from __future__ import annotations

import fcntl
import os
import struct
from typing import Any

from ._deadline import Deadline, call_within
from .errors import TransportError

# 8 bytes of which mesh, 8 of which decision, 4 of length; then the proposal, padded.
_HEAD = struct.Struct("<QQI")


class Ledger:
    """Owns `fd`. All ranks give the same `value_bytes`, the most that a proposal may have."""

    def __init__(self, fd: int, value_bytes: int) -> None:
        self.fd, self.value_bytes = fd, value_bytes
        # A power of two divides a page, so a write is one copy, which not even SIGKILL cuts in half.
        self._record_bytes = max(64, 1 << (_HEAD.size + value_bytes - 1).bit_length())

    @classmethod
    def create(cls, value_bytes: int) -> Ledger:
        fd = os.memfd_create("mori-ledger", os.MFD_CLOEXEC)
        # The flag belongs to the open file, so it travels with the descriptor.
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_APPEND)
        return cls(fd, value_bytes)

    def decide(self, mesh: int, number: int, proposal: bytes) -> bytes:
        """Proposes, and gives what was proposed first, by whomever."""
        os.write(self.fd, (_HEAD.pack(mesh, number, len(proposal)) + proposal).ljust(self._record_bytes, b"\0"))
        decided = self.decision(mesh, number)
        return proposal if decided is None else decided

    def decision(self, mesh: int, number: int) -> bytes | None:
        """What was decided, or None."""
        text = os.pread(self.fd, os.fstat(self.fd).st_size, 0)
        for at in range(0, len(text) - self._record_bytes + 1, self._record_bytes):
            which, when, length = _HEAD.unpack_from(text, at)
            if (which, when) == (mesh, number):
                return text[at + _HEAD.size :][:length]
        return None

    def share(self) -> Ledger:
        """The same ledger, with a descriptor of its own."""
        return Ledger(os.dup(self.fd), self.value_bytes)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class StoreLedger:
    """The same between hosts: keys of the rendezvous' store, written by compare-and-set. Without a store nobody decides
    anything."""

    _ANSWER_S = 2.0

    def __init__(self, store: Any, prefix: str, value_bytes: int) -> None:
        self.fd, self.value_bytes = -1, value_bytes
        self._store, self._prefix = store, prefix

    def decide(self, mesh: int, number: int, proposal: bytes) -> bytes:
        key = self._key(mesh, number)
        return bytes.fromhex(self._ask(lambda store: store.compare_set(key, "", proposal.hex()).decode()))

    def decision(self, mesh: int, number: int) -> bytes | None:
        key = self._key(mesh, number)
        found = self._ask(lambda store: store.get(key).decode() if store.check([key]) else None)
        return None if found is None else bytes.fromhex(found)

    def share(self) -> StoreLedger:
        return self

    def close(self) -> None:
        """The keys stay as long as the store: whoever was cut off finds them."""

    def _key(self, mesh: int, number: int) -> str:
        return f"{self._prefix}/decided/{mesh:x}/{number}"

    def _ask(self, call: Any) -> Any:
        gone = "the rendezvous' store does not answer: between hosts nobody can say then who goes on; start again"
        if self._store is None:
            raise TransportError("this group's store cannot be reached: between hosts nobody can say who goes on")
        try:
            return call_within(Deadline(self._ANSWER_S), lambda: call(self._store), lambda: TransportError(gone))
        except RuntimeError as error:
            raise TransportError(f"{gone} ({str(error).splitlines()[0]})") from error
