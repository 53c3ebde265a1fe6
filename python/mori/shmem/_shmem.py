# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""`Shmem`: symmetric tensors, teams and collectives over one context."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from mori._same import check_same
from mori.errors import ConfigError
from mori.shmem._check import whole
from mori.shmem._kinds import Op
from mori.shmem._launch import Stream
from mori.shmem._operations import Operations
from mori.shmem._teams import TeamHandle, TeamTable

if TYPE_CHECKING:
    import torch

    from mori.context import Context

__all__ = ["Shmem", "TeamArgument", "find", "only"]

#: "world", or a team. None, which a split gives to who is no member, is refused.
TeamArgument = TeamHandle | None | Literal["world"]

_live: weakref.WeakSet[Shmem] = weakref.WeakSet()


class Shmem(Operations):
    """OpenSHMEM's model for Python: symmetric tensors, one-sided operations on them, teams, collectives.

        with mori.shmem.Shmem(ctx) as shm:
            inbox = shm.zeros((shm.n_pes, 1024), torch.float32)
            shm.put(inbox[shm.my_pe], x, right)
            shm.barrier()

    Collective. `max_teams` (2 to 63): teams that may exist at once on a PE, the one of all PEs included.
    `workspace_bytes`: of each team, what a reduction sends at a time. Raises ConfigError if ranks differ in them.
    A context manager; close() is local. After a failure make another one over `ctx.recover()`."""

    def __init__(self, ctx: Context, *, max_teams: int = 16, workspace_bytes: int = 256 << 10) -> None:
        ctx.ready()
        max_teams = whole("max_teams", max_teams, 2, 63)
        workspace_bytes = whole("workspace_bytes", workspace_bytes, 256 * ctx.world_size, 1 << 40)
        agreed = {"max_teams": max_teams, "workspace_bytes": workspace_bytes}
        check_same(ctx.mesh, "mori.shmem.Shmem", agreed, timeout=ctx.timeout)
        super().__init__(ctx)
        self._teams = TeamTable(ctx, self._launcher, max_teams, workspace_bytes)
        _live.add(self)

    @property
    def context(self) -> Context:
        return self._ctx

    @property
    def my_pe(self) -> int:
        return self._ctx.rank

    @property
    def n_pes(self) -> int:
        return self._ctx.world_size

    # Symmetric memory.

    def empty(self, shape: Sequence[int], dtype: torch.dtype, *, fill: int | None = None) -> torch.Tensor:
        """A symmetric tensor: the same shape and dtype at the same place on every rank; bytes unspecified unless `fill`
        (0 to 255). Collective. Freed when every rank has dropped it. Raises ConfigError naming the ranks that ask for
        something else, CapacityError when memory is out. Not capturable."""
        return self._ctx.empty(shape, dtype, fill=fill)

    def zeros(self, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        """empty(), zero on all ranks before any returns."""
        return self._ctx.empty(shape, dtype, fill=0)

    def full(self, shape: Sequence[int], value: float, dtype: torch.dtype) -> torch.Tensor:
        """empty(), `value` on all ranks before any returns."""
        tensor = self._ctx.empty(shape, dtype).fill_(value)
        self._ctx.barrier()
        return tensor

    def peer(self, tensor: torch.Tensor, pe: int) -> torch.Tensor:
        """`pe`'s copy of a symmetric tensor, for torch's own loads and stores. Orders nothing."""
        return self._ctx.peer_tensor(tensor, self._checks.pe(pe))

    # Teams.

    @property
    def team_world(self) -> TeamHandle:
        """All PEs."""
        return self._teams.world

    def team_split_strided(self, parent: TeamHandle | None, start: int, stride: int, size: int) -> TeamHandle | None:
        """A team of the parent's members start, start + stride, ... (`size` of them). Collective over the parent, with
        equal numbers: ConfigError naming who differs. None for who is no member of the new team, or of the parent
        (parent=None). Waits for the current stream; not capturable. CapacityError when max_teams exist."""
        self._ready()
        return None if parent is None else self._teams.split_strided(self._team(parent), start, stride, size)

    def team_split_2d(self, parent: TeamHandle | None, xrange: int) -> tuple[TeamHandle | None, TeamHandle | None]:
        """The parent's members row by row, `xrange` a row: this PE's row as one team, its column as another. Otherwise
        as team_split_strided()."""
        self._ready()
        return (None, None) if parent is None else self._teams.split_2d(self._team(parent), xrange)

    def team_translate_pe(self, source: TeamHandle, pe: int, dest: TeamHandle) -> int:
        """The number in `dest` of member `pe` of `source`; -1 if it is no member. Local."""
        ahead = self._team(source).pe(pe) - self._team(dest).start
        index, beside = divmod(ahead, dest.stride)
        return index if not beside and 0 <= index < dest.size else -1

    # Meeting, and collectives. Every member calls, in the same order, one call of a team at a time.

    def barrier(self, team: TeamArgument = "world", *, stream: Stream = None) -> None:
        """All members' earlier work on their streams, operations of SHMEM included, is complete everywhere before what
        any member does behind it. Capturable. A member that does not come is named by TimeoutError or PeerLost."""
        self._meet(Op.barrier, team, stream)

    def sync(self, team: TeamArgument = "world", *, stream: Stream = None) -> None:
        """barrier() without completing this rank's operations. Capturable."""
        self._meet(Op.sync, team, stream)

    def broadcast(
        self,
        dst: torch.Tensor,
        src: torch.Tensor,
        root: int,
        *,
        team: TeamArgument = "world",
        stream: Stream = None,
    ) -> None:
        """The `src` of member `root` (its number in the team) into every member's `dst`: symmetric, same dtype and
        number of elements, and so for all below. Capturable."""
        packed, to, source = self._collective(dst, src, team, 1, 1)
        chosen = self._team(team)
        root = whole("root", root, 0, chosen.size - 1)
        parts = [(chosen.pe(i), dst, src) for i in range(chosen.size)] if root == chosen.my_pe else []
        self._share(Op.broadcast, packed, to, source, src, 1, parts, stream, pe=root)

    def fcollect(
        self, dst: torch.Tensor, src: torch.Tensor, *, team: TeamArgument = "world", stream: Stream = None
    ) -> None:
        """Every member's `src` one after the other into every member's `dst`, as many times as large. Capturable."""
        chosen = self._team(team)
        packed, to, source = self._collective(dst, src, team, 1, chosen.size)
        mine = dst.view(chosen.size, -1)[chosen.my_pe] if src.numel() else dst
        parts = [(chosen.pe(i), mine, src) for i in range(chosen.size)]
        self._share(Op.fcollect, packed, to, source, src, 1, parts, stream)

    def alltoall(
        self, dst: torch.Tensor, src: torch.Tensor, *, team: TeamArgument = "world", stream: Stream = None
    ) -> None:
        """Part i of `src` to member i, where it becomes part `my number` of `dst`: as many equal parts as members.
        Capturable."""
        chosen = self._team(team)
        packed, to, source = self._collective(dst, src, team, 1, 1)
        if src.numel() % chosen.size:
            raise ConfigError(f"src has {src.numel()} elements, which {chosen.size} members do not share equally")
        parts = []
        if src.numel():
            mine, sent = dst.view(chosen.size, -1)[chosen.my_pe], src.view(chosen.size, -1)
            parts = [(chosen.pe(i), mine, sent[i]) for i in range(chosen.size)]
        self._share(Op.alltoall, packed, to, source, src, chosen.size, parts, stream)

    def min_reduce(
        self, dst: torch.Tensor, src: torch.Tensor, *, team: TeamArgument = "world", stream: Stream = None
    ) -> None:
        """The smallest of all members' elements into every member's `dst`. As of all reductions: `dst` may be `src`;
        all get equal bits, reduced in the members' order; integers to 64 bits, float16, bfloat16, float32, float64. One
        block of a kernel: for small tensors. Capturable."""
        self._reduce(Op.reduce_min, dst, src, team, stream)

    def max_reduce(
        self, dst: torch.Tensor, src: torch.Tensor, *, team: TeamArgument = "world", stream: Stream = None
    ) -> None:
        """The largest."""
        self._reduce(Op.reduce_max, dst, src, team, stream)

    def sum_reduce(
        self, dst: torch.Tensor, src: torch.Tensor, *, team: TeamArgument = "world", stream: Stream = None
    ) -> None:
        """The sum; integers wrap, 16-bit floats are added in float32 and rounded once."""
        self._reduce(Op.reduce_sum, dst, src, team, stream)

    def prod_reduce(
        self, dst: torch.Tensor, src: torch.Tensor, *, team: TeamArgument = "world", stream: Stream = None
    ) -> None:
        """The product, as sum_reduce()."""
        self._reduce(Op.reduce_prod, dst, src, team, stream)

    def and_reduce(
        self, dst: torch.Tensor, src: torch.Tensor, *, team: TeamArgument = "world", stream: Stream = None
    ) -> None:
        """Bitwise and; integers only, as or and xor."""
        self._reduce(Op.reduce_and, dst, src, team, stream, "bitwise reduce")

    def or_reduce(
        self, dst: torch.Tensor, src: torch.Tensor, *, team: TeamArgument = "world", stream: Stream = None
    ) -> None:
        """Bitwise or."""
        self._reduce(Op.reduce_or, dst, src, team, stream, "bitwise reduce")

    def xor_reduce(
        self, dst: torch.Tensor, src: torch.Tensor, *, team: TeamArgument = "world", stream: Stream = None
    ) -> None:
        """Bitwise exclusive or."""
        self._reduce(Op.reduce_xor, dst, src, team, stream, "bitwise reduce")

    # Life.

    def close(self) -> None:
        """Local; waits for the current stream. The context and its tensors stay."""
        if not self._closed:
            self._closed = True
            _live.discard(self)
            if not self._ctx.closed:
                self._ctx.core_device.synchronize(self._ctx.stream())
            self._teams.close()
            self._launcher.close()

    def __enter__(self) -> Shmem:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def holds(self, tensor: torch.Tensor) -> bool:
        """Whether the tensor lies in this rank's symmetric heap. Local."""
        if self._ctx.closed or tensor.numel() == 0:
            return False
        place = self._ctx.heap.core.locate(tensor.data_ptr())
        return place is not None and bool(place[0] == self._ctx.rank)

    def owns(self, team: TeamHandle) -> bool:
        """Whether the team was made here. Local."""
        return team.table is self._teams

    # What they have in common.

    def _team(self, team: TeamArgument) -> TeamHandle:
        if isinstance(team, str) and team == "world":
            return self._teams.world
        if team is None:
            raise ConfigError("team=None: this PE is not a member of the team; only members call")
        if not isinstance(team, TeamHandle):
            raise ConfigError(f"team={team!r} is neither 'world' nor a team of this Shmem")
        if not self.owns(team.open()):
            raise ConfigError("the team is another Shmem's")
        return team

    def _meet(self, op: Any, team: TeamArgument, stream: Stream) -> None:
        self._ready()
        self._launcher.start(op, stream, team=self._team(team).packed)

    def _collective(
        self, dst: torch.Tensor, src: torch.Tensor, team: TeamArgument, times_dst: int, times_src: int
    ) -> tuple[bytes, int, int]:
        self._ready()
        packed = self._team(team).packed
        to, source = self._checks.symmetric("dst", dst), self._checks.tensor("src", src)
        self._checks.alike(dst, src, times_dst=times_dst, times_src=times_src)
        return packed, to, source

    def _share(
        self,
        op: Any,
        packed: bytes,
        to: int,
        source: int,
        src: torch.Tensor,
        parts_of_src: int,
        parts: list[tuple[int, torch.Tensor, torch.Tensor]],
        stream: Stream,
        pe: int = 0,
    ) -> None:
        """Each of `parts` to a PE, then all meet: one kernel, or copy engines and a barrier."""
        nbytes = src.numel() * src.element_size()
        if self._is_big(nbytes):
            for peer, there, here in parts:
                self._copy(self._ctx.heap.peer_tensor(there, peer), here, stream)
            return self._launcher.start(Op.barrier, stream, team=packed)
        self._launcher.keep(stream, src)
        count, lends = nbytes // parts_of_src, (source, nbytes)
        self._launcher.start(op, stream, team=packed, dest=to, source=source, count=count, pe=pe, lends=lends)

    def _reduce(
        self,
        op: Any,
        dst: torch.Tensor,
        src: torch.Tensor,
        team: TeamArgument,
        stream: Stream,
        family: str = "reduce",
    ) -> None:
        packed, to, source = self._collective(dst, src, team, 1, 1)
        kind = self._checks.dtype("dst", dst, family)
        self._launcher.keep(stream, src)
        self._launcher.start(
            op,
            stream,
            team=packed,
            dest=to,
            source=source,
            count=src.numel(),
            width=src.element_size(),
            type=kind,
            lends=(source, src.numel() * src.element_size()),
        )


def find(*values: object) -> Shmem:
    """The Shmem of the first team or symmetric tensor among a call's arguments, or else the only one there is."""
    import torch

    for shm in _live:
        if any(isinstance(value, TeamHandle) and shm.owns(value) for value in values):
            return shm
    tensors = [value for value in values if isinstance(value, torch.Tensor)]
    for shm in _live:
        if any(shm.holds(tensor) for tensor in tensors):
            return shm
    return only("none of the tensors is symmetric" if tensors else "no tensor or team says which")


def only(why: str) -> Shmem:
    live = list(_live)
    if len(live) == 1:
        return live[0]
    raise ConfigError(f"there are {len(live)} open mori.shmem.Shmem and {why}; call a method of one")
