# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""What hangs where in this machine: GPUs, NICs, PCIe, NUMA nodes, NVLink and xGMI.

    topology = mori.topology.read()
    nic_of_gpu = topology.assign_nics()          # ("mlx5_0", "mlx5_3", ...), one per GPU
    path = topology.path(0, 1)                   # Path(kind=PathKind.NVL, gbytes_per_s=450.0, links=18)
    rich.print(topology.tree())                  # also .svg() and .json(); `mori topo` on the command line

GPUs are numbered by PCI address, which need not be the order of a driver; `gpu_index` takes a driver's PCI
bus id. Needs neither a GPU nor a driver: sysfs is read, and what it hides is listed in `Topology.notes`.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

from . import _core
from ._topology_types import (
    Gpu,
    GpuLink,
    Nic,
    NicPort,
    NumaNode,
    Nvme,
    Path,
    PathKind,
    PciDevice,
    RankPlace,
    freeze,
    thaw,
)
from .errors import ConfigError

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = [
    "Gpu",
    "GpuLink",
    "Nic",
    "NicPort",
    "NumaNode",
    "Nvme",
    "Path",
    "PathKind",
    "PciDevice",
    "RankPlace",
    "Topology",
    "print_topology",
    "read",
]

_native = _core.topology


@dataclass(frozen=True)
class Topology:
    """A plain value: compare it, pickle it, send it to another rank."""

    host: str = ""
    """The kernel's boot id, equal for two containers of one machine; empty: hidden."""
    numa_nodes: tuple[NumaNode, ...] = ()
    pci: tuple[PciDevice, ...] = ()
    gpus: tuple[Gpu, ...] = ()
    nics: tuple[Nic, ...] = ()
    nvmes: tuple[Nvme, ...] = ()
    links: tuple[GpuLink, ...] = ()
    notes: tuple[str, ...] = ()
    """What could not be seen and what looks wrong, for people."""

    @functools.cached_property
    def _handle(self) -> Any:
        return thaw(self)

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def gpu_index(self, pci_bus_id: str) -> int:
        """Number of the GPU that a driver calls "0000:1b:00.0", "00000000:1B:00.0" or "1b:00.0"."""
        wanted = _address_key(pci_bus_id)
        for index, gpu in enumerate(self.gpus):
            if _address_key(gpu.pci) == wanted:
                return index
        known = ", ".join(gpu.pci for gpu in self.gpus) or "none"
        raise ConfigError(f"pci_bus_id={pci_bus_id!r}: no such GPU in this topology; there are: {known}")

    def path(self, a: int | str, b: int | str) -> Path:
        """The path between two devices: a GPU by number, a NIC by name, or any device by PCI address."""
        return freeze(_native.path_between(self._handle, self._address(a), self._address(b)), Path)

    def pick_nics(self, gpu: int | None = None, *, numa_node: int = -1, allow: Sequence[str] = ()) -> tuple[str, ...]:
        """NICs worth using from a GPU, or from memory of a NUMA node, best first.

        `allow` names the NICs to choose from and replaces the rules about which are worth using.
        """
        if gpu is None:
            return tuple(_native.pick_nics_for_numa(self._handle, numa_node, _names(allow)))
        return tuple(_native.pick_nics(self._handle, self._gpu_number(gpu), _names(allow)))

    def assign_nics(self, *, allow: Sequence[str] = ()) -> tuple[str, ...]:
        """The NIC of each GPU: of the nearest ones, the one that serves the fewest GPUs. "" without NICs."""
        return tuple(_native.assign_nics(self._handle, _names(allow)))

    def place(self, gpu: int | None = None, *, numa_node: int = -1, nic: str | None = None) -> RankPlace:
        """The place of a rank on a GPU, or of a CPU rank on a NUMA node; `nic` if not the assigned one."""
        if gpu is None:
            best = next(iter(self.pick_nics(numa_node=numa_node)), "") if nic is None else nic
            rate = self.nics[self._nic_number(best)].gbit_per_s / 8 if best else 0.0
            return RankPlace(host=self.host, numa_node=numa_node, nic=best, nic_gbytes_per_s=rate)
        number = self._gpu_number(gpu)
        chosen = self.assign_nics()[number] if nic is None else nic
        return freeze(_native.place_of(self._handle, number, chosen), RankPlace)

    def path_between_ranks(self, a: RankPlace, b: RankPlace) -> Path:
        """The path between two ranks; `a` is on this machine. A hidden host counts as another one."""
        return freeze(_native.path_between_ranks(self._handle, thaw(a), thaw(b)), Path)

    def json(self) -> str:
        """This value, with the choice of NICs and the paths between GPUs; `from_json` reads it back."""
        value = dataclasses.asdict(self)
        value["nic_of_gpu"] = self.assign_nics()
        value["gpu_paths"] = [[str(self.path(a, b).kind) for b in range(len(self.gpus))] for a in range(len(self.gpus))]
        return json.dumps(value, indent=1)

    @staticmethod
    def from_json(text: str | bytes) -> Topology:
        """A topology written by `json`, perhaps on another machine or by hand where sysfs hides too much."""
        import msgspec

        try:
            return msgspec.json.decode(text, type=Topology)
        except msgspec.MsgspecError as error:
            raise ConfigError(f"not the JSON of a topology: {error}") from error

    def tree(self) -> RenderableType:
        """For rich.print: sockets, NUMA nodes, host bridges, switches, and what hangs on them."""
        from . import _topology_view

        return _topology_view.tree(self)

    def svg(self) -> str:
        """A picture of the machine, as one self-contained SVG document."""
        from . import _topology_svg

        return _topology_svg.svg(self)

    def _address(self, device: int | str) -> str:
        if isinstance(device, int):
            return self.gpus[self._gpu_number(device)].pci
        for nic in self.nics:
            if nic.name == device and not nic.pci:
                raise ConfigError(f"NIC {device!r} is software and has no place on PCIe")
            if nic.name == device:
                return nic.pci
        return device

    def _gpu_number(self, gpu: int) -> int:
        if isinstance(gpu, bool) or not isinstance(gpu, int) or not 0 <= gpu < len(self.gpus):
            raise ConfigError(f"gpu={gpu!r}: this topology has {len(self.gpus)} GPUs, numbered from 0")
        return gpu

    def _nic_number(self, name: str) -> int:
        for index, nic in enumerate(self.nics):
            if nic.name == name:
                return index
        raise ConfigError(f"nic={name!r}: this machine has {', '.join(n.name for n in self.nics) or 'none'}")


