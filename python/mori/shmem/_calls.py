# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The operations as functions: each finds its Shmem by its symmetric tensor or its team, or takes the only one there
is, and calls the method of its name."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from mori.shmem._shmem import Shmem, find

P = ParamSpec("P")
R = TypeVar("R")


def _function(method: Callable[Concatenate[Shmem, P], R]) -> Callable[P, R]:
    @functools.wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return method(find(*args, *kwargs.values()), *args, **kwargs)

    call.__module__ = "mori.shmem"
    return call


put, get, put_signal = _function(Shmem.put), _function(Shmem.get), _function(Shmem.put_signal)
signal_op, signal_fetch = _function(Shmem.signal_op), _function(Shmem.signal_fetch)
signal_wait_until = _function(Shmem.signal_wait_until)
wait_until, test = _function(Shmem.wait_until), _function(Shmem.test)
atomic_set, atomic_add, atomic_inc = (
    _function(Shmem.atomic_set),
    _function(Shmem.atomic_add),
    _function(Shmem.atomic_inc),
)
atomic_and, atomic_or, atomic_xor = (
    _function(Shmem.atomic_and),
    _function(Shmem.atomic_or),
    _function(Shmem.atomic_xor),
)
atomic_fetch, atomic_swap = _function(Shmem.atomic_fetch), _function(Shmem.atomic_swap)
atomic_compare_swap = _function(Shmem.atomic_compare_swap)
atomic_fetch_add, atomic_fetch_inc = _function(Shmem.atomic_fetch_add), _function(Shmem.atomic_fetch_inc)
atomic_fetch_and, atomic_fetch_or, atomic_fetch_xor = (
    _function(Shmem.atomic_fetch_and),
    _function(Shmem.atomic_fetch_or),
    _function(Shmem.atomic_fetch_xor),
)
fence, quiet = _function(Shmem.fence), _function(Shmem.quiet)
barrier, sync = _function(Shmem.barrier), _function(Shmem.sync)
broadcast, fcollect, alltoall = _function(Shmem.broadcast), _function(Shmem.fcollect), _function(Shmem.alltoall)
min_reduce, max_reduce = _function(Shmem.min_reduce), _function(Shmem.max_reduce)
sum_reduce, prod_reduce = _function(Shmem.sum_reduce), _function(Shmem.prod_reduce)
and_reduce, or_reduce, xor_reduce = (
    _function(Shmem.and_reduce),
    _function(Shmem.or_reduce),
    _function(Shmem.xor_reduce),
)
peer, team_translate_pe = _function(Shmem.peer), _function(Shmem.team_translate_pe)
