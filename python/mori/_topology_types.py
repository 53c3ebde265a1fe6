# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The parts of a `mori.topology.Topology` as frozen dataclasses, and their way to and from the extension.

Each class has the name and the fields of its struct in src/core/topology/topology.hpp. `mori.topology`
re-exports them.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
from dataclasses import dataclass
from typing import Any, TypeVar, get_args, get_type_hints

from . import _core
from .errors import ConfigError

_native = _core.topology


class PathKind(str, enum.Enum):
    """Paths, nearest first; the PCIe ones mean what they mean in `nvidia-smi topo -m`."""

    SELF = "SELF"  # one device
    NVL = "NVL"  # NVLink, directly or through NVSwitch
    XGMI = "XGMI"  # AMD Infinity Fabric links
    PIX = "PIX"  # one PCIe switch
    PXB = "PXB"  # several PCIe switches, no host bridge
    PHB = "PHB"  # one PCIe host bridge
    NODE = "NODE"  # several host bridges of one NUMA node
    SYS = "SYS"  # between NUMA nodes, usually across sockets
    NET = "NET"  # between machines

    @property
    def distance(self) -> int:
        """0 for SELF, larger for farther."""
        return list(PathKind).index(self)

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class NumaNode:
    id: int = 0
    socket: int = -1
    """Physical package of its CPUs; -1: it has none, or they are hidden."""
    cpulist: str = ""
    """As the kernel writes it: "0-15,32-47"."""
    memory_bytes: int = 0
    """0: hidden."""
    distances: tuple[int, ...] = ()
    """To each entry of `Topology.numa_nodes`; 10 is local."""

    @property
    def cpus(self) -> frozenset[int]:
        """For os.sched_setaffinity."""
        ranges = (part.split("-") for part in self.cpulist.split(",") if part)
        return frozenset(cpu for r in ranges for cpu in range(int(r[0]), int(r[-1]) + 1))


@dataclass(frozen=True)
class PciDevice:
    """A GPU, a NIC, an NVMe drive, or a bridge above one of them."""

    address: str = ""
    vendor: int = 0
    device: int = 0
    class_code: int = 0
    """24 bits: class, subclass, interface."""
    driver: str = ""
    numa_node: int = -1
    path: tuple[str, ...] = ()
    """From the host bridge ("pci0000:00") down to the port above the device."""
    physical_function: str = ""
    """Of an SR-IOV virtual function whose physical one is visible."""
    speed_gt_s: float = 0.0
    max_speed_gt_s: float = 0.0
    width: int = 0
    """Lanes of the link above it; 0: unknown, or no link."""
    max_width: int = 0


@dataclass(frozen=True)
class Gpu:
    pci: str = ""
    vendor: str = ""
    """"amd" or "nvidia"."""
    model: str = ""
    numa_node: int = -1
    partitions: int = 1
    """Devices that it presents itself as (AMD compute partitions)."""


@dataclass(frozen=True)
class NicPort:
    number: int = 1
    active: bool = False
    gbit_per_s: float = 0.0
    link_layer: str = ""
    """"InfiniBand", "Ethernet" (RoCE) or "Unspecified" (EFA)."""
    netdev: str = ""


@dataclass(frozen=True)
class Nic:
    name: str = ""
    """Its RDMA name: "mlx5_0"."""
    pci: str = ""
    """Empty: software (rxe, siw)."""
    numa_node: int = -1
    ports: tuple[NicPort, ...] = ()

    @property
    def active(self) -> bool:
        return any(port.active for port in self.ports)

    @property
    def gbit_per_s(self) -> float:
        """Of the fastest active port; 0: none, or unknown."""
        return max((port.gbit_per_s for port in self.ports if port.active), default=0.0)


@dataclass(frozen=True)
class Nvme:
    name: str = ""
    pci: str = ""
    numa_node: int = -1


@dataclass(frozen=True)
class GpuLink:
    """All NVLink or xGMI links between two GPUs, given by PCI address."""

    a: str
    b: str
    kind: PathKind = PathKind.NVL
    links: int = 0
    """0: unknown."""
    gbytes_per_s: float = 0.0
    """All of them together, one direction; 0: unknown, then the model's rate is taken where it is known."""
    weight: int = 0
    """The kernel's cost of an xGMI link: 15 a hop; 0: unknown."""


@dataclass(frozen=True)
class Path:
    kind: PathKind = PathKind.SELF
    gbytes_per_s: float = 0.0
    """Upper bound for one direction from link rates; 0: unknown."""
    links: int = 0
    """GPU-GPU links; 0: none, or unknown."""

    def __str__(self) -> str:
        rate = f" {self.gbytes_per_s:.0f} GB/s" if self.gbytes_per_s else ""
        return f"{self.kind}{rate}"


@dataclass(frozen=True)
class RankPlace:
    """What a rank tells its peers so that each can find the path to it."""

    host: str = ""
    gpu: str = ""
    """PCI address; empty: a CPU rank."""
    numa_node: int = -1
    nic: str = ""
    nic_gbytes_per_s: float = 0.0
    """What the port and the path to it allow; 0: unknown."""


_STRUCTS = (NumaNode, PciDevice, Gpu, NicPort, Nic, Nvme, GpuLink)  # what lists hold
_T = TypeVar("_T")


def freeze(native: Any, cls: type[_T]) -> _T:
    """A struct of the extension as the dataclass of the same name."""
    key: Any = cls
    return cls(**{name: _freeze_value(getattr(native, name), hint) for name, hint in _hints(key).items()})


def _freeze_value(value: Any, hint: Any) -> Any:
    if hint is PathKind:
        return PathKind[value.name]
    if isinstance(value, list):
        item = get_args(hint)[0]
        return tuple(freeze(v, item) for v in value) if item in _STRUCTS else tuple(value)
    return value


def thaw(value: Any) -> Any:
    """The opposite of `freeze`."""
    if isinstance(value, PathKind):
        return getattr(_native.PathKind, value.name)
    if isinstance(value, tuple):
        return [thaw(item) for item in value]
    if not dataclasses.is_dataclass(value):
        return value
    native = getattr(_native, type(value).__name__)()
    for field in dataclasses.fields(value):
        try:
            setattr(native, field.name, thaw(getattr(value, field.name)))
        except TypeError:
            given = getattr(value, field.name)
            raise ConfigError(f"{type(value).__name__}.{field.name}={given!r}: must be {field.type}") from None
    return native


@functools.cache
def _hints(cls: Any) -> dict[str, Any]:
    hints = get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}
