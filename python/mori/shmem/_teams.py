# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Teams: which PEs take part in a collective, and the memory that it takes.

All of it is one symmetric range of `max_teams` slots, cut when a Shmem is made, so that making a team concerns the
members of its parent only: they gather which slots each has free and what each asks for, and take the first common one.

    slot    | signals: uint64[n_pes] | asked: int64[n_pes][4] | workspace |
"""

from __future__ import annotations

import ctypes
import struct
from types import TracebackType
from typing import TYPE_CHECKING, Any

from mori._symmetric import require_same, round_up
from mori.errors import CapacityError, ConfigError
from mori.shmem._check import whole
from mori.shmem._kinds import Op

if TYPE_CHECKING:
    from mori.context import Context
    from mori.shmem._launch import Launcher

__all__ = ["TeamHandle", "TeamTable"]

_TEAM = struct.Struct("<3Q4I")  # mori::shmem::Team
_ASKED = struct.Struct("<4q")  # free slots (a bit each), and three numbers that must agree


class TeamHandle:
    """A team that this PE is a member of: `Shmem.team_world`, or of `team_split_strided()`, `team_split_2d()`.

    Attributes: `start`, `stride`, `size`: its members are PEs start + i * stride; `my_pe`: this PE's number in it."""

    def __init__(self, table: TeamTable, slot: int, start: int, stride: int, size: int, index: int) -> None:
        self._table: TeamTable | None = table
        self.slot, self.start, self.stride, self.size, self.my_pe = slot, start, stride, size, index
        self.packed = table.pack(self)

    @property
    def n_pes(self) -> int:
        return self.size

    @property
    def struct(self) -> Any:
        """The ctypes mori.shmem.Team, for the arguments of kernels."""
        from mori.shmem.structs import Team

        return Team.from_buffer_copy(self.open().packed)

    def pe(self, index: int) -> int:
        """The PE of member `index`."""
        return self.start + whole("index", index, 0, self.size - 1) * self.stride

    def open(self) -> TeamHandle:
        if self._table is None:
            raise ConfigError("the team is closed")
        return self

    @property
    def table(self) -> TeamTable | None:
        """None once it is closed."""
        return self._table

    def close(self) -> None:
        """Collective over the members; waits for the current stream. Its slot can then be another team's. The world's
        cannot be closed."""
        if self._table is not None:
            self._table.free(self)
            self._table = None

    def __enter__(self) -> TeamHandle:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is None:
            self.close()

    def __repr__(self) -> str:
        return f"<team of {self.size} PEs from {self.start} by {self.stride}, this one is number {self.my_pe}>"


class TeamTable:
    """The slots of one Shmem. Collective."""

    def __init__(self, ctx: Context, launcher: Launcher, max_teams: int, workspace_bytes: int) -> None:
        self._ctx, self._launcher = ctx, launcher
        self._asked_at = round_up(8 * ctx.world_size, 256)
        self._workspace_at = self._asked_at + round_up(_ASKED.size * ctx.world_size, 256)
        self._workspace_bytes = round_up(workspace_bytes, 256)
        self._slot_bytes = self._workspace_at + self._workspace_bytes
        self._memory = ctx.heap.allocate(max_teams * self._slot_bytes, purpose="shmem.teams", fill=0)
        self._mine = ctx.core_device.allocate(_ASKED.size)
        self._free = (1 << max_teams) - 2
        self.world = TeamHandle(self, 0, 0, 1, ctx.world_size, ctx.rank)

    def pack(self, team: TeamHandle) -> bytes:
        """mori::shmem::Team."""
        at = self._memory.offset + team.slot * self._slot_bytes
        return _TEAM.pack(
            at, at + self._workspace_at, self._workspace_bytes, team.start, team.stride, team.size, team.my_pe
        )

    def split_strided(self, parent: TeamHandle, start: int, stride: int, size: int) -> TeamHandle | None:
        start = whole("start", start, 0, parent.size - 1)
        size = whole("size", size, 1, parent.size)
        stride = whole("stride", stride, min(size - 1, 1), 1 << 31)
        if size == 1:
            stride = 1  # what was given does not matter
        last = start + (size - 1) * stride
        if last >= parent.size:
            raise ConfigError(
                f"start={start}, stride={stride}, size={size}: the last member would be {last}; "
                f"the parent has 0..{parent.size - 1}"
            )
        return self._make(parent, (start, stride, size), start, stride, size)

    def split_2d(self, parent: TeamHandle, xrange: int) -> tuple[TeamHandle, TeamHandle]:
        xrange = min(whole("xrange", xrange, 1, 1 << 31), parent.size)
        column, row = parent.my_pe % xrange, parent.my_pe // xrange
        in_row = min(xrange, parent.size - row * xrange)
        in_column = -(-(parent.size - column) // xrange)
        x = self._make(parent, (-1, xrange, 0), row * xrange, 1, in_row)
        y = self._make(parent, (-1, xrange, 1), column, xrange, in_column)
        assert x is not None and y is not None
        return x, y

    def free(self, team: TeamHandle) -> None:
        if team.slot == 0:
            raise ConfigError("the team of all PEs lives as long as its Shmem")
        self._launcher.start(Op.barrier, None, team=team.packed)
        self._launcher.finish(None)  # nobody writes to the slot any more
        self._free |= 1 << team.slot

    def close(self) -> None:
        self._ctx.core_device.free(self._mine)

    def _make(
        self, parent: TeamHandle, asked: tuple[int, int, int], start: int, stride: int, size: int
    ) -> TeamHandle | None:
        """Members of the parent make one slot theirs; `start`, `stride`, `size` are of this member's team, in the
        parent's numbers. Disjoint teams, such as rows, may have the same slot: it is memory of their members."""
        everyone = self._gather(parent, asked)
        common = self._free
        for free, *_ in everyone:
            common &= free
        slot = (common & -common).bit_length() - 1
        if slot >= 0:
            self._ctx.core_device.fill(self._address(slot), 0, self._asked_at)
        self._launcher.start(Op.barrier, None, team=parent.packed)  # all have read, and nobody writes before all zeroed
        self._launcher.finish(None)
        require_same("the team asked for", [tuple(numbers) for _, *numbers in everyone])
        if slot < 0:
            raise CapacityError("no slot is free at all members of the parent; close() teams, or give max_teams=")
        index, beside = divmod(parent.my_pe - start, stride)
        if beside or not 0 <= index < size:
            return None
        self._free &= ~(1 << slot)
        return TeamHandle(self, slot, parent.pe(start), parent.stride * stride, size, index)

    def _gather(self, parent: TeamHandle, asked: tuple[int, int, int]) -> list[tuple[int, ...]]:
        device, nbytes = self._ctx.core_device, _ASKED.size
        gathered = ctypes.create_string_buffer(nbytes * parent.size)
        mine = ctypes.create_string_buffer(_ASKED.pack(self._free, *asked), nbytes)
        device.copy(self._mine, ctypes.addressof(mine), nbytes)
        dest = self._address(parent.slot) + self._asked_at
        own = self._mine
        self._launcher.start(
            Op.fcollect, None, team=parent.packed, dest=dest, source=own, count=nbytes, lends=(own, nbytes)
        )
        self._launcher.finish(None)
        device.copy(ctypes.addressof(gathered), dest, len(gathered))
        return list(_ASKED.iter_unpack(gathered.raw))

    def _address(self, slot: int) -> int:
        return int(self._memory.address(self._ctx.rank)) + slot * self._slot_bytes
