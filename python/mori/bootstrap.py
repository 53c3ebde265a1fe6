# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""How the ranks of a context find each other: what a launcher gave us, turned into one small all-gather.

    with rendezvous(group, timeout=30) as found:                 # or comm=, or uid=, rank=, world_size=
        everyone = found.exchange("where", my_address, timeout=30)

MoRI runs no rendezvous server of its own. Underneath is always a key-value store of torch: the group's,
torchrun's, or the one behind a `unique_id()`. It is used once, for the addresses of the mesh (`mesh.py`), and
left clean.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, TypeVar

from . import config
from ._deadline import Deadline, call_within
from .errors import ConfigError, MoriError, TimeoutError, TransportError
from .uid import UID_BYTES, UniqueId, connect, unique_id

__all__ = ["UID_BYTES", "Rendezvous", "StoreRendezvous", "rendezvous", "unique_id"]

T = TypeVar("T")
Outcome = Callable[[], Exception]
_GRACE_S = 1.0  # for a call that has its own deadline to report it, before it is given up from outside


class Rendezvous:
    """Who we are, and an all-gather. This class is the world of one; the others derive from it."""

    def __init__(self, rank: int = 0, world_size: int = 1) -> None:
        self.rank, self.world_size = check_rank(rank, world_size)

    def exchange(self, tag: str, payload: bytes, *, timeout: float) -> list[bytes]:
        """Every rank's payload, by rank. TimeoutError.missing names the ranks that did not come."""
        return [bytes(payload)]

    def close(self) -> None:
        """Ends this rank's part; the last one to do so removes everything from the store."""

    def __enter__(self) -> Rendezvous:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()


class StoreRendezvous(Rendezvous):
    """Over a torch store. Every key lies under `prefix`, which no other context of the same store may share.

    One rank that finds a mistake leaves a note, so that the others need not wait for their deadline.
    """

    def __init__(
        self, store: Any, prefix: str, rank: int, world_size: int, *, deadline: Deadline, where: str
    ) -> None:
        super().__init__(rank, world_size)
        self._store, self._prefix, self._where = store, prefix, where
        self._keys: list[str] = []
        self._round = 0
        self._open = True
        self._within(deadline, self._enter, lambda: self._silent("joining"))

    def _enter(self) -> None:
        """Claims the rank, and checks that all have the same idea of the world."""
        size = self._store.compare_set(self._key("world_size"), "", str(self.world_size)).decode()
        if int(size) != self.world_size:
            text = f"world_size differs: rank {self.rank} says {self.world_size}, another rank says {size}"
            self._fail("config", text)
            raise ConfigError(text)
        if self._store.add(self._key(f"claim/{self.rank}"), 1) > 1:
            text = (
                f"rank={self.rank} is taken: two callers say rank {self.rank} of {self.world_size}, "
                "or one id was used for two contexts (make one unique_id() for each)"
            )
            self._fail("config", text)
            raise ConfigError(text)
        self._keys += [self._key("world_size"), *(self._key(f"claim/{r}") for r in range(self.world_size))]

    def exchange(self, tag: str, payload: bytes, *, timeout: float) -> list[bytes]:
        if not self._open:
            raise ConfigError(f"exchange({tag!r}) on a closed rendezvous")
        deadline = Deadline(timeout)
        return self._within(deadline, lambda: self._gather(tag, payload, deadline), lambda: self._silent(tag))

    def _gather(self, tag: str, payload: bytes, deadline: Deadline) -> list[bytes]:
        keys = [self._key(f"{self._round}/{rank}") for rank in range(self.world_size)]
        self._round += 1
        self._keys += keys
        self._store.set(keys[self.rank], tag.encode() + b"\0" + payload)
        pause_s = 0.001
        while not self._store.check(keys):
            self._raise_note(tag)
            if deadline.expired():
                missing = [rank for rank, key in enumerate(keys) if not self._store.check([key])]
                if not missing:
                    break
                names = ", ".join(map(str, missing))
                text = (
                    f"rendezvous {tag!r}: {len(missing)} of {self.world_size} ranks did not come within "
                    f"{deadline.timeout:g} s: {names} ({self._where})"
                )
                self._fail("timeout", f"rank {self.rank} gave up: {text}", missing)
                raise TimeoutError(text, what=f"rendezvous {tag}", missing=missing)
            time.sleep(min(pause_s, deadline.remaining()))
            pause_s = min(pause_s * 1.5, 0.05)
        values = [bytes(value).partition(b"\0") for value in self._store.multi_get(keys)]
        for rank, (theirs, _, _) in enumerate(values):
            if theirs != tag.encode():
                where = f"rank {self.rank} is at {tag!r}, rank {rank} at {theirs.decode()!r}"
                raise ConfigError(f"ranks call different things: {where}")
        return [value for _, _, value in values]

    def close(self) -> None:
        if not self._open:
            return
        self._open = False
        with contextlib.suppress(MoriError):
            self._within(Deadline(_GRACE_S), self._leave, lambda: self._silent("leaving"))

    def _leave(self) -> None:
        left = self._key("left")
        if self._store.add(left, 1) == self.world_size:
            for key in (*self._keys, left, self._key("failed")):
                self._store.delete_key(key)

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}"

    def _fail(self, kind: str, text: str, missing: Sequence[int] = ()) -> None:
        self._store.set(
            self._key("failed"), json.dumps({"kind": kind, "text": text, "missing": list(missing)})
        )

    def _raise_note(self, tag: str) -> None:
        if not self._store.check([self._key("failed")]):
            return
        note = json.loads(self._store.get(self._key("failed")))
        if note["kind"] == "timeout":
            raise TimeoutError(note["text"], what=f"rendezvous {tag}", missing=note["missing"])
        raise ConfigError(note["text"])

    def _silent(self, doing: str) -> TimeoutError:
        return TimeoutError(f"{doing}: {self._where} does not answer", what=f"rendezvous {doing}")

    def _within(self, deadline: Deadline, call: Callable[[], T], late: Outcome) -> T:
        with _store_errors(self._where):
            return call_within(deadline, call, late, grace_s=_GRACE_S)


