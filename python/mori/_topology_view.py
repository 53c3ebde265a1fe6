# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""How a `mori.topology.Topology` is shown to people: a tree with a table of paths. `_topology_svg` draws it.

Both show the same grouping: socket, NUMA node, host bridge or PCIe switch, devices. A group is what shares a
switch directly, or else a host bridge.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ._topology_types import Gpu, Nic, NumaNode, Nvme

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

    from .topology import Topology


COLOURS = {
    "SELF": "#ffffff",
    "NVL": "#76b900",
    "XGMI": "#9b7fd4",
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
        return f"switch {self.switch}" if self.switch else f"bridge {self.bridge}"


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
    return [f"{text}: {'every pair' if n == every else f'{n} of {every} pairs'} of GPUs" for text, n in pairs.items()]


def tree(t: Topology) -> RenderableType:
    from rich.console import Group
    from rich.text import Text
    from rich.tree import Tree

    # Text, never markup: rich would make an emoji of the address 0000:ab:00.0.
    nic_of_gpu = t.assign_nics()
    root = Tree(Text("machine", "bold"))
    for node in shown_nodes(t):
        groups = groups_of(t, node)
        if node.id == -1 and not groups:
            continue
        branch = root.add(Text(node_title(node)))
        for group in groups:
            twig = branch.add(Text(group.title, "dim"))
            for index in group.gpus:
                gpu = t.gpus[index]
                served = _served(t, index, nic_of_gpu[index])
                twig.add(_line(f"GPU {index}", "green", gpu_detail(gpu), gpu.pci, served))
            for nic in group.nics:
                netdev = next((p.netdev for p in nic.ports if p.netdev), "")
                twig.add(_line(f"NIC {nic.name}", "cyan", nic_detail(nic), nic.pci, netdev))
            for nvme in group.nvmes:
                twig.add(_line(nvme.name, "dim", nvme.pci))
    for nic in t.nics:
        if not nic.pci:
            root.add(_line(f"NIC {nic.name}", "cyan", f"{nic_detail(nic)}, software"))
    for summary in link_summary(t):
        root.add(Text(summary))
    if not t.gpus and not t.nics:
        root.add(Text("no GPU and no RDMA NIC"))
    parts: list[RenderableType] = [root]
    # Two tables, so that eight GPUs fit on a terminal.
    columns = table_columns(t)
    for part in (columns[: len(t.gpus)] if len(t.gpus) > 1 else [], columns[len(t.gpus) :]):
        if part and t.gpus:
            parts.append(_table(t, part))
    parts.extend(_line("note:", "yellow", note, gap=" ") for note in t.notes)
    return Group(*parts)


def _line(name: str, style: str, *rest: str, gap: str = "  ") -> Text:
    from rich.text import Text

    return Text.assemble((name, style), " " + gap.join(part for part in rest if part))


def _served(t: Topology, gpu: int, nic: str) -> str:
    if not nic:
        return "-> no NIC"
    on_pci = any(n.name == nic and n.pci for n in t.nics)
    return f"-> {nic} ({t.path(gpu, nic)})" if on_pci else f"-> {nic}"


def table_columns(t: Topology) -> list[tuple[str, int | str]]:
    gpus: list[tuple[str, int | str]] = [(f"GPU{index}", index) for index in range(len(t.gpus))]
    return gpus + [(nic.name, nic.name) for nic in t.nics if nic.pci]


def _table(t: Topology, columns: list[tuple[str, int | str]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for name, _ in columns:
        table.add_column(Text(name), justify="center")
    for row, gpu in table_columns(t)[: len(t.gpus)]:
        kinds = (t.path(gpu, other).kind.value for _, other in columns)
        table.add_row(row, *(Text(".") if k == "SELF" else Text(k, COLOURS[k]) for k in kinds))
    return table
