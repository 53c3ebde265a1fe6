# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Collectives that move bytes with no kernel: a communicator's staging for them. docs/ccl_zero_cu.md."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mori import _core

if TYPE_CHECKING:
    from mori.ccl._kinds import Op
    from mori.context import Context

__all__ = ["ZeroCu"]

_GRAIN = 256
_ALIKE = struct.Struct("<2IQ")


class ZeroCu:
    """One rank's. Collective over the context; `members` are ranks of it."""

    def __init__(self, ctx: Context, members: Sequence[int], staging_bytes: int) -> None:
        grain = _GRAIN * len(members)
        staging_bytes = -(-staging_bytes // grain) * grain
        self._ctx = ctx
        self._memory = ctx.heap.allocate(_core.CCL_COPIES_BYTES + staging_bytes, purpose="ccl copies", fill=0)
        self._copies = None
        if ctx.rank in members:
            self._copies = _core.CclCopies(
                ctx.core,
                region=int(self._memory.offset),
                staging_bytes=staging_bytes,
                ranks=list(members),
                index=list(members).index(ctx.rank),
            )

    def run(self, op: Op, source: int, dest: int, count: int, root: int) -> None:
        """Parts of `count` bytes. On the CPU it has happened, or raises, when this returns."""
        assert self._copies is not None  # the communicator has refused others
        digest = (zlib.crc32(_ALIKE.pack(op, root, count)) & 0x7FFFFFFE) + 1
        self._copies.run(op, source, dest, count, root, digest, self._ctx.stream())
        if self._ctx.synchronous:
            self._ctx.check()