class GatherRendezvous(Rendezvous):
    """Over all_gather_object, for a group whose store cannot be reached. It cannot name who is missing."""

    def __init__(self, group: Any, rank: int, world_size: int) -> None:
        super().__init__(rank, world_size)
        self._group = group

    def exchange(self, tag: str, payload: bytes, *, timeout: float) -> list[bytes]:
        import torch.distributed as dist

        found: list[Any] = [None] * self.world_size
        with _store_errors("all_gather_object"):
            call_within(
                Deadline(timeout),
                lambda: dist.all_gather_object(found, (tag, bytes(payload)), group=self._group),
                lambda: TimeoutError(
                    f"rendezvous {tag!r}: not all ranks came in {timeout:g} s", what=f"rendezvous {tag}"
                ),
            )
        for rank, (theirs, _) in enumerate(found):
            if theirs != tag:
                raise ConfigError(
                    f"ranks call different things: rank {self.rank} is at {tag!r}, rank {rank} at {theirs!r}"
                )
        return [value for _, value in found]


def rendezvous(
    group: Any = None,
    *,
    comm: Any = None,
    uid: bytes | None = None,
    rank: int | None = None,
    world_size: int | None = None,
    timeout: float,
) -> Rendezvous:
    """Finds the launcher's ranks. Give one of:

    group: a torch.distributed process group, any subgroup included, gloo or nccl;
    comm:  an mpi4py communicator;
    uid, rank, world_size: 128 bytes of `unique_id()`, the same on all ranks, brought there by any channel;
    nothing: torch.distributed's default group if there is one, else what torchrun's environment says, else a
    world of one.

    Raises ConfigError for what cannot be right (also two callers saying the same rank, and ranks that
    disagree on world_size), TimeoutError with `.missing` when ranks do not come, TransportError if the store
    fails.
    """
    deadline = Deadline(timeout)
    given = [name for name, value in (("group", group), ("comm", comm), ("uid", uid)) if value is not None]
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)} are given; one of them says who the ranks are")
    if uid is None and (rank is not None or world_size is not None):
        raise ConfigError(f"rank={rank} and world_size={world_size} go with uid=, which is missing")
    if uid is not None:
        if rank is None or world_size is None:
            raise ConfigError(f"uid= needs rank= and world_size= as well; they are {rank} and {world_size}")
        return _from_uid(uid, rank, world_size, deadline)
    if comm is not None:
        from .mpi import broadcast_uid, rank_and_size

        me, size = rank_and_size(comm)
        return _from_uid(broadcast_uid(comm, deadline), me, size, deadline) if size > 1 else Rendezvous()
    if group is None and not _default_group_exists():
        return _from_environment(deadline) if config.launched() else Rendezvous()
    return _from_group(group, deadline)


