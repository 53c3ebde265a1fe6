# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Symmetric memory and one-sided operations, started by the host in stream order; inside kernels see mori/shmem.hpp.

    with mori.init(group) as ctx, mori.shmem.Shmem(ctx) as shm:
        inbox = shm.zeros((1024,), torch.float32)
        arrived = shm.zeros((1,), torch.int64)
        shm.put_signal(inbox, x, arrived, 1, pe=(shm.my_pe + 1) % shm.n_pes)
        shm.signal_wait_until(arrived, "ge", 1)

Every operation is also a function here, `mori.shmem.put(inbox, x, pe)`. docs/shmem_host.md is the guide.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mori.shmem._calls import *  # noqa: F403
    from mori.shmem._kinds import Cmp as Cmp
    from mori.shmem._kinds import SignalOp as SignalOp
    from mori.shmem._shmem import Shmem as Shmem
    from mori.shmem._teams import TeamHandle as TeamHandle

_FUNCTIONS = (
    *("put", "get", "put_signal", "signal_op", "signal_fetch", "signal_wait_until", "wait_until", "test"),
    *("atomic_set", "atomic_add", "atomic_inc", "atomic_and", "atomic_or", "atomic_xor", "atomic_fetch"),
    *("atomic_swap", "atomic_compare_swap", "atomic_fetch_add", "atomic_fetch_inc", "atomic_fetch_and"),
    *("atomic_fetch_or", "atomic_fetch_xor", "fence", "quiet", "barrier", "sync", "broadcast", "fcollect"),
    *("alltoall", "min_reduce", "max_reduce", "sum_reduce", "prod_reduce", "and_reduce", "or_reduce"),
    *("xor_reduce", "peer", "team_translate_pe"),
)
_HOME = dict.fromkeys(_FUNCTIONS, "_calls") | {
    "Cmp": "_kinds",
    "SignalOp": "_kinds",
    "Shmem": "_shmem",
    "TeamHandle": "_teams",
    "Team": "structs",
    "World": "structs",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'mori.shmem' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"mori.shmem.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
