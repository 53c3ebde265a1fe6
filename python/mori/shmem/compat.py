# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The `shmem_*` names that inference frameworks call, over one context and one Shmem of the process; an adapter without
logic. Code of one's own had better use mori.shmem.Shmem.

Addresses are integers; a status is 0, and failures raise. There is no initialisation by raw unique id of another
package's length, no module initialisation (kernels are told of their group by an argument), no registration of foreign
buffers: those names are missing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import mori
from mori.errors import ConfigError
from mori.shmem._shmem import Shmem

if TYPE_CHECKING:
    import torch

__all__ = [
    *("shmem_torch_process_group_init", "shmem_init_attr", "shmem_get_unique_id", "shmem_mpi_init", "shmem_finalize"),
    *("shmem_mype", "shmem_npes", "shmem_barrier_all", "shmem_barrier_on_stream", "shmem_malloc", "shmem_free"),
    *("shmem_ptr_p2p", "mori_shmem_create_tensor", "symm_mori_shmem_tensor", "mori_shmem_free_tensor"),
]


@dataclasses.dataclass
class _Process:
    """What the names below work on."""

    shmem: Shmem
    blocks: dict[int, torch.Tensor] = dataclasses.field(default_factory=dict)  # of shmem_malloc, by address


_process: _Process | None = None


def _start(**how: Any) -> int:
    global _process
    if _process is not None:
        raise ConfigError("mori.shmem.compat is initialised already; call shmem_finalize() first")
    _process = _Process(Shmem(mori.init(**how)))
    return 0


def _use() -> _Process:
    if _process is None:
        raise ConfigError("call shmem_torch_process_group_init(), shmem_init_attr() or shmem_mpi_init() first")
    return _process


def shmem_torch_process_group_init(group_name: str) -> int:
    """By a group's registered name."""
    from torch.distributed import distributed_c10d

    resolve: Any = vars(distributed_c10d)["_resolve_process_group"]
    return _start(group=resolve(group_name))


def shmem_get_unique_id() -> bytes:
    return mori.unique_id()


def shmem_init_attr(flags: int, rank: int, nranks: int, unique_id: bytes) -> int:
    return _start(uid=unique_id, rank=rank, world_size=nranks)


def shmem_mpi_init() -> int:
    from mpi4py import MPI

    return _start(comm=MPI.COMM_WORLD)


def shmem_finalize() -> int:
    global _process
    process, _process = _use(), None
    process.shmem.close()
    process.shmem.context.close()
    return 0


def shmem_mype() -> int:
    return _use().shmem.my_pe


def shmem_npes() -> int:
    return _use().shmem.n_pes


def shmem_barrier_all() -> int:
    shm = _use().shmem
    shm.barrier()
    shm.context.synchronize()
    return 0


def shmem_barrier_on_stream(stream: Any = None) -> int:
    """stream: None or 0 for torch's current one, a handle, or a torch stream."""
    _use().shmem.barrier(stream=stream or None)
    return 0


def shmem_malloc(size: int) -> int:
    import torch

    block = _use().shmem.empty((size,), torch.uint8)
    _use().blocks[block.data_ptr()] = block
    return block.data_ptr()


def shmem_free(ptr: int) -> None:
    if _use().blocks.pop(ptr, None) is None:
        raise ConfigError(f"ptr={ptr:#x} is not what shmem_malloc() gave")


def shmem_ptr_p2p(dest_ptr: int, my_pe: int, dest_pe: int) -> int:
    """Address of `dest_pe`'s copy of this rank's symmetric address; 0 if it is not symmetric."""
    core = _use().shmem.context.heap.core
    place = core.locate(dest_ptr)
    return int(core.address(dest_pe, place[1])) if place is not None and place[0] == my_pe else 0


def mori_shmem_create_tensor(shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    tensor: Any = _use().shmem.empty(shape, dtype)
    tensor.__symm_tensor__ = True
    return tensor  # type: ignore[no-any-return]


def symm_mori_shmem_tensor(tensor: torch.Tensor, peer: int) -> torch.Tensor:
    shm = _use().shmem
    return tensor if peer == shm.my_pe else shm.peer(tensor, peer)


def mori_shmem_free_tensor(tensor: torch.Tensor) -> None:
    """Nothing: memory goes with the last reference."""
