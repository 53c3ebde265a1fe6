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

import sys
from typing import Any

from . import config
from ._deadline import Deadline, call_within
from ._store import GatherRendezvous, Rendezvous, StoreRendezvous, check_rank, store_errors
from .errors import ConfigError, TimeoutError
from .uid import UID_BYTES, UniqueId, connect, keep, kept, store_timeout, unique_id

__all__ = ["UID_BYTES", "Rendezvous", "rendezvous", "unique_id"]


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
        raise ConfigError(f"global rank {dist.get_rank()} is not a member of the group; only members may call")
    if not isinstance(group, dist.ProcessGroup):
        raise ConfigError(f"group={group!r} is a {type(group).__name__}, not a torch.distributed.ProcessGroup")
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    if rank < 0:
        raise ConfigError(f"global rank {dist.get_rank()} is not a member of the group; only members may call")
    if size == 1:
        return Rendezvous()
    try:
        store = c10d._get_process_group_store(group)
    except (AttributeError, KeyError, TypeError):  # it is not public: another torch may have it elsewhere
        return GatherRendezvous(group, rank, size)
    where = f"the store of group {getattr(group, 'group_name', '')!r}"
    return _counted(store, "mori", rank, size, deadline, where)


def _from_environment(deadline: Deadline) -> Rendezvous:
    key = ("env://",)
    found = kept(key)
    if found is None:
        try:
            from torch.distributed.rendezvous import rendezvous as torch_rendezvous
        except ImportError as error:
            raise ConfigError(f"RANK or WORLD_SIZE is set, but torch cannot be imported: {error}") from error
        try:
            with store_errors("torchrun's store (MASTER_ADDR, MASTER_PORT)"):
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

    with store_errors(where):
        count = call_within(deadline, lambda: store.add(f"{prefix}/calls/{rank}", 1), late)
    return StoreRendezvous(store, f"{prefix}/{count}", rank, size, deadline=deadline, where=where)
