# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The symmetric heap: memory at the same offset on every rank, mapped by every rank of the host.

    heap = Heap(device, mesh, heap_bytes=1 << 30)
    signals = heap.empty((world_size,), torch.int64, fill=0)   # collective: same on all ranks
    theirs = heap.peer_tensor(signals, peer=1)                 # rank 1's copy, here

Allocating is collective and checked: ranks that ask for different things get a ConfigError that names them.
Freeing is local: a range is reused when every rank has dropped it. docs/symmetric_memory.md tells the rest.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from . import _core
from ._dlpack import as_tensor
from ._symmetric import Call, Chunk, Plan, require_none, require_same, round_up
from .errors import CapacityError, ConfigError, MoriError, TransportError

if TYPE_CHECKING:
    import torch

    from .mesh import Mesh, Message
    from .registration import Registration

__all__ = ["Heap"]

#: Address space of all windows of one rank together, unless `reserve_bytes` says otherwise.
_ADDRESS_SPACE_BYTES = 1 << 41
_ALIGNMENT = 256


class Heap:
    """One rank's symmetric heap over a device and a mesh. Collective where it says so; not thread-safe,
    except that tensors may be dropped in any thread."""

    def __init__(
        self,
        device: _core.Device,
        mesh: Mesh,
        *,
        heap_bytes: int,
        reserve_bytes: int | None = None,
        debug: bool = False,
        share: str = "auto",
        timeout: float | None = None,
    ) -> None:
        """Collective. Starts with `heap_bytes` (rounded up) on every rank and grows when they do not suffice,
        up to `reserve_bytes` of address space (default: the device's memory). `debug` poisons what nobody has
        written and guards the end of each allocation. `share`: "map", "ipc" (no growth) or "auto", which
        takes "map" where every rank's driver can."""
        if heap_bytes <= 0:
            raise ConfigError(f"heap_bytes={heap_bytes} must be positive")
        if share not in ("auto", "map", "ipc"):
            raise ConfigError(f"share={share!r} must be 'auto', 'map' or 'ipc'")
        self.mesh = mesh
        self.device = device
        self.debug = debug
        self.timeout = timeout
        self.fabric: Any = None  # or the _core.Fabric, whose NIC registered tensors are made known to
        self._sequence = 0
        self._unsent: list[int] = []  # released here, not yet told to the peers
        self._released_by: dict[int, set[int]] = {}
        self._chunk_bytes = heap_bytes
        self._broken = ""

        space = _ADDRESS_SPACE_BYTES // mesh.world_size
        wanted = reserve_bytes or max(heap_bytes, min(device.properties.memory_bytes, space))
        can_map = device.can_map and share != "ipc"
        if share == "map" and not can_map:
            raise ConfigError("share='map', but this device's driver only has IPC handles")
        mine = Plan(heap_bytes, debug, device.share_granularity, can_map, wanted)
        offers = [msgspec.msgpack.decode(m.payload, type=Plan) for m in self.exchange("heap.create", mine)]
        for field in ("heap_bytes", "debug"):
            require_same(field, [getattr(offer, field) for offer in offers])
        self._granularity = math.lcm(*(offer.granularity for offer in offers))
        reserve = min(offer.reserve_bytes for offer in offers)
        self._core: _core.SymmetricHeap | None = _core.SymmetricHeap(
            device,
            mesh.rank,
            mesh.world_size,
            reserve_bytes=round_up(max(reserve, heap_bytes), self._granularity),
            map=all(offer.can_map for offer in offers),
            debug=debug,
            apart=[peer in mesh.remote for peer in range(mesh.world_size)],
        )
        self._grow(heap_bytes)

    @property
    def rank(self) -> int:
        return self.mesh.rank

    @property
    def world_size(self) -> int:
        return self.mesh.world_size

    @property
    def core(self) -> _core.SymmetricHeap:
        """The C++ heap, for products that launch kernels."""
        if self._core is None:
            raise ConfigError("the heap is closed")
        return self._core

    @property
    def bases_address(self) -> int:
        """Device address of uint64[world_size], the ranks' window bases as mapped here (World.bases)."""
        return int(self.core.bases_address)

    @property
    def statistics(self) -> _core.HeapStatistics:
        return self.core.statistics

    def allocate(
        self, nbytes: int, *, alignment: int = _ALIGNMENT, purpose: str = "buffer", fill: int | None = None
    ) -> _core.Allocation:
        """Collective. A range at the same offset on every rank, its bytes unspecified unless `fill` (0 to
        255) is given; filled on all ranks before any rank returns. Freed when the object and all tensors over
        it are gone. `alignment` is a power of two up to the granularity of mapping. Raises ConfigError naming
        the ranks that ask for something else, CapacityError when a rank cannot grow. Not capturable in a
        graph."""
        if nbytes < 0:
            raise ConfigError(f"nbytes={nbytes} must not be negative")
        if fill is not None and not 0 <= fill <= 255:
            raise ConfigError(f"fill={fill} is not a byte")
        core = self.core
        if alignment <= 0 or alignment & (alignment - 1) or alignment > core.alignment_limit:
            raise ConfigError(f"alignment={alignment} is not a power of two up to {core.alignment_limit}")
        hurt = self._agree(purpose, nbytes, alignment, fill)
        allocation = core.allocate(nbytes, alignment, purpose)
        if allocation is None:
            self._grow(core.needed_bytes(nbytes))
            allocation = core.allocate(nbytes, alignment, purpose)
            if allocation is None:
                raise MoriError(f"a fresh chunk does not hold {nbytes} bytes aligned to {alignment}: a defect of mori")
        value = _core.POISON_BYTE if fill is None and self.debug else fill
        if value is not None:
            core.fill(allocation.offset, value, nbytes)
            self.barrier("heap.fill")  # no peer may write before all have filled
        if hurt is not None:
            raise hurt
        return allocation

    def empty(
        self, shape: Sequence[int], dtype: torch.dtype, *, purpose: str = "empty", fill: int | None = None
    ) -> torch.Tensor:
        """Collective. A contiguous torch tensor on the context's device; as allocate() otherwise."""
        shape = tuple(int(extent) for extent in shape)
        if any(extent < 0 for extent in shape):
            raise ConfigError(f"shape={shape} has a negative dimension")
        allocation = self.allocate(math.prod(shape) * dtype.itemsize, purpose=purpose, fill=fill)
        return as_tensor(partial(allocation.tensor, self.rank), 0, shape, dtype)

    def address(self, tensor: torch.Tensor | _core.Allocation, peer: int | None = None) -> int:
        """Address, in this process, of the first byte of `peer`'s copy (default: this rank's own)."""
        peer = self.rank if peer is None else peer
        self.check_near(peer)
        if isinstance(tensor, _core.Allocation):
            return int(tensor.address(peer))
        return int(self.core.address(peer, self.offset(tensor)))

    def offset(self, tensor: torch.Tensor) -> int:
        """Offset of the tensor's first element in the heap. ConfigError if it does not lie in this rank's."""
        place = self.core.locate(tensor.data_ptr()) if tensor.numel() else None
        if place is None or place[0] != self.rank:
            raise ConfigError(f"the tensor at {tensor.data_ptr():#x} is not in this rank's symmetric heap")
        return int(place[1])

    def peer_tensor(self, tensor: torch.Tensor, peer: int) -> torch.Tensor:
        """`peer`'s copy of a contiguous tensor of the heap: loads and stores reach its memory. Orders
        nothing."""
        self.check_peer(peer)
        self.check_near(peer)
        if not tensor.is_contiguous():
            raise ConfigError(f"the tensor has strides {tuple(tensor.stride())}; it must be contiguous")
        if tensor.numel() == 0:
            return tensor
        offset = self.offset(tensor)
        allocation = self.core.find(offset)
        if allocation is None:
            raise ConfigError(f"nobody holds the memory at offset {offset} any more")
        return as_tensor(
            partial(allocation.tensor, peer), offset - allocation.offset, tuple(tensor.shape), tensor.dtype
        )

    def register(self, tensor: torch.Tensor) -> Registration:
        """Collective. Makes a contiguous tensor of equal size in bytes on all ranks reachable for the peers;
        see mori.registration. Raises ConfigError naming the ranks whose size differs. Not capturable in a
        graph."""
        from .registration import register

        return register(self, tensor)

    def collect(self) -> None:
        """Collective. Makes ranges that every rank has dropped reusable without allocating anything."""
        hurt = self._agree("collect", 0, 1, None)
        if hurt is not None:
            raise hurt

    def check_canaries(self) -> None:
        """Debug: raises MoriError naming the first allocation of this rank that was written past its end."""
        self.core.check_canaries()

    def close(self) -> None:
        """Local. Memory stays mapped here until the last tensor over it is gone, and in peers' until they
        close."""
        self._core = None
        if self.fabric is not None:
            self.fabric.stop()

    def __enter__(self) -> Heap:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def exchange(self, tag: str, message: msgspec.Struct, fds: Sequence[int] = ()) -> list[Message]:
        """Collective, for what is built on the heap. A failure leaves the ranks' heaps out of step, so that
        every later call is refused."""
        if self._broken:
            raise TransportError(f"the heap is unusable since {self._broken}; make another context")
        try:
            return self.mesh.exchange(tag, msgspec.msgpack.encode(message), fds, timeout=self.timeout)
        except (MoriError, KeyboardInterrupt) as error:
            self._broken = f"'{tag}' failed: {error}"
            raise

    def barrier(self, tag: str) -> None:
        """Collective, as exchange()."""
        self.exchange(tag, Chunk(0))

    def check_peer(self, peer: int) -> int:
        if not 0 <= peer < self.world_size:
            raise ConfigError(f"peer={peer} is not in 0..{self.world_size - 1}")
        return peer

    def check_near(self, peer: int) -> None:
        if peer not in self.mesh.neighbours:
            raise ConfigError(f"peer={peer} is on another host: its memory is reached by mori.shmem, not mapped here")

    def _agree(self, purpose: str, nbytes: int, alignment: int, fill: int | None) -> MoriError | None:
        """Checks that all ranks make the same call, and frees what all have released. Returns the first hurt
        canary, to be raised when the collective is over: leaving it half-way would leave the ranks with
        different heaps."""
        core = self.core
        self._sequence += 1
        self._unsent += core.take_released()
        if self._unsent:
            core.quiesce()  # kernels queued by this rank may still use what it dropped
        mine = Call(self._sequence, purpose, nbytes, alignment, fill, self._unsent)
        messages = self.exchange("heap.call", mine)
        calls = [msgspec.msgpack.decode(message.payload, type=Call) for message in messages]
        self._unsent = []
        for rank, call in enumerate(calls):
            for offset in call.released:
                self._released_by.setdefault(offset, set()).add(rank)
        require_same("the heap call", [call.describe() for call in calls])
        hurt: MoriError | None = None
        for offset in sorted(o for o, by in self._released_by.items() if len(by) == self.world_size):
            del self._released_by[offset]
            try:
                core.free(offset)
            except MoriError as error:
                hurt = hurt or error
        return hurt

    def _grow(self, nbytes: int) -> None:
        """Collective: one more chunk on every rank, or none on any and a CapacityError."""
        core = self.core
        if self.fabric is not None and self.fabric.fixed:
            raise CapacityError(
                f"the heap's {core.capacity_bytes} bytes are used up, and a NIC of hardware has it registered as it "
                "is: ask for more from the start (MORI_HEAP_BYTES)"
            )
        room = max(core.reserve_bytes - core.capacity_bytes, 0)
        nbytes = round_up(nbytes, self._granularity)
        nbytes = max(nbytes, min(round_up(self._chunk_bytes, self._granularity), room))
        try:
            mine, failure = Chunk(nbytes), ""
            fds: tuple[int, ...] = ()
            try:
                export = core.grow(nbytes)
                mine = Chunk(nbytes, export.ipc)
                fds = (export.fd,) if export.fd >= 0 else ()
            except MoriError as error:
                mine.failure = str(error)
            messages = self.exchange("heap.grow", mine, fds)
            try:
                chunks = [msgspec.msgpack.decode(message.payload, type=Chunk) for message in messages]
                require_none([chunk.failure for chunk in chunks], nbytes)
                for peer, (message, chunk) in enumerate(zip(messages, chunks, strict=True)):
                    if peer == self.rank or failure or peer not in self.mesh.neighbours:
                        continue
                    try:
                        core.attach(peer, message.fds[0] if message.fds else -1, chunk.ipc, chunk.nbytes)
                    except MoriError as error:
                        failure = f"it cannot map the memory of rank {peer}: {error}"
            finally:
                for message in messages:
                    for fd in message.fds:
                        os.close(fd)
            messages = self.exchange("heap.attached", Chunk(nbytes, failure=failure))
            chunks = [msgspec.msgpack.decode(message.payload, type=Chunk) for message in messages]
            require_none([chunk.failure for chunk in chunks], nbytes)
            try:
                core.commit()
                if self.fabric is not None:
                    self.fabric.follow_heap()
                    self.exchange("heap.followed", Chunk(nbytes))  # a peer's NIC checks what requests may touch
            except MoriError as error:
                self._broken = f"growing failed at the last step: {error}"
                raise
        except BaseException:
            core.abandon()
            raise
