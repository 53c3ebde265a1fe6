# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
# mypy: ignore-errors
"""SHMEM inside Triton kernels: peers' pointers, blocks put and got, signals, bounded waits, a barrier.

    import mori.shmem.triton as tshmem

    @triton.jit
    def shift(world, inbox, arrived, x, BLOCK: tl.constexpr):
        right = (tshmem.my_pe(world) + 1) % tshmem.n_pes(world)
        here = tl.arange(0, BLOCK)
        tshmem.put(world, inbox + here, tl.load(x + here), right)
        tshmem.signal_set(world, arrived, 1, right)
        if tshmem.wait_until(world, arrived, 1, -1):
            ...                                        # the left neighbour's block is in inbox

    shift[(1,)](tshmem.world(shm), inbox, arrived, x, BLOCK=1024)

Pointers into symmetric tensors are this PE's own. All functions are called by the whole program, with equal arguments.
Needs triton, and NVIDIA or AMD GPUs (or TRITON_INTERPRET=1 on a CPU, with one program a launch). docs/shmem_host.md
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch

from mori.errors import ConfigError

try:
    import triton
    import triton.language as tl
except ImportError as error:
    raise ConfigError(f"mori.shmem.triton needs triton (pip install triton): {error}") from error

if TYPE_CHECKING:
    from mori.shmem._shmem import Shmem
    from mori.shmem._teams import TeamHandle

__all__ = [
    *("world", "team", "my_pe", "n_pes", "team_my_pe", "team_n_pes", "peer", "put", "get"),
    *("signal_set", "signal_add", "signal_fetch", "wait_until", "barrier"),
]

# Words of mori::World, mori::shmem::Team and mori::ErrorWord, by their index.
_BASES, _ERROR, _TIMEOUT, _PES = (tl.constexpr(i) for i in range(4))
_SIGNALS, _START, _SIZE = tl.constexpr(0), tl.constexpr(3), tl.constexpr(4)
_WAIT_BARRIER, _WAIT_SIGNAL = tl.constexpr(1), tl.constexpr(2)
_ANY_PE = tl.constexpr(0xFFFFFFFF)
_LANES = tl.constexpr(1024)  # no program has more
_LOOK = tl.constexpr(255)  # polls between looks at the clock and the error word, less 1
_INTERPRETED = tl.constexpr(bool(getattr(triton.knobs.runtime, "interpret", False)))
CLOCKS = {"hip": ("s_memrealtime $0\ns_waitcnt lgkmcnt(0)", "=s,v"), "cuda": ("mov.u64 $0, %globaltimer;", "=l,r")}
_CLOCK, _CLOCK_REGISTERS = (tl.constexpr(text) for text in CLOCKS["hip" if torch.version.hip else "cuda"])


def world(shm: Shmem) -> torch.Tensor:
    """What kernels take as `world`: a small tensor on the device. Keep it as long as they may run. ConfigError where
    ranks are reached by queues: these kernels load and store."""
    if shm.context.transport != "p2p":
        raise ConfigError(f"mori.shmem.triton needs transport='p2p', this context has {shm.context.transport!r}")
    return _words(shm, shm.context.core.world)


def team(shm: Shmem, team: TeamHandle | None = None) -> torch.Tensor:
    """What kernels take as `team` (by default that of all PEs): a small tensor on the device."""
    return _words(shm, (shm.team_world if team is None else team.open()).packed)


def _words(shm: Shmem, packed: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(packed), dtype=torch.int64).to(shm.context.device)


@triton.jit
def my_pe(world):
    return (tl.load(world + _PES) & 0xFFFFFFFF).to(tl.int32)


@triton.jit
def n_pes(world):
    return (tl.load(world + _PES) >> 32).to(tl.int32)


@triton.jit
def team_my_pe(team):
    return (tl.load(team + _SIZE) >> 32).to(tl.int32)


@triton.jit
def team_n_pes(team):
    return (tl.load(team + _SIZE) & 0xFFFFFFFF).to(tl.int32)


@triton.jit
def _word_at(address):
    return address.to(tl.pointer_type(tl.int64))


@triton.jit
def peer(world, pointer, pe):
    """`pe`'s copy of what a pointer, or a block of them, to this PE's symmetric memory points to. Orders nothing."""
    bases = _word_at(tl.load(world + _BASES))
    ahead = tl.load(bases + pe) - tl.load(bases + my_pe(world))
    if pointer.dtype.is_block():
        width: tl.constexpr = pointer.dtype.element_ty.element_ty.primitive_bitwidth // 8
    else:
        width: tl.constexpr = pointer.dtype.element_ty.primitive_bitwidth // 8
    # heaps begin at multiples of 256 bytes and more: wide accesses stay wide
    return pointer + tl.multiple_of(ahead // width, 256 // width)


@triton.jit
def put(world, pointers, values, pe, mask=None):
    """Stores a block to `pe`'s copy. Orders nothing: a signal follows."""
    tl.store(peer(world, pointers, pe), values, mask=mask)


