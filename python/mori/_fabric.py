# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Which way leads to which rank, and the queues where that is a NIC's: docs/ibgda.md, "SHMEM over queues".

p2p: load and store into the peer's heap, mapped here. ibgda: kernels post to queues of a NIC. Ranks of one host, all
that a mesh joins, are reached by p2p unless ibgda is asked for; the NIC is then a software one, a thread of each rank,
unless MORI_IBGDA_NIC names one of hardware.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from . import _core
from .errors import ConfigError

if TYPE_CHECKING:
    from .config import Config
    from .heap import Heap
    from .mesh import Mesh

__all__ = ["check_transport", "connect", "lent"]

_TRANSPORTS = ("auto", "p2p", "ibgda")
_SILENT_MS = 15_000  # a peer that gives no sign of life for so long is lost, where waits may last for ever


def check_transport(transport: str, kind: str, mesh: Mesh) -> str:
    """What "auto" stands for: "p2p", "ibgda", or "mixed": load and store within a host, queues to others."""
    if transport not in _TRANSPORTS:
        raise ConfigError(f"transport={transport!r}: allowed are {', '.join(_TRANSPORTS)}")
    away = ", ".join(map(str, mesh.remote))
    if transport == "p2p" and mesh.remote:
        raise ConfigError(f"transport='p2p', but ranks {away} are on other hosts, where load and store do not reach")
    chosen = "mixed" if mesh.remote and transport == "auto" else "p2p" if transport == "auto" else transport
    if mesh.world_size == 1:
        return "p2p"
    if chosen != "p2p" and kind != "cpu":
        why = f"ranks {away} are on other hosts, and this is" if mesh.remote else "transport='ibgda' on"
        raise ConfigError(
            f"{why} a {kind} device: the software NIC moves host memory only, and no NIC of hardware "
            "has served a GPU yet; use device='cpu' or ranks of one host with 'p2p'"
        )
    return chosen


def connect(heap: Heap, settings: Config, transport: str) -> Any:
    """Queues to all other ranks, or with "mixed" to those of other hosts. Collective. Gives a _core.Fabric."""
    family = settings.ibgda_provider
    if family == "auto":
        family = "ionic" if settings.ibgda_mover == "verbs" else "mlx5"  # verbs carries none of mlx5's masked atomics
        family = "none" if settings.ibgda_nic else family  # none: the named NIC's
    direct = heap.mesh.neighbours if transport == "mixed" else {heap.rank}
    ways = [_core.Path.direct if peer in direct else _core.Path.queue for peer in range(heap.world_size)]
    fabric = _core.Fabric(
        heap.core,
        ways,
        family=getattr(_core.NicFamily, family),
        queues_per_peer=settings.ibgda_queues,
        nic=settings.ibgda_nic,
        address=heap.mesh.address or "127.0.0.1",
        device=settings.rdma_devices.partition(",")[0].strip(),
        mover=getattr(_core.Mover, settings.ibgda_mover),
        timeout_ms=max(round(heap.timeout * 500), 1000) if heap.timeout else _SILENT_MS,
    )
    offers = heap.mesh.exchange("mori.fabric", fabric.offer(), timeout=heap.timeout)
    fabric.connect([offer.payload for offer in offers])
    return fabric


@contextlib.contextmanager
def lent(fabric: Any, address: int, nbytes: int) -> Iterator[None]:
    """Registers memory with the NIC for as long as a call takes, if it is not registered already."""
    if nbytes == 0 or fabric.has_region(address, nbytes):
        yield
        return
    fabric.add_region(address, nbytes)
    try:
        yield
    finally:
        fabric.remove_region(address)
