# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Whatever sysfs hides, lacks or garbles: reading never raises, and says what it could not see."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from xml.etree import ElementTree

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from machines import AMD, MACHINES, NVIDIA, Tree, described, mi300x_8
from mori.errors import ConfigError
from mori.topology import GpuLink, PathKind, Topology, read

pytestmark = pytest.mark.timeout(60)
Write = Callable[[Tree], Topology]


def note_with(topology: Topology, text: str) -> str:
    found = [note for note in topology.notes if text in note]
    assert len(found) == 1, topology.notes
    return found[0]


def test_no_sysfs_at_all(tmp_path: Path) -> None:
    topology = read(tmp_path / "nowhere")
    assert (topology.gpus, topology.nics, topology.numa_nodes, topology.host) == ((), (), (), "")
    note_with(topology, "NUMA nodes are hidden")
    note_with(topology, "PCI devices are hidden")


def test_sysfs_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "sys").write_text("")
    assert "Not a directory" in note_with(read(tmp_path), "PCI devices are hidden")


def test_unreadable_kfd_node_is_a_gpu_of_another_container(write: Write) -> None:
    tree = described("mi300x_8")
    del tree.files["sys/class/kfd/kfd/topology/nodes/4/properties"]
    topology = write(tree)
    note_with(topology, "KFD node 4")
    assert topology.path(0, 1).kind is PathKind.XGMI
    assert topology.path(0, 2).kind is PathKind.NODE


def test_nic_whose_device_is_hidden(write: Write) -> None:
    tree = described("h200_8")
    tree.links["sys/class/infiniband/mlx5_3"] = "sys/devices/gone"
    topology = write(tree)
    note_with(topology, "mlx5_3 is listed but its device is hidden")
    assert "mlx5_3" not in topology.assign_nics()
    assert all(topology.assign_nics())


def test_nic_without_rdma_device(write: Write) -> None:
    tree = described("h200_8")
    del tree.links["sys/class/infiniband/mlx5_2"]
    assert "0000:3b:00.0" in note_with(write(tree), "without an RDMA device")


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    """Names and contents may hold any byte; they must not break strings or XML."""
    root = described("two_sockets_one_nic").write(tmp_path)
    device = root / "sys/devices/pci0000:80/0000:80:03.1/0000:82:00.0"
    (device / "infiniband/mlx5_0/ports/1/link_layer").write_bytes(b"Infini\xffBand\x00")
    os.mkdir(os.fsencode(device) + b"/net")
    os.mkdir(os.fsencode(device) + b"/net/eth\xfe")
    topology = read(root)
    assert topology.nics[0].ports[0].link_layer == "Infini?Band?"
    assert topology.nics[0].ports[0].netdev == "eth?"
    ElementTree.fromstring(topology.svg())


def test_down_port_and_narrow_link_are_noted(write: Write) -> None:
    tree = described("h200_8")
    where = "sys/devices/pci0000:15/0000:15:01.0/0000:16:00.0"
    tree.files[f"{where}/0000:17:01.0/0000:18:00.0/current_link_width"] = "8"
    tree.files[f"{where}/0000:17:00.0/0000:19:00.0/current_link_speed"] = "16.0 GT/s PCIe"
    tree.files[f"{where}/0000:17:00.0/0000:19:00.0/infiniband/mlx5_0/ports/1/state"] = "1: DOWN"
    topology = write(tree)
    assert "x8 of x16" in note_with(topology, "GPU 0000:18:00.0")
    note_with(topology, "NIC mlx5_0: PCIe link runs at 16 of 32 GT/s")
    note_with(topology, "NIC mlx5_0: no port is active")
    assert topology.path(0, "mlx5_0").gbytes_per_s == pytest.approx(31.5, rel=0.01)


def test_virtual_machine_says_so(write: Write) -> None:
    topology = write(described("virtual_flat"))
    note_with(topology, "virtual machine")
    assert "mlx5_3" in note_with(topology, "NUMA node unknown")


@pytest.mark.parametrize("source", ["bridge", "local_cpulist", "only_node"])
def test_numa_node_minus_one_is_found_elsewhere(source: str, write: Write) -> None:
    tree = Tree()
    tree.numa(0, "0-3", 0, "10")
    if source != "only_node":
        tree.numa(1, "4-7", 1, "32 10")
        tree.files["sys/devices/system/node/node0/distance"] = "10 32"
    where = "pci0000:00/0000:00:01.0/0000:01:00.0"
    tree.pci(where, NVIDIA, 0x2330, 0x030200, numa=-1)
    tree.files["sys/devices/pci0000:00/0000:00:01.0/numa_node"] = "1" if source == "bridge" else "-1"
    if source == "local_cpulist":
        tree.files[f"sys/devices/{where}/local_cpulist"] = "4-7"
    assert write(tree).gpus[0].numa_node == (0 if source == "only_node" else 1)