def check_rank(rank: object, world_size: object) -> tuple[int, int]:
    """Both as ints, or a ConfigError."""
    for name, value in (("rank", rank), ("world_size", world_size)):
        if isinstance(value, bool) or not hasattr(value, "__index__"):
            raise ConfigError(f"{name}={value!r} is not an int")
    me, size = int(rank), int(world_size)  # type: ignore[call-overload]
    if size < 1:
        raise ConfigError(f"world_size={size} is less than 1")
    if not 0 <= me < size:
        raise ConfigError(f"rank={me} is outside 0..{size - 1} (world_size={size})")
    return me, size


def _from_uid(uid: bytes, rank: int, world_size: int, deadline: Deadline) -> Rendezvous:
    me, size = check_rank(rank, world_size)
    parsed = UniqueId.parse(uid)
    if size == 1:
        return Rendezvous()
    store = connect(parsed, deadline)
    where = f"the store at {parsed.host}:{parsed.port}"
    return StoreRendezvous(store, f"mori/{parsed.token.hex()}", me, size, deadline=deadline, where=where)


def _default_group_exists() -> bool:
    """Without importing torch: who has made a default group has imported it."""
    import sys

    dist = sys.modules.get("torch.distributed")
    return dist is not None and dist.is_available() and dist.is_initialized()


def _from_group(group: Any, deadline: Deadline) -> Rendezvous:
    try:
        import torch.distributed as dist
        from torch.distributed import distributed_c10d as c10d
    except ImportError as error:
        raise ConfigError(f"group={group!r} needs torch, which cannot be imported: {error}") from error
    if not dist.is_available() or not dist.is_initialized():
        raise ConfigError(f"group={group!r} is given, but torch.distributed is not initialised")
    if group is None:
        group = dist.group.WORLD
    if group == dist.GroupMember.NON_GROUP_MEMBER:
        raise ConfigError(
            f"global rank {dist.get_rank()} is not a member of the group; only members may call"
        )
    if not isinstance(group, dist.ProcessGroup):
        raise ConfigError(
            f"group={group!r} is a {type(group).__name__}, not a torch.distributed.ProcessGroup"
        )
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    if rank < 0:
        raise ConfigError(
            f"global rank {dist.get_rank()} is not a member of the group; only members may call"
        )
    if size == 1:
        return Rendezvous()
    try:
        store = c10d._get_process_group_store(group)
    except (AttributeError, KeyError, TypeError):  # it is not public: another torch may have it elsewhere
        return GatherRendezvous(group, rank, size)
    where = f"the store of group {getattr(group, 'group_name', '')!r}"
    return _counted(store, "mori", rank, size, deadline, where)


def _from_environment(deadline: Deadline) -> Rendezvous:
    from .uid import keep, kept, store_timeout

    key = ("env://",)
    found = kept(key)
    if found is None:
        try:
            from torch.distributed.rendezvous import rendezvous as torch_rendezvous
        except ImportError as error:
            raise ConfigError(f"RANK or WORLD_SIZE is set, but torch cannot be imported: {error}") from error
        try:
            with _store_errors("torchrun's store (MASTER_ADDR, MASTER_PORT)"):
                found = call_within(
                    deadline,
                    lambda: next(iter(torch_rendezvous("env://", timeout=store_timeout(deadline)))),
                    lambda: TimeoutError(
                        "torchrun's store does not answer at MASTER_ADDR:MASTER_PORT; rank 0 serves it",
                        what="rendezvous env://",
                        missing=(0,),
                    ),
                )
        except ValueError as error:
            raise ConfigError(f"the launcher's environment is incomplete: {error}") from error
        keep(key, found)  # rank 0 may serve it from here, and the next context uses it again
    store, rank, size = found
    me, world_size = check_rank(rank, size)
    if world_size == 1:
        return Rendezvous()
    return _counted(store, "mori/env", me, world_size, deadline, "torchrun's store")


def _counted(store: Any, prefix: str, rank: int, size: int, deadline: Deadline, where: str) -> Rendezvous:
    """A place for each context: the n-th call of one rank belongs to the n-th call of every other."""

    def late() -> Exception:
        return TimeoutError(f"{where} does not answer", what="rendezvous")

    with _store_errors(where):
        count = call_within(deadline, lambda: store.add(f"{prefix}/calls/{rank}", 1), late)
    return StoreRendezvous(store, f"{prefix}/{count}", rank, size, deadline=deadline, where=where)


@contextlib.contextmanager
def _store_errors(where: str) -> Iterator[None]:
    """torch's stores raise RuntimeError of several kinds."""
    try:
        yield
    except MoriError:
        raise
    except (RuntimeError, OSError) as error:
        raise TransportError(f"{where} failed: {str(error).splitlines()[0]}") from error