def read(
    root: str | os.PathLike[str] = "/",
    gpu_links: Iterable[GpuLink] | Callable[[], Iterable[GpuLink]] | None = None,
) -> Topology:
    """Reads `root`/sys and a little of `root`/proc.

    NVLink is not in sysfs. `gpu_links` is a table of links, or a callable that returns one; None asks the
    NVIDIA driver, if `root` is this machine and the driver is loaded. Links given here replace what sysfs
    shows for the same two GPUs.

    What is missing, hidden or unreadable becomes a note. Raises ConfigError for a wrong entry of `gpu_links`
    only.
    """
    notes: tuple[str, ...] = ()
    if gpu_links is None:
        links: list[GpuLink] = []
        if os.path.realpath(root) == "/":
            from . import _nvml

            links, notes = _nvml.read_links()
    else:
        links = list(gpu_links() if callable(gpu_links) else gpu_links)
    topology: Topology = freeze(_native.read_topology(os.fspath(root), [thaw(link) for link in links]), Topology)
    if notes and sum(gpu.vendor == "nvidia" for gpu in topology.gpus) > 1:
        return dataclasses.replace(topology, notes=topology.notes + notes)
    return topology


def print_topology(*, json: bool = False, svg: FilePath | None = None, root: FilePath = FilePath("/")) -> None:
    """`mori topo`: a tree or JSON on the standard output, and a picture in the file `svg`."""
    topology = read(root)
    if svg is not None:
        svg.write_text(topology.svg(), encoding="utf-8")
    if json:
        sys.stdout.write(topology.json() + "\n")
    else:
        import rich

        rich.print(topology.tree())


def _names(allow: Sequence[str]) -> list[str]:
    if isinstance(allow, str):
        raise ConfigError(f"allow={allow!r}: must be a list of NIC names, not one string")
    return list(allow)


def _address_key(text: str) -> tuple[int, ...]:
    domain_bus_slot = text.strip().lower().replace(".", ":").split(":")
    try:
        numbers = [int(part, 16) for part in domain_bus_slot]
    except ValueError:
        numbers = []
    if len(numbers) == 3:
        numbers.insert(0, 0)
    if len(numbers) != 4:
        raise ConfigError(f"pci_bus_id={text!r}: must look like 0000:1b:00.0")
    return tuple(numbers)
