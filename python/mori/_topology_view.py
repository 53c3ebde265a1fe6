# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""How a `mori.topology.Topology` is shown to people: a tree with a table of paths. `_topology_svg` draws it.

Both show the same grouping: socket, NUMA node, host bridge or PCIe switch, devices. A group is what shares a
switch directly, or else a host bridge.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mori._topology_types import Gpu, Nic, NumaNode, Nvme

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from mori.topology import Topology


COLOURS = {
    "SELF": "#ffffff",
    "NVL": "#76b900",
    "XGMI": "#e8562a",
    "PIX": "#2e8b57",
    "PXB": "#66b58a",
    "PHB": "#4c8fd6",
    "NODE": "#c9b037",
    "SYS": "#c0504d",
    "NET": "#888888",
}


@dataclass
class BridgeGroup:
    """What hangs on one switch or host bridge."""

    bridge: str
    switch: str = ""
    numa_node: int = -1
    gpus: list[int] = field(default_factory=list)
    nics: list[Nic] = field(default_factory=list)
    nvmes: list[Nvme] = field(default_factory=list)

    @property
    def title(self) -> str:
        return f"PCIe switch {self.switch}" if self.switch else f"host bridge {self.bridge}"


def _groups(t: Topology) -> list[BridgeGroup]:
    devices = {d.address: d for d in t.pci}
    found: dict[tuple[str, str], BridgeGroup] = {}

    def group(address: str, numa_node: int) -> BridgeGroup:
        device = devices.get(address)
        path = list(device.path) if device else []
        # A switch on the device's own card (its bridges have its vendor) is no shared switch.
        while device and len(path) > 2 and path[-1] in devices and devices[path[-1]].vendor == device.vendor:
            path.pop()
        bridges = [p for p in path if p.startswith("pci")]
        bridge = bridges[-1] if bridges else "?"
        below = path[path.index(bridge) + 1 :] if bridges else []
        switch = below[1] if len(below) > 2 else ""  # root port, upward port, downward port, ...
        return found.setdefault((bridge, switch), BridgeGroup(bridge, switch, numa_node))

    for index, gpu in enumerate(t.gpus):
        group(gpu.pci, gpu.numa_node).gpus.append(index)
    for nic in t.nics:
        if nic.pci:
            group(nic.pci, nic.numa_node).nics.append(nic)
    for nvme in t.nvmes:
        group(nvme.pci, nvme.numa_node).nvmes.append(nvme)
    return sorted(found.values(), key=lambda g: (g.bridge, g.switch))


def shown_nodes(t: Topology) -> list[NumaNode]:
    """All NUMA nodes, and one in place of an unknown one if something needs it."""
    known = {node.id for node in t.numa_nodes}
    unknown = any(g.numa_node not in known for g in _groups(t))
    return [*t.numa_nodes, *([NumaNode(id=-1)] if unknown or not known else [])]


def groups_of(t: Topology, node: NumaNode) -> list[BridgeGroup]:
    known = {n.id for n in t.numa_nodes}
    return [g for g in _groups(t) if g.numa_node == node.id or (node.id == -1 and g.numa_node not in known)]


def node_title(node: NumaNode) -> str:
    if node.id == -1:
        return "NUMA node unknown"
    memory = f", {node.memory_bytes / 2**30:.0f} GiB" if node.memory_bytes else ""
    socket = f"socket {node.socket}, " if node.socket >= 0 else ""
    return f"{socket}NUMA node {node.id}: CPUs {node.cpulist or 'none'}{memory}"


def nic_detail(nic: Nic) -> str:
    port = next((p for p in nic.ports if p.active), nic.ports[0] if nic.ports else None)
    if port is None:
        return "no port"
    rate = f"{port.gbit_per_s:.0f} Gbit/s " if port.gbit_per_s else ""
    return f"{rate}{port.link_layer}{'' if port.active else ', down'}"


def gpu_detail(gpu: Gpu) -> str:
    return gpu.model + (f" in {gpu.partitions} partitions" if gpu.partitions > 1 else "")


def link_summary(t: Topology) -> list[str]:
    """One line for each kind and rate of GPU links: "NVL 450 GB/s, 18 links: every pair of GPUs"."""
    pairs: dict[str, int] = {}
    for link in t.links:
        rate = f" {link.gbytes_per_s:.0f} GB/s" if link.gbytes_per_s else ""
        count = f", {link.links} link{'s' if link.links > 1 else ''}" if link.links else ""
        text = f"{link.kind}{rate}{count}"
        pairs[text] = pairs.get(text, 0) + 1
    every = len(t.gpus) * (len(t.gpus) - 1) // 2
    return [
        f"{text}: {'every pair' if n == every else f'{n} of {every} pairs'} of GPUs"
        for text, n in pairs.items()
    ]


def tree(t: Topology) -> RenderableType:
    from rich.console import Group
    from rich.markup import escape as plain
    from rich.tree import Tree

    nic_of_gpu = t.assign_nics()
    root = Tree("[bold]machine[/]")
    for node in shown_nodes(t):
        if node.id == -1 and not groups_of(t, node):
            continue
        branch = root.add(plain(node_title(node)))
        for group in groups_of(t, node):
            twig = branch.add(f"[dim]{plain(group.title)}[/]")
            for index in group.gpus:
                gpu, nic = t.gpus[index], nic_of_gpu[index]
                served = (
                    f"  -> {nic} ({t.path(index, nic)})"
                    if nic and _on_pci(t, nic)
                    else f"  -> {nic or 'no NIC'}"
                )
                twig.add(f"[green]GPU {index}[/] {plain(f'{gpu_detail(gpu)}  {gpu.pci}{served}')}")
            for nic in group.nics:
                netdev = next((f"  {p.netdev}" for p in nic.ports if p.netdev), "")
                twig.add(f"[cyan]NIC {plain(nic.name)}[/] {plain(f'{nic_detail(nic)}  {nic.pci}{netdev}')}")
            for nvme in group.nvmes:
                twig.add(f"[dim]{plain(f'{nvme.name}  {nvme.pci}')}[/]")
    for nic in t.nics:
        if not nic.pci:
            root.add(f"[cyan]NIC {plain(nic.name)}[/] {plain(f'{nic_detail(nic)}, software')}")
    for line in link_summary(t):
        root.add(plain(line))
    if not t.gpus and not t.nics:
        root.add("no GPU and no RDMA NIC")
    parts: list[RenderableType] = [root]
    if len(t.gpus) > 1 or (t.gpus and t.nics):
        parts.append(_table(t))
    parts.extend(f"[yellow]note:[/] {plain(note)}" for note in t.notes)
    return Group(*parts)


def _on_pci(t: Topology, name: str) -> bool:
    return any(nic.name == name and nic.pci for nic in t.nics)


def table_columns(t: Topology) -> list[tuple[str, int | str]]:
    gpus: list[tuple[str, int | str]] = [(f"GPU{index}", index) for index in range(len(t.gpus))]
    return gpus + [(nic.name, nic.name) for nic in t.nics if nic.pci]


def _table(t: Topology) -> Table:
    from rich.markup import escape as plain
    from rich.table import Table

    columns = table_columns(t)
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for name, _ in columns:
        table.add_column(plain(name), justify="center")
    for row, gpu in columns[: len(t.gpus)]:
        kinds = (t.path(gpu, other).kind.value for _, other in columns)
        table.add_row(row, *("." if k == "SELF" else f"[{COLOURS[k]}]{k}[/]" for k in kinds))
    return table