def test_local_cpulist_of_all_cpus_tells_nothing(write: Write) -> None:
    tree = described("virtual_flat")
    tree.files["sys/devices/pci0000:00/0000:00:04.0/local_cpulist"] = "0-63"
    assert write(tree).gpus[0].numa_node == -1


def test_partitions_of_one_gpu(write: Write) -> None:
    tree = Tree()
    tree.numa(0, "0-3", 0, "10")
    places = [f"pci0000:{bus}/0000:{bus}:01.1/0000:{bus}:10.0" for bus in ("05", "26")]
    addresses = [tree.pci(place, AMD, 0x74A1, 0x120000) for place in places]
    for node in range(8):
        tree.kfd_node(1 + node, addresses[node // 4], partition=node % 4)
    for a in range(8):
        for b in range(8):
            if a != b:
                tree.kfd_link(1 + a, 1 + b, kind=11, weight=15 if a // 4 != b // 4 else 13, mb_s=64000)
    topology = write(tree)
    assert [gpu.partitions for gpu in topology.gpus] == [4, 4]
    assert len(topology.links) == 1
    assert topology.path(0, 1).gbytes_per_s == 64


@pytest.mark.parametrize(
    ("link", "words"),
    [
        (GpuLink("0000:18:00.0", "0000:2a:00.0", PathKind.PIX), "kind is PIX"),
        (GpuLink("0000:18:00.0", "0000:18:00.0"), "two GPUs"),
        (GpuLink("0000:18:00.0", "GPU-1"), "GPU-1"),
        (GpuLink("0000:18:00.0", "0000:2a:00.0", gbytes_per_s=-1), "-1"),
        (GpuLink("0000:18:00.0", "0000:2a:00.0", gbytes_per_s=float("nan")), "nan"),
        (GpuLink("0000:18:00.0", "0000:2a:00.0", links=-1), "links=-1"),
        (GpuLink("0000:18:00.0", None), "b=None"),  # type: ignore[arg-type]
    ],
    ids=["kind", "itself", "no_address", "negative", "nan", "negative_links", "none"],
)
def test_wrong_gpu_link_is_refused(link: GpuLink, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        read(described("h200_8").write(tmp_path), [link])


@pytest.mark.parametrize("other", ["0000:77:00.0", "0000:19:00.0"], ids=["absent", "a_nic"])
def test_link_to_no_gpu_is_noted(other: str, tmp_path: Path) -> None:
    topology = read(described("h200_8").write(tmp_path), lambda: [GpuLink("0000:18:00.0", other)])
    note_with(topology, f"{other} is no GPU visible here")
    assert topology.links == ()


GARBAGE = [
    "",
    "\n",
    "-1",
    "9" * 20,
    "0x",
    "node",
    "Unknown",
    "\x00\x1b",
    "1-",
    "7-3",
    "0-4294967295",
    "inf",
    "nan",
]


@settings(max_examples=25, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(name=st.sampled_from(["mi300x_2", "two_sockets_one_nic", "rdna_2"]), seed=st.integers(0, 2**32))
def test_garbled_sysfs_never_raises(name: str, seed: int) -> None:
    """Deletes and overwrites a third of everything; what comes out must still answer all questions."""
    random = Random(seed)
    tree = Tree()
    if name == "mi300x_2":
        mi300x_8(tree, gpus=2)
    else:
        MACHINES[name](tree)
    for file in sorted(tree.files):
        if random.random() < 0.3:
            tree.files[file] = random.choice(GARBAGE)
        elif random.random() < 0.05:
            del tree.files[file]
    for link in sorted(tree.links):
        if random.random() < 0.1:
            tree.links[link] = random.choice(["sys/gone", link, "sys/devices", "."])
    root = Path(tempfile.mkdtemp())
    try:
        topology = read(tree.write(root, seed), tree.gpu_links)
        assert len(topology.assign_nics()) == len(topology.gpus)
        assert all(topology.assign_nics()) or not topology.nics
        for a in range(len(topology.gpus)):
            assert topology.path(a, a).kind is PathKind.SELF
        assert Topology.from_json(topology.json()) == topology
        assert topology.svg()
        assert all(len(node.cpus) < 200 for node in topology.numa_nodes)
        assert topology.tree()
    finally:
        shutil.rmtree(root)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_forbidden_folder(tmp_path: Path) -> None:
    root = described("h200_8").write(tmp_path)
    (root / "sys/bus/pci/devices").chmod(0)
    assert "ermission" in note_with(read(root), "PCI devices are hidden")
