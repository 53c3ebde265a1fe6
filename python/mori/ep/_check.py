# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Whether a tensor is what a kernel may be given."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from mori.ep._plan import names
from mori.errors import ConfigError

if TYPE_CHECKING:
    import torch

__all__ = ["check_launch_number", "check_tensor"]


def check_tensor(
    device: torch.device,
    name: str,
    tensor: torch.Tensor,
    shape: Sequence[int | None],
    dtypes: Collection[torch.dtype],
) -> int:
    """Raises ConfigError naming argument, value and what is allowed; gives the first dimension. None in `shape` is any
    number (of tokens)."""
    import torch

    if not isinstance(tensor, torch.Tensor):
        raise ConfigError(f"{name} must be a torch tensor, got {type(tensor).__name__}")
    if tensor.dtype not in dtypes:
        raise ConfigError(f"{name} is {tensor.dtype}; allowed: {names(dtypes)}")
    got = tensor.shape
    if len(got) != len(shape) or any(w is not None and g != w for g, w in zip(got, shape, strict=False)):
        wanted = ", ".join("tokens" if size is None else str(size) for size in shape)
        raise ConfigError(f"{name} has shape {tuple(got)}; wanted ({wanted})")
    if not tensor.is_contiguous():
        raise ConfigError(f"{name} has strides {tuple(tensor.stride())}; it must be contiguous")
    if tensor.device != device:
        raise ConfigError(f"{name} is on {tensor.device}, the context on {device}")
    if tensor.numel() and got[-1] * tensor.element_size() % 16 == 0 and tensor.data_ptr() % 16:
        raise ConfigError(f"{name} begins at {tensor.data_ptr():#x}; it must be aligned to 16 bytes")
    return int(got[0])


def check_launch_number(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 16:
        raise ConfigError(f"{name}={value!r} must be an integer of 0 to 2^16 - 1; 0 chooses")
