# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Machines of real shapes as small sysfs trees: folders below sys/devices, links below sys/bus and sys/class.

A machine is a function that describes itself to a `Tree`; `MACHINES` lists them. `Tree.write` takes a seed
that changes the order in which files are created, and so the order in which folders are listed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from random import Random

from mori.topology import GpuLink, PathKind

BRIDGE = 0x060400
BROADCOM, NVIDIA, AMD, MELLANOX, AMD_CPU, ASPEED = 0x1000, 0x10DE, 0x1002, 0x15B3, 0x1022, 0x1A03


@dataclass
class Tree:
    """What to write: paths below the root, with a file's text, or with the path that a link leads to."""

    files: dict[str, str] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)
    gpu_links: list[GpuLink] = field(default_factory=list)

    def numa(self, node: int, cpus: str, socket: int, distances: str, gib: int = 512) -> None:
        base = f"sys/devices/system/node/node{node}"
        self.files[f"{base}/cpulist"] = cpus
        self.files[f"{base}/distance"] = distances
        self.files[f"{base}/meminfo"] = f"Node {node} MemTotal:       {gib << 20} kB\nNode {node} MemFree: 1 kB"
        first = cpus.replace("-", ",").split(",")[0]
        if first:
            self.files[f"sys/devices/system/cpu/cpu{first}/topology/physical_package_id"] = str(socket)
        self.files.setdefault("sys/devices/system/node/online", "0")
        self.folders.append("sys/bus/pci/devices")

    def pci(
        self,
        where: str,
        vendor: int,
        device: int,
        code: int,
        *,
        numa: int = 0,
        gt_s: float = 32.0,
        now_gt_s: float | None = None,
        width: int = 16,
        now_width: int | None = None,
        driver: str = "",
    ) -> str:
        """`where`: "pci0000:00/0000:00:01.1/0000:01:00.0"; bridges above are written too, if missing."""
        *above, address = where.split("/")
        for depth in range(2, len(above) + 1):
            if f"sys/bus/pci/devices/{above[depth - 1]}" not in self.links:
                maker = AMD_CPU if depth == 2 else BROADCOM
                self.pci("/".join(above[:depth]), maker, 0xC030, BRIDGE, numa=numa, driver="pcieport")
        base = f"sys/devices/{where}"
        values = {
            "vendor": f"{vendor:#06x}",
            "device": f"{device:#06x}",
            "class": f"{code:#08x}",
            "numa_node": str(numa),
            "max_link_speed": f"{gt_s} GT/s PCIe" if gt_s else "Unknown",
            "current_link_speed": f"{now_gt_s or gt_s} GT/s PCIe" if gt_s else "Unknown",
            "max_link_width": str(width or 255),
            "current_link_width": str(width if now_width is None else now_width),
        }
        for name, value in values.items():
            self.files[f"{base}/{name}"] = value
        self.links[f"sys/bus/pci/devices/{address}"] = base
        if driver:
            self.folders.append(f"sys/bus/pci/drivers/{driver}")
            self.links[f"{base}/driver"] = f"sys/bus/pci/drivers/{driver}"
        return address

    def nic(
        self,
        name: str,
        where: str,
        *,
        vendor: int = MELLANOX,
        device: int = 0x1021,
        numa: int = 0,
        gbit: int = 400,
        layer: str = "InfiniBand",
        state: str = "4: ACTIVE",
        netdev: str = "",
        **pci: int,
    ) -> str:
        address = self.pci(where, vendor, device, 0x020700, numa=numa, driver="mlx5_core", **pci)
        base = f"sys/devices/{where}/infiniband/{name}"
        self.port(base, gbit, layer, state)
        self.links[f"{base}/device"] = f"sys/devices/{where}"
        self.links[f"sys/class/infiniband/{name}"] = base
        if netdev:
            self.folders.append(f"sys/devices/{where}/net/{netdev}")
        return address

    def port(self, base: str, gbit: int, layer: str, state: str) -> None:
        self.files[f"{base}/ports/1/state"] = state
        self.files[f"{base}/ports/1/rate"] = f"{gbit} Gb/sec (4X NDR)"
        self.files[f"{base}/ports/1/link_layer"] = layer

    def software_nic(self, name: str, netdev: str) -> None:
        base = f"sys/devices/virtual/infiniband/{name}"
        self.port(base, 10, "Ethernet", "4: ACTIVE")
        self.files[f"{base}/parent"] = netdev
        self.links[f"sys/class/infiniband/{name}"] = base

    def nvme(self, name: str, where: str, numa: int = 0) -> None:
        self.pci(where, 0x144D, 0xA808, 0x010802, numa=numa, width=4, gt_s=16.0, driver="nvme")
        self.links[f"sys/devices/{where}/nvme/{name}/device"] = f"sys/devices/{where}"
        self.links[f"sys/class/nvme/{name}"] = f"sys/devices/{where}/nvme/{name}"

    def kfd_node(self, node: int, address: str = "", *, partition: int = 0) -> None:
        """A GPU, or a CPU without an address."""
        base = f"sys/class/kfd/kfd/topology/nodes/{node}"
        location = 0
        if address:
            domain, bus, rest = address.split(":")
            slot, function = rest.split(".")
            location = int(bus, 16) << 8 | int(slot, 16) << 3 | int(function) | partition << 28
        self.files[f"{base}/gpu_id"] = str(1000 + node if address else 0)
        self.files[f"{base}/properties"] = (
            f"cpu_cores_count {0 if address else 96}\nsimd_count {1216 if address else 0}\n"
            f"location_id {location}\ndomain {int(domain, 16) if address else 0}\n"
            "hive_id 18446744073709551615"
        )

    def kfd_link(self, a: int, b: int, *, kind: int, weight: int, mb_s: int, links: int = 1) -> None:
        base = f"sys/class/kfd/kfd/topology/nodes/{a}/io_links"
        index = sum(name.startswith(base) for name in self.files)
        self.files[f"{base}/{index}/properties"] = (
            f"type {kind}\nversion_major 0\nversion_minor 0\nnode_from {a}\nnode_to {b}\nweight {weight}\n"
            f"min_bandwidth {mb_s}\nmax_bandwidth {mb_s * links}\nflags 1"
        )

    def write(self, root: Path, seed: int = 0) -> Path:
        """Writes all, in the order that `seed` makes."""
        random = Random(seed)
        for folder in self.folders:
            (root / folder).mkdir(parents=True, exist_ok=True)
        for name, text in random.sample(sorted(self.files.items()), len(self.files)):
            file = root / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text + "\n")
        for name, target in random.sample(sorted(self.links.items()), len(self.links)):
            link = root / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.relpath(root / target, link.parent))
        return root


