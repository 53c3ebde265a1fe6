# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""A get of any size and alignment, called again, sees what the peer has written meanwhile: no cache keeps it."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from compile_quickly import quick
from shmem_ranks import Ranks

import mori
from mori import _core

pytestmark = pytest.mark.timeout(60)
SOURCE = Path(__file__).parent / "kernels/fresh.cpp"


@pytest.mark.parametrize("skew", [0, 1, 4])
@pytest.mark.parametrize("nbytes", [8, 48, 700])
def test_a_get_sees_what_was_written_since(make_ranks: Callable[..., Ranks], nbytes: int, skew: int) -> None:
    ranks = make_ranks(2, timeout_s=5)
    for rank in range(2):
        ranks.fill(rank, 0)
    for rank in (1, 0):
        device = ranks.devices[rank]
        path = mori.compile_kernel(SOURCE, device=device, flags=quick(device)).path
        offsets = [ranks.address(rank, 1024), ranks.address(rank, 0), ranks.source[rank]]
        arguments = ranks.world(rank) + struct.pack("<QQQQQ", *offsets, nbytes, skew)
        function = device.function_of(str(path), "look_again")
        device.launch(function, _core.LaunchShape(1, 1, 16), ranks.streams[rank], arguments)
    ranks.synchronize()
    found = ranks.read(1, ranks.source[1] + skew, nbytes)
    np.testing.assert_array_equal(found, np.full(nbytes, 7, np.uint8))
    assert [ranks.error(rank).state for rank in range(2)] == [0, 0]
