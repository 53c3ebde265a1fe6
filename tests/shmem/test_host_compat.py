# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The names of mori.shmem.compat do what frameworks expect of them."""

from __future__ import annotations

import pytest
import torch
from mori.errors import ConfigError
from mori.testing import run_ranks


def use(rank: int, size: int, uid: bytes) -> None:
    from mori.shmem import compat

    with pytest.raises(ConfigError, match="shmem_init_attr"):
        compat.shmem_mype()
    assert compat.shmem_init_attr(0, rank, size, uid) == 0
    with pytest.raises(ConfigError, match="is initialised already"):
        compat.shmem_init_attr(0, rank, size, uid)
    assert (compat.shmem_mype(), compat.shmem_npes()) == (rank, size)
    tensor = compat.mori_shmem_create_tensor((4,), torch.int32)
    assert tensor.__symm_tensor__
    right = (rank + 1) % size
    compat.symm_mori_shmem_tensor(tensor, right).fill_(rank)
    assert compat.shmem_barrier_on_stream(0) == compat.shmem_barrier_all() == 0
    assert tensor.tolist() == [(rank - 1) % size] * 4
    assert compat.symm_mori_shmem_tensor(tensor, rank) is tensor
    block = compat.shmem_malloc(4096)
    assert compat.shmem_ptr_p2p(block, rank, rank) == block
    assert compat.shmem_ptr_p2p(block + 8, rank, right) not in (0, block + 8)
    assert compat.shmem_ptr_p2p(torch.zeros(1).data_ptr(), rank, right) == 0
    compat.shmem_free(block)
    with pytest.raises(ConfigError, match="is not what shmem_malloc"):
        compat.shmem_free(block)
    compat.mori_shmem_free_tensor(tensor)
    compat.shmem_barrier_all()
    assert compat.shmem_finalize() == 0


@pytest.mark.timeout(60)
def test_names() -> None:
    run_ranks(use, 2, timeout=40)
