# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Whether an operation's arguments can be right. Every refusal is a ConfigError that names argument, value and what is
allowed, before anything is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mori.errors import ConfigError
from mori.shmem._kinds import names, number

if TYPE_CHECKING:
    import torch

    from mori.context import Context

__all__ = ["Checks", "whole"]


def whole(name: str, value: object, low: int, high: int) -> int:
    """An integer of low..high, whatever integer type it has."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise ConfigError(f"{name}={value!r} is not an integer")
    index = int(value.__index__())
    if not low <= index <= high:
        raise ConfigError(f"{name}={index} is not in {low}..{high}")
    return index


class Checks:
    """Of one context's tensors and ranks."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx

    def pe(self, value: object, name: str = "pe") -> int:
        return whole(name, value, 0, self._ctx.world_size - 1)

    def tensor(self, name: str, tensor: torch.Tensor) -> int:
        """Address of a contiguous tensor on the context's device."""
        import torch

        if not isinstance(tensor, torch.Tensor):
            raise ConfigError(f"{name} must be a torch tensor, got {type(tensor).__name__}")
        if tensor.device != self._ctx.device:
            raise ConfigError(f"{name} is on {tensor.device}, the context on {self._ctx.device}")
        if not tensor.is_contiguous():
            raise ConfigError(f"{name} has strides {tuple(tensor.stride())}; it must be contiguous")
        return tensor.data_ptr()

    def symmetric(self, name: str, tensor: torch.Tensor) -> int:
        """Address of a contiguous tensor in this rank's symmetric heap."""
        address = self.tensor(name, tensor)
        if tensor.numel() == 0:
            return address
        place = self._ctx.heap.core.locate(address)
        if place is None:
            raise ConfigError(f"{name} at {address:#x} is not symmetric: make it with Shmem.empty(), zeros() or full()")
        if place[0] != self._ctx.rank:
            raise ConfigError(f"{name} is rank {place[0]}'s memory; give this rank's own tensor and pe={place[0]}")
        return address

    def alike(self, dst: torch.Tensor, src: torch.Tensor, *, times_dst: int = 1, times_src: int = 1) -> None:
        """Same dtype, and dst.numel() * times_dst == src.numel() * times_src."""
        if dst.dtype != src.dtype:
            raise ConfigError(f"dst is {dst.dtype}, src {src.dtype}; they must be the same")
        if dst.numel() * times_dst != src.numel() * times_src:
            wanted = f"{src.numel() * times_src // times_dst}"
            raise ConfigError(f"dst has {dst.numel()} elements, src {src.numel()}: dst must have {wanted}")

    def word(self, name: str, tensor: torch.Tensor, family: str) -> tuple[int, int]:
        """Address of a symmetric tensor of one element, and the kernels' number of its dtype."""
        address = self.symmetric(name, tensor)
        if tensor.numel() != 1:
            raise ConfigError(f"{name} has {tensor.numel()} elements; it must have one, such as t[3]")
        if address % tensor.element_size():
            raise ConfigError(f"{name} at {address:#x} is not aligned to its {tensor.element_size()} bytes")
        return address, self.dtype(name, tensor, family)

    def dtype(self, name: str, tensor: torch.Tensor, family: str) -> int:
        kind = number(tensor.dtype, family)
        if kind is None:
            raise ConfigError(f"{name} is {tensor.dtype}; allowed: {names(family)}")
        return kind

    def out(self, out: torch.Tensor | None, *dtypes: torch.dtype) -> int:
        """Address of the one element where a result goes; 0 for nowhere."""
        if out is None:
            return 0
        address = self.tensor("out", out)
        if out.numel() != 1:
            raise ConfigError(f"out has {out.numel()} elements; it must have one")
        if out.dtype not in dtypes:
            raise ConfigError(f"out is {out.dtype}; allowed: {', '.join(str(dtype) for dtype in dtypes)}")
        return address