def _two_sockets(tree: Tree) -> None:
    tree.numa(0, "0-47,96-143", 0, "10 32")
    tree.numa(1, "48-95,144-191", 1, "32 10")
    tree.files["proc/sys/kernel/random/boot_id"] = "3f0c8f4e-0000-4000-8000-0123456789ab"


def mi300x_8(tree: Tree, gpus: int = 8) -> None:
    """Eight MI300X, each with a NIC on its PCIe switch; xGMI between all pairs; a slow NIC for management."""
    _two_sockets(tree)
    addresses = []
    for index, bus in enumerate((0x05, 0x26, 0x46, 0x65, 0x85, 0xA6, 0xC6, 0xE5)[:gpus]):
        numa, domain = index // 4, f"pci0000:{bus & 0xF0:02x}"
        root = f"{domain}/0000:{bus & 0xF0:02x}:01.1/0000:{bus - 3:02x}:00.0"
        gpu = f"{root}/0000:{bus - 2:02x}:00.0/0000:{bus:02x}:00.0"
        addresses.append(tree.pci(gpu, AMD, 0x74A1, 0x120000, numa=numa, now_gt_s=2.5, driver="amdgpu"))
        port = f"{root}/0000:{bus - 2:02x}:01.0/0000:{bus + 1:02x}:00.0"
        tree.nic(f"rdma{index}", port, numa=numa, layer="Ethernet", netdev=f"eth{index}")
    tree.nic("bnxt_re0", "pci0000:f0/0000:f0:03.1/0000:f1:00.0", vendor=0x14E4, numa=1, gbit=25, layer="Ethernet")
    tree.pci("pci0000:00/0000:00:05.0/0000:10:00.0", ASPEED, 0x2000, 0x030000, gt_s=0, width=0)
    for cpu in (0, 1):
        tree.kfd_node(cpu)
    for index, address in enumerate(addresses):
        tree.kfd_node(2 + index, address)
        tree.kfd_link(2 + index, index // 4, kind=2, weight=20, mb_s=64000)
        for other in range(gpus):
            if other != index:
                tree.kfd_link(2 + index, 2 + other, kind=11, weight=15, mb_s=64000)


def h200_8(tree: Tree) -> None:
    """Eight H200, each with a ConnectX-7 on its PCIe switch; NVSwitch; two Ethernet NICs for storage."""
    _two_sockets(tree)
    addresses = []
    for index, bus in enumerate((0x18, 0x2A, 0x3A, 0x5D, 0x9A, 0xAB, 0xBA, 0xDB)):
        numa = index // 4
        root = f"pci0000:{bus - 3:02x}/0000:{bus - 3:02x}:01.0/0000:{bus - 2:02x}:00.0"
        gpu = f"{root}/0000:{bus - 1:02x}:01.0/0000:{bus:02x}:00.0"
        addresses.append(tree.pci(gpu, NVIDIA, 0x2335, 0x030200, numa=numa, now_gt_s=2.5, driver="nvidia"))
        tree.nic(f"mlx5_{index}", f"{root}/0000:{bus - 1:02x}:00.0/0000:{bus + 1:02x}:00.0", numa=numa)
    for index, bus in enumerate((0x71, 0xF1)):
        where = f"pci0000:{bus - 1:02x}/0000:{bus - 1:02x}:01.0/0000:{bus:02x}:00.0"
        tree.nic(f"mlx5_{8 + index}", where, numa=index, gbit=200, layer="Ethernet", netdev=f"eth{index}")
        tree.nvme(
            f"nvme{index}",
            where.replace(":01.0", ":02.0").replace(f"{bus:02x}:00.0", f"{bus:02x}:10.0"),
            index,
        )
    for bus in (0x07, 0x08, 0x09, 0x0A):  # NVSwitch is a bridge that is no PCI bridge
        tree.pci(f"pci0000:00/0000:00:01.0/0000:{bus:02x}:00.0", NVIDIA, 0x22A3, 0x068000)
    tree.gpu_links = [GpuLink(a, b, PathKind.NVL, links=18) for a, b in combinations(addresses, 2)]


def two_sockets_one_nic(tree: Tree) -> None:
    """Two PCIe cards without NVLink, one a socket, and one NIC that both must use."""
    _two_sockets(tree)
    tree.pci("pci0000:00/0000:00:01.1/0000:01:00.0", NVIDIA, 0x26B9, 0x030200, numa=0, gt_s=16.0)
    tree.pci("pci0000:80/0000:80:01.1/0000:81:00.0", NVIDIA, 0x26B9, 0x030200, numa=1, gt_s=16.0)
    tree.nic("mlx5_0", "pci0000:80/0000:80:03.1/0000:82:00.0", numa=1, gbit=100, gt_s=16.0, width=8)


def laptop(tree: Tree) -> None:
    """An integrated GPU, an NVMe drive, and firmware that says nothing about NUMA."""
    tree.numa(0, "0-15", 0, "10", gib=32)
    tree.pci("pci0000:00/0000:00:08.1/0000:c3:00.0", AMD, 0x15BF, 0x030000, numa=-1, gt_s=16.0, driver="amdgpu")
    tree.nvme("nvme0", "pci0000:00/0000:00:02.4/0000:02:00.0", numa=-1)


def rdna_2(tree: Tree) -> None:
    """Two Radeon cards: class VGA, each behind a switch of its own whose last link claims PCIe 4.0 x16."""
    tree.numa(0, "0-31", 0, "10", gib=128)
    for root, bus in (("01.1", 0x01), ("01.2", 0x04)):
        up = f"pci0000:00/0000:00:{root}/0000:{bus:02x}:00.0"
        tree.pci(up, AMD, 0x1478, BRIDGE, gt_s=16.0, now_width=8)
        tree.pci(f"{up}/0000:{bus + 1:02x}:00.0", AMD, 0x1479, BRIDGE, gt_s=16.0)
        card = f"{up}/0000:{bus + 1:02x}:00.0/0000:{bus + 2:02x}:00.0"
        tree.pci(card, AMD, 0x744C, 0x030000, gt_s=16.0, driver="amdgpu")
        tree.pci(card[:-1] + "1", AMD, 0xAB30, 0x040300, gt_s=16.0)  # its sound output


def virtual_flat(tree: Tree) -> None:
    """A virtual machine: four GPUs and four virtual functions of NICs on one bus, NUMA node unknown."""
    tree.numa(0, "0-31", 0, "10 20")
    tree.numa(1, "32-63", 0, "20 10")
    tree.files["proc/cpuinfo"] = "processor : 0\nflags : fpu vme hypervisor lahf_lm"
    for slot in range(4):
        tree.pci(f"pci0000:00/0000:00:{slot + 4:02x}.0", NVIDIA, 0x2330, 0x030200, numa=-1, gt_s=0, width=0)
        tree.nic(f"mlx5_{slot}", f"pci0000:00/0000:00:{slot + 8:02x}.0", device=0x101E, numa=-1, gt_s=0, width=0)


def container(tree: Tree) -> None:
    """A container whose sysfs has nothing but an empty folder."""
    tree.folders.append("sys/bus/pci/devices")


MACHINES: dict[str, Callable[[Tree], None]] = {
    machine.__name__: machine
    for machine in (mi300x_8, h200_8, two_sockets_one_nic, laptop, rdna_2, virtual_flat, container)
}


def described(name: str) -> Tree:
    tree = Tree()
    MACHINES[name](tree)
    return tree
