# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""What kernels are told, as ctypes: put them into the Structure that mirrors a kernel's argument struct.

class RingArgs(ctypes.Structure):
    _fields_ = [("world", mori.shmem.World), ("inbox", ctypes.c_uint64), ("round", ctypes.c_uint64)]

kernel.launch(RingArgs(ctx.world, inbox.data_ptr(), 1))
"""

from __future__ import annotations

import ctypes

__all__ = ["Team", "World"]


class World(ctypes.Structure):
    """`mori::World` (src/core/device/world.hpp): one rank's view of its group; `ctx.world` makes it."""

    _fields_ = (
        ("bases", ctypes.c_uint64),  # uint64_t[world_size] in device memory: where each rank's heap is mapped here
        ("error", ctypes.c_uint64),  # the context's error word
        ("timeout_ticks", ctypes.c_uint64),  # of the device's clock; 0 waits for ever
        ("rank", ctypes.c_uint32),
        ("world_size", ctypes.c_uint32),
        ("fabric", ctypes.c_uint64),  # queues to ranks that bases does not reach; 0: none
    )


class Team(ctypes.Structure):
    """`mori::shmem::Team` (src/shmem/team.hpp): some of the ranks, and the memory of their collectives."""

    _fields_ = (
        ("signals", ctypes.c_uint64),  # heap offset of uint64_t[size]
        ("workspace", ctypes.c_uint64),  # heap offset of workspace_bytes bytes
        ("workspace_bytes", ctypes.c_uint64),
        ("start", ctypes.c_uint32),  # rank of member i: start + i * stride
        ("stride", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        ("index", ctypes.c_uint32),  # mine
    )


assert (ctypes.sizeof(World), ctypes.sizeof(Team)) == (40, 40)