@triton.jit
def get(world, pointers, pe, mask=None, other=None):
    """Loads a block of `pe`'s copy."""
    return tl.load(peer(world, pointers, pe), mask=mask, other=other)


@triton.jit
def signal_set(world, signal, value, pe):
    """Sets `pe`'s copy of `signal` (a pointer to int64), behind all earlier stores of this program: release, system."""
    tl.debug_barrier()
    tl.atomic_xchg(peer(world, signal, pe), value, sem="release", scope="sys")


@triton.jit
def signal_add(world, signal, value, pe):
    """Adds to it, as signal_set() orders."""
    tl.debug_barrier()
    tl.atomic_add(peer(world, signal, pe), value, sem="release", scope="sys")


@triton.jit
def signal_fetch(signal):
    """This PE's copy, acquire: the same value in all lanes, and what its setter stored before it is visible to them."""
    return tl.atomic_add(signal, 0, sem="acquire", scope="sys")


@triton.jit
def wait_until(world, signal, value, from_pe):
    """Waits until this PE's copy of `signal` is at least `value`; acquire. `from_pe`: who sets it, for the words of the
    error; -1 for not known. False when the context's timeout passes or a peer has died: the error is recorded, the
    context's next call raises it, and the program should leave."""
    return _wait(world, signal, value, from_pe, _WAIT_SIGNAL)


@triton.jit
def barrier(world, team):
    """Returns when every member's program has called; what they stored before is visible behind it. One program of each
    PE at a time. False as of wait_until()."""
    size, me = team_n_pes(team), team_my_pe(team)
    stride, start = tl.load(team + _START) >> 32, tl.load(team + _START) & 0xFFFFFFFF
    bases = _word_at(tl.load(world + _BASES))
    offset = tl.load(team + _SIGNALS)
    mine = _word_at(tl.load(bases + my_pe(world)) + offset)
    epoch = signal_fetch(mine + me) + 1
    tl.debug_barrier()
    for i in range(size):
        member = (me + 1 + i) % size  # not everybody at member 0 first
        theirs = _word_at(tl.load(bases + start + member * stride) + offset)
        tl.atomic_xchg(theirs + me, epoch, sem="release", scope="sys")
    came = size > 0
    for i in range(size):
        if came:
            came = _wait(world, mine + i, epoch, start + i * stride, _WAIT_BARRIER)
    return came


@triton.jit
def _wait(world, signal, value, from_pe, what: tl.constexpr):
    seen = signal_fetch(signal)
    start = tl.full((), 0, tl.int64)
    polls = 0
    leave = 0
    while (seen < value) & (leave == 0):
        seen = signal_fetch(signal)
        polls += 1
        if (polls & _LOOK) == 1:
            now = _clock()
            if polls == 1:
                start = now
            limit = tl.load(world + _TIMEOUT)
            if _failed(world):
                leave = 1
            elif (limit != 0) & (now - start > limit):
                leave = 1
                if seen < value:
                    _fail(world, what, from_pe, value, seen)
    return seen >= value


# Branches of a program must be taken by all of its lanes, and lanes read clocks and memory at different times: a
# maximum over more elements than there are lanes is one value for all of them.


@triton.jit
def _failed(world):
    error = _word_at(tl.load(world + _ERROR))
    words = tl.load(error + 1 + 5 * (tl.arange(0, _LANES) & 1), volatile=True)  # wait, abort
    return tl.max((words != 0).to(tl.int32)) != 0


@triton.jit
def _fail(world, what: tl.constexpr, pe, expected, seen):
    error = _word_at(tl.load(world + _ERROR))
    if tl.atomic_cas(error, tl.full((), 0, tl.int64), tl.full((), 1, tl.int64), sem="acq_rel", scope="sys") == 0:
        tl.store(error + 1, what)
        tl.store(error + 2, 0)
        tl.store(error + 3, (pe + tl.full((), 0, tl.int64)) & _ANY_PE)
        tl.store(error + 4, expected)
        tl.store(error + 5, seen)
        tl.debug_barrier()
        tl.atomic_xchg(error, tl.full((), 2, tl.int64), sem="release", scope="sys")


if _INTERPRETED.value:

    def _clock():
        """Nanoseconds: the CPU target's ticks."""
        return tl.full((), time.monotonic_ns(), tl.int64)

else:

    @triton.jit
    def _clock():
        """The target's ticks, in which World counts its timeout."""
        ticks = tl.inline_asm_elementwise(
            _CLOCK, _CLOCK_REGISTERS, [tl.arange(0, _LANES)], dtype=tl.int64, is_pure=False, pack=1
        )
        return tl.max(ticks)
