# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""What is read from machines of real shapes: devices, paths, rates and the NIC of each GPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from machines import MACHINES

from mori.topology import PathKind, Topology

pytestmark = pytest.mark.timeout(20)
Machine = Callable[[str], Topology]

EXPECTED: dict[str, dict[str, object]] = {
    "mi300x_8": {
        "models": {"Instinct MI300X"},
        "numa": [0, 0, 0, 0, 1, 1, 1, 1],
        "nics": [f"rdma{i}" for i in range(8)],
        "gpu_paths": {"XGMI": 56},
        "nic_paths": {"PIX": 8, "NODE": 24 + 4, "SYS": 32 + 4},
        "nvmes": 0,
    },
    "h200_8": {
        "models": {"H200-SXM5-141GB"},
        "numa": [0, 0, 0, 0, 1, 1, 1, 1],
        "nics": [f"mlx5_{i}" for i in range(8)],
        "gpu_paths": {"NVL": 56},
        "nic_paths": {"PIX": 8, "NODE": 24 + 8, "SYS": 32 + 8},
        "nvmes": 2,
    },
    "two_sockets_one_nic": {
        "models": {"NVIDIA 26b9"},
        "numa": [0, 1],
        "nics": ["mlx5_0", "mlx5_0"],
        "gpu_paths": {"SYS": 2},
        "nic_paths": {"SYS": 1, "PHB": 1},
        "nvmes": 0,
    },
    "laptop": {
        "models": {"AMD 15bf"},
        "numa": [0],
        "nics": [""],
        "gpu_paths": {},
        "nic_paths": {},
        "nvmes": 1,
    },
    "rdna_2": {
        "models": {"Radeon RX 7900"},
        "numa": [0, 0],
        "nics": ["", ""],
        "gpu_paths": {"PHB": 2},
        "nic_paths": {},
        "nvmes": 0,
    },
    "virtual_flat": {
        "models": {"H100-SXM5-80GB"},
        "numa": [-1] * 4,
        "nics": [f"mlx5_{i}" for i in range(4)],
        "gpu_paths": {"PHB": 12},
        "nic_paths": {"PHB": 16},
        "nvmes": 0,
    },
    "container": {
        "models": set(),
        "numa": [],
        "nics": [],
        "gpu_paths": {},
        "nic_paths": {},
        "nvmes": 0,
    },
}


@pytest.mark.parametrize("name", MACHINES)
def test_machine(name: str, machine: Machine) -> None:
    topology = machine(name)
    gpus = range(len(topology.gpus))
    seen = {
        "models": {gpu.model for gpu in topology.gpus},
        "numa": [gpu.numa_node for gpu in topology.gpus],
        "nics": list(topology.assign_nics()),
        "gpu_paths": Counter(topology.path(a, b).kind.value for a in gpus for b in gpus if a != b),
        "nic_paths": Counter(topology.path(g, n.name).kind.value for g in gpus for n in topology.nics),
        "nvmes": len(topology.nvmes),
    }
    assert seen == EXPECTED[name]


@pytest.mark.parametrize("name", ["mi300x_8", "h200_8"])
def test_complete_machine_has_nothing_to_remark(name: str, machine: Machine) -> None:
    assert machine(name).notes == ()


@pytest.mark.parametrize(
    ("name", "gbytes_per_s", "links"),
    [
        ("mi300x_8", 64.0, 1),  # as KFD says
        ("h200_8", 450.0, 18),  # 18 links of the model's 25 GB/s
        ("rdna_2", 15.75, 0),  # PCIe 4.0, x8 at the card's first link although its last one says x16
        ("two_sockets_one_nic", 31.5, 0),
    ],
)
def test_rate_between_two_gpus(name: str, gbytes_per_s: float, links: int, machine: Machine) -> None:
    path = machine(name).path(0, 1)
    assert path.gbytes_per_s == pytest.approx(gbytes_per_s, rel=0.01)
    assert path.links == links


def test_idle_speed_does_not_lower_the_estimate(machine: Machine) -> None:
    topology = machine("mi300x_8")
    device = next(d for d in topology.pci if d.address == topology.gpus[0].pci)
    assert (device.speed_gt_s, device.max_speed_gt_s, device.width) == (2.5, 32.0, 16)
    assert topology.path(0, "rdma0").gbytes_per_s == pytest.approx(63.0, rel=0.01)


def test_only_gpus_of_the_two_vendors_count(machine: Machine) -> None:
    """Neither the board's VGA chip (ASPEED), nor NVSwitch, nor the sound function of a card."""
    assert len(machine("mi300x_8").gpus) == 8
    assert len(machine("h200_8").gpus) == 8
    assert len(machine("rdna_2").gpus) == 2


def test_devices_are_ordered_by_address(machine: Machine) -> None:
    topology = machine("h200_8")
    assert list(topology.gpus) == sorted(topology.gpus, key=lambda gpu: gpu.pci)
    assert list(topology.nics) == sorted(topology.nics, key=lambda nic: nic.pci)
    assert list(topology.pci) == sorted(topology.pci, key=lambda device: device.address)


def test_details(machine: Machine) -> None:
    topology = machine("h200_8")
    first, second = topology.numa_nodes
    assert (first.socket, second.socket, first.distances) == (0, 1, (10, 32))
    assert first.memory_bytes == 512 << 30
    assert first.cpus == {*range(48), *range(96, 144)}
    gpu = next(d for d in topology.pci if d.address == "0000:18:00.0")
    assert gpu.path == ("pci0000:15", "0000:15:01.0", "0000:16:00.0", "0000:17:01.0")
    assert gpu.driver == "nvidia"
    assert topology.nics[0].ports[0].link_layer == "InfiniBand"
    assert topology.nics[0].gbit_per_s == 400
    assert topology.host == "3f0c8f4e-0000-4000-8000-0123456789ab"
    assert topology.path(0, 1).kind is PathKind.NVL
    assert topology.links[0].a == "0000:18:00.0"


@pytest.mark.parametrize("spelling", ["0000:2a:00.0", "00000000:2A:00.0", "2a:00.0", "0:2A:0.0"])
def test_gpu_index_of_a_drivers_bus_id(spelling: str, machine: Machine) -> None:
    assert machine("h200_8").gpu_index(spelling) == 1
