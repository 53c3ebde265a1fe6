# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Host memory that the engines of other processes on this host can map.

    cache = mori.io.empty((layers, blocks, 65536), "uint8")     # a numpy array
    cache = mori.io.empty((layers, blocks, 32768), torch.bfloat16)  # a torch tensor

Register it as any other memory; peers then copy at memory speed, without the kernel. docs/io_shm.md.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

from mori._core import io as _io

from ..errors import ConfigError

__all__ = ["SharedMemory", "empty"]

SharedMemory = _io.SharedMemory


def empty(shape: int | Sequence[int], dtype: Any = "uint8", *, prefault: bool = False) -> Any:
    """A zeroed array in shared memory: of numpy, or a torch tensor if `dtype` is a torch dtype.

    The memory lives as long as the array or a view of it. `prefault` touches all pages here rather than at first use.
    Raises ConfigError for the shape, CapacityError when there is no room.
    """
    sizes = (shape,) if isinstance(shape, int) else tuple(shape)
    try:
        sizes = tuple(operator.index(size) for size in sizes)
    except TypeError:
        raise ConfigError(f"shape={shape!r}; it takes ints") from None
    if any(size < 0 for size in sizes):
        raise ConfigError(f"shape={shape!r} has a negative size")
    count = math.prod(sizes)
    if type(dtype).__module__ == "torch":
        import torch

        if count == 0:
            return torch.empty(sizes, dtype=dtype)
        memory = SharedMemory(count * dtype.itemsize, prefault=prefault)
        return torch.frombuffer(memory, dtype=torch.uint8).view(dtype).view(sizes)
    import numpy

    kind = numpy.dtype(dtype)
    if kind.hasobject or kind.itemsize == 0:
        raise ConfigError(f"dtype={dtype!r} cannot live in shared memory")
    if count == 0:
        return numpy.empty(sizes, kind)
    return numpy.frombuffer(SharedMemory(count * kind.itemsize, prefault=prefault), kind).reshape(sizes)
