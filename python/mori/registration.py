# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Tensors that somebody else allocated, made reachable for the peers.

    reg = heap.register(weights)              # collective: same size on all ranks
    reg.publish()                             # no-op unless staged
    theirs = reg.peer_tensor(1)               # rank 1's bytes, here
    reg.close()                               # collective

A tensor of the heap is registered as itself. A GPU tensor in a plain allocation is shared by the driver's IPC
handle. Everything else (segments of torch's expandable allocator, CPU memory beside the heap, drivers that
refuse) is served by a copy in the heap, on all ranks if on any: then `staged` is true, `publish()` copies
into it, and `fetch()` back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from . import _core
from ._dlpack import as_tensor
from ._symmetric import require_same
from .errors import ConfigError, MoriError

if TYPE_CHECKING:
    import torch

    from .heap import Heap

__all__ = ["Registration", "register"]


class _Offer(msgspec.Struct, array_like=True):
    """How a rank's tensor can be reached: at an offset of the heap (no `ipc`), in an allocation, or not at
    all."""

    nbytes: int
    reachable: bool = False
    offset: int = 0
    ipc: bytes = b""
    allocation_bytes: int = 0
    failure: str = ""


class Registration:
    """What `Heap.register()` returns. Keeps the tensor alive. Not capturable in a graph, but `publish()` and
    `fetch()` are, being plain copies on the current stream."""

    def __init__(
        self,
        heap: Heap,
        tensor: torch.Tensor,
        staging: torch.Tensor | None,
        offers: list[_Offer],
        imported: dict[int, _core.PeerMemory],
    ) -> None:
        self._heap: Heap | None = heap
        self._tensor = tensor
        self._staging = staging
        outside = tensor.numel() != 0 and heap.core.locate(tensor.data_ptr()) is None
        self._nic = heap.fabric if outside else None
        if self._nic is not None:
            self._nic.add_region(tensor.data_ptr(), tensor.numel() * tensor.dtype.itemsize)
        self._offers = offers
        self._imported = imported
        self.nbytes = tensor.numel() * tensor.dtype.itemsize

    @property
    def staged(self) -> bool:
        """Whether peers reach a copy in the heap, not the tensor. The same on all ranks."""
        return self._staging is not None

    def address(self, peer: int | None = None) -> int:
        """Address, in this process, of the first byte of `peer`'s memory (default: this rank's own)."""
        heap = self._open()
        peer = heap.rank if peer is None else heap.check_peer(peer)
        if self._staging is not None:
            return heap.address(self._staging, peer) if self.nbytes else 0
        if peer == heap.rank:
            return self._tensor.data_ptr()
        offer = self._offers[peer]
        if peer in self._imported:
            return int(self._imported[peer].address) + offer.offset
        return int(heap.core.address(peer, offer.offset))

    def peer_tensor(self, peer: int) -> torch.Tensor:
        """`peer`'s memory as a tensor of this one's shape and dtype. Orders nothing."""
        heap = self._open()
        heap.check_peer(peer)
        if self._staging is not None:
            return heap.peer_tensor(self._staging, peer)
        if peer == heap.rank:
            return self._tensor
        shape, dtype, offer = tuple(self._tensor.shape), self._tensor.dtype, self._offers[peer]
        if peer in self._imported:
            return as_tensor(self._imported[peer].tensor, offer.offset, shape, dtype)
        # Tensors of the heap may lie at different offsets on different ranks: then no one lease covers both.
        core = heap.core
        return as_tensor(lambda *args: core.tensor(peer, *args), offer.offset, shape, dtype)

    def publish(self) -> None:
        """Makes the tensor's present contents what peers read, on the current stream. Needed only if
        `staged`."""
        self._open()
        if self._staging is not None:
            self._staging.copy_(self._tensor, non_blocking=self._tensor.is_cuda)

    def fetch(self) -> None:
        """Brings what peers wrote into the tensor, on the current stream. Needed only if `staged`."""
        self._open()
        if self._staging is not None:
            self._tensor.copy_(self._staging, non_blocking=self._tensor.is_cuda)

    def close(self) -> None:
        """Collective: no rank's memory goes while a peer still has it open."""
        heap = self._open()
        self._heap = None
        heap.core.quiesce()
        if self._nic is not None:
            self._nic.remove_region(self._tensor.data_ptr())
        self._imported.clear()
        heap.barrier("heap.unregister")
        self._staging = None

    def _open(self) -> Heap:
        if self._heap is None:
            raise ConfigError("the registration is closed")
        return self._heap


def register(heap: Heap, tensor: torch.Tensor) -> Registration:
    """See Heap.register()."""
    if not tensor.is_contiguous():
        raise ConfigError(f"the tensor has strides {tuple(tensor.stride())}; it must be contiguous")
    if heap.mesh.remote:
        raise ConfigError(f"register: ranks {list(heap.mesh.remote)} are on other hosts; use tensors of ctx.empty")
    mine = _offer(heap, tensor)
    offers = [msgspec.msgpack.decode(m.payload, type=_Offer) for m in heap.exchange("heap.register", mine)]
    require_same("the size in bytes of the tensor to register", [offer.nbytes for offer in offers])

    imported: dict[int, _core.PeerMemory] = {}
    if all(offer.reachable for offer in offers):
        failure = ""
        for peer, offer in enumerate(offers):
            if offer.ipc and peer != heap.rank:
                try:
                    imported[peer] = _core.PeerMemory(heap.device, offer.ipc, offer.allocation_bytes)
                except MoriError as error:
                    failure = f"rank {heap.rank} cannot open the memory of rank {peer}: {error}"
                    break
        answers = heap.exchange("heap.registered", _Offer(mine.nbytes, failure=failure))
        if not any(msgspec.msgpack.decode(answer.payload, type=_Offer).failure for answer in answers):
            return Registration(heap, tensor, None, offers, imported)
        imported.clear()
    staging = heap.empty(tuple(tensor.shape), tensor.dtype, purpose="register")
    return Registration(heap, tensor, staging, offers, {})


def _offer(heap: Heap, tensor: torch.Tensor) -> _Offer:
    offer = _Offer(tensor.numel() * tensor.dtype.itemsize)
    if offer.nbytes == 0:
        return offer
    place = heap.core.locate(tensor.data_ptr())
    if place is not None:
        if place[0] != heap.rank:
            raise ConfigError(f"the tensor is rank {place[0]}'s memory; each rank registers its own")
        offer.reachable, offer.offset = True, place[1]
    elif tensor.is_cuda and tensor.device.index == heap.device.ordinal and heap.device.kind != "cpu":
        exported = _core.export_memory(heap.device, tensor.data_ptr())
        if exported is not None:
            offer.reachable = True
            offer.ipc, offer.offset, offer.allocation_bytes = exported
    return offer
