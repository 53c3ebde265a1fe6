# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Kernels of two ranks over the mover `verbs`, on the pretended libibverbs named as argument. Run by
test_verbs_mover.py, in a process of its own: the library takes the place of a real one."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "shmem"))


def main(library: str) -> None:
    fake = ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
    fake.fake_reset(2)
    from shmem_ranks import POISON, Ranks, Target

    ranks = Ranks(Target("cpu"), 2, room=1 << 18, transport="verbs")
    data = np.arange(1 << 17, dtype=np.uint8)
    for nbytes in (1, 8, 31, 4096, 1 << 17):
        ranks.fill(1, POISON)
        ranks.write(0, ranks.source[0], data)
        ranks.selftest("put", "warp", only=[0], nbytes=nbytes, distance=1)
        assert ranks.error(0).state == 0, ranks.error(0)
        found = ranks.heap(1)
        assert (found[:nbytes] == data[:nbytes]).all() and (found[nbytes:] == POISON).all(), nbytes
    last = ctypes.c_char_p()
    assert fake.fake_violations(ctypes.byref(last)) == 0, last.value
    assert fake.fake_requests() > 4

    far = ranks.heaps[0].capacity_bytes
    ranks.selftest("put", "warp", only=[1], stride=far, nbytes=4096, distance=1)  # beyond the heap of rank 0
    error = ranks.error(1)
    assert (error.state, error.wait, error.peer) == (2, 36, 0), error
    fake.fake_unplug(1, 20)
    ranks.selftest("put", "warp", only=[0], nbytes=4096, distance=1)
    error = ranks.error(0)
    assert (error.state, error.wait, error.peer) == (2, 36, 1), error
    trouble = ranks.fabrics[0].trouble(1)
    assert trouble.startswith("rank 1 at 10.0.0.2 by NIC fake0: "), trouble
    ranks.close()
    print("ok")


if __name__ == "__main__":
    main(sys.argv[1])
