# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The choice of NICs: rules one by one, then properties over random machines.

Reference for the properties: what is nearest by `Topology.path`, computed here from scratch.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machines import NVIDIA, Tree, described
from mori.errors import ConfigError

from mori.topology import Gpu, Nic, NicPort, NumaNode, PciDevice, Topology, read

pytestmark = pytest.mark.timeout(60)
Write = Callable[[Tree], Topology]


def one_gpu() -> Tree:
    tree = Tree()
    tree.numa(0, "0-3", 0, "10")
    tree.pci("pci0000:10/0000:10:01.0/0000:11:00.0", NVIDIA, 0x2330, 0x030200)
    return tree


def place(bus: int) -> str:
    return f"pci0000:{bus:02x}/0000:{bus:02x}:01.0/0000:{bus + 1:02x}:00.0"


def test_no_nic(write: Write) -> None:
    topology = write(one_gpu())
    assert topology.assign_nics() == ("",)
    assert topology.pick_nics(0) == ()
    assert topology.place(0).nic == ""


def test_down_port_is_avoided_unless_all_are_down(write: Write) -> None:
    tree = one_gpu()
    tree.nic("near", "pci0000:10/0000:10:02.0/0000:12:00.0", state="1: DOWN")
    assert write(tree).pick_nics(0) == ("near",)
    tree.nic("far", place(0x20))
    assert write(tree).pick_nics(0) == ("far",)


def test_slow_port_is_avoided(write: Write) -> None:
    tree = one_gpu()
    tree.nic("slow", "pci0000:10/0000:10:02.0/0000:12:00.0", gbit=100)
    tree.nic("half", place(0x20), gbit=200)
    tree.nic("fast", place(0x30), gbit=400)
    assert write(tree).pick_nics(0) == ("half", "fast")


def test_one_link_layer(write: Write) -> None:
    """Ranks on InfiniBand and on Ethernet could not talk to each other."""
    tree = one_gpu()
    tree.nic("roce", "pci0000:10/0000:10:02.0/0000:12:00.0", layer="Ethernet")
    tree.nic("ib0", place(0x20))
    tree.nic("ib1", place(0x30))
    assert write(tree).pick_nics(0) == ("ib0", "ib1")


def test_virtual_function_counts_only_without_its_physical_one(write: Write) -> None:
    tree = one_gpu()
    tree.nic("vf", "pci0000:10/0000:10:02.0/0000:12:00.1")
    assert write(tree).pick_nics(0) == ("vf",)
    physical = "pci0000:10/0000:10:02.0/0000:12:00.0"
    tree.nic("pf", physical)
    tree.links[f"sys/devices/{physical[:-1]}1/physfn"] = f"sys/devices/{physical}"
    assert write(tree).pick_nics(0) == ("pf",)


def test_software_nic_counts_only_alone(write: Write) -> None:
    tree = one_gpu()
    tree.software_nic("rxe0", "eth0")
    topology = write(tree)
    assert topology.assign_nics() == ("rxe0",)
    assert topology.nics[0].ports[0].netdev == "eth0"
    tree.nic("mlx5_0", place(0x20), state="1: DOWN")
    assert write(tree).assign_nics() == ("mlx5_0",)


def test_allow_replaces_the_rules(write: Write) -> None:
    tree = one_gpu()
    tree.nic("slow", place(0x20), gbit=25, layer="Ethernet", state="1: DOWN")
    tree.nic("fast", place(0x30))
    topology = write(tree)
    assert topology.assign_nics(allow=["slow"]) == ("slow",)
    with pytest.raises(ConfigError, match="no NIC 'mlx5_9'; this machine has: slow, fast"):
        topology.assign_nics(allow=["mlx5_9"])
    with pytest.raises(ConfigError, match="must be a list"):
        topology.assign_nics(allow="slow")


@pytest.mark.parametrize("gpu", [-1, 1, 8, True, "0"])
def test_unknown_gpu(gpu: int, write: Write) -> None:
    with pytest.raises(ConfigError, match=f"gpu={gpu!r}: this topology has 1 GPUs"):
        write(one_gpu()).pick_nics(gpu)


def test_flexible_gpu_leaves_the_only_nic_of_a_switch(write: Write) -> None:
    """GPU 0 may use either NIC; GPU 1 has one on its switch. Taken in order, both would end on that one."""
    tree = Tree()
    tree.numa(0, "0-3", 0, "10")
    switch = "pci0000:20/0000:20:01.0/0000:21:00.0"
    tree.pci("pci0000:10/0000:10:01.0/0000:11:00.0", NVIDIA, 0x2330, 0x030200)
    tree.pci(f"{switch}/0000:22:01.0/0000:24:00.0", NVIDIA, 0x2330, 0x030200)
    tree.nic("on_switch", f"{switch}/0000:22:00.0/0000:23:00.0")
    tree.nic("other", place(0x30))
    assert write(tree).assign_nics() == ("other", "on_switch")


def test_second_card_before_second_port_of_the_first(write: Write) -> None:
    """Functions of one card share its PCIe link."""
    tree = one_gpu()
    tree.pci("pci0000:10/0000:10:03.0/0000:13:00.0", NVIDIA, 0x2330, 0x030200)
    for bus, names in ((0x20, "ab"), (0x30, "cd")):
        for function, name in enumerate(names):
            tree.nic(name, f"{place(bus)[:-1]}{function}")
    assert write(tree).assign_nics() == ("a", "c")


def test_nics_for_host_memory(write: Write) -> None:
    topology = write(described("h200_8"))
    assert topology.pick_nics(numa_node=1)[:4] == ("mlx5_4", "mlx5_5", "mlx5_6", "mlx5_7")
    assert topology.pick_nics(numa_node=0)[:4] == ("mlx5_0", "mlx5_1", "mlx5_2", "mlx5_3")
    assert len(topology.pick_nics()) == 8


def test_farther_numa_nodes_come_later(write: Write) -> None:
    """Four nodes a machine: the neighbour on the same socket (12) is nearer than the other socket (32)."""
    tree = Tree()
    for node, distances in enumerate(("10 12 32 32", "12 10 32 32", "32 32 10 12", "32 32 12 10")):
        tree.numa(node, f"{node}", node // 2, distances)
        tree.nic(f"nic{node}", place(0x20 + 0x10 * node), numa=node)
    tree.pci("pci0000:90/0000:90:01.0/0000:91:00.0", NVIDIA, 0x2330, 0x030200, numa=3)
    assert write(tree).pick_nics(0) == ("nic3", "nic2", "nic0", "nic1")


@pytest.mark.parametrize("seed", range(1, 6))
def test_order_of_directories_is_irrelevant(seed: int, tmp_path: Path) -> None:
    trees = [described("two_sockets_one_nic"), described("virtual_flat")]
    for index, tree in enumerate(trees):
        (tmp_path / f"a{index}").mkdir()
        (tmp_path / f"b{index}").mkdir()
        first, second = (
            read(tree.write(tmp_path / f"a{index}")),
            read(tree.write(tmp_path / f"b{index}", seed)),
        )
        assert first == second
        assert first.assign_nics() == second.assign_nics()


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    """Random machines: GPUs and NICs below switches, below host bridges, on some NUMA nodes or unknown."""
    node_count = draw(st.integers(1, 4))
    nodes = tuple(
        NumaNode(id=i, socket=i, distances=tuple(10 if i == j else 32 for j in range(node_count)))
        for i in range(node_count)
    )
    devices: dict[str, PciDevice] = {}
    gpus, nics = [], []
    for number in range(draw(st.integers(1, 14))):
        bridge = draw(st.integers(0, 3))
        numa = draw(st.sampled_from([bridge % node_count, -1])) if bridge == 3 else bridge % node_count
        root, path = f"0000:{bridge:x}0:01.0", [f"pci0000:{bridge:x}0"]
        if draw(st.booleans()):
            path.append(root)
            devices[root] = PciDevice(root, class_code=0x060400, path=tuple(path[:-1]), numa_node=numa)
            if draw(st.booleans()):
                for port in (f"0000:{bridge:x}1:00.0", f"0000:{bridge:x}2:{number % 3:02x}.0"):
                    devices[port] = PciDevice(port, class_code=0x060400, path=tuple(path), numa_node=numa)
                    path.append(port)
        address = f"0000:{bridge:x}{draw(st.integers(3, 9))}:{number:02x}.0"
        devices[address] = PciDevice(address, vendor=1 + number, path=tuple(path), numa_node=numa)
        if draw(st.booleans()):
            gpus.append(Gpu(address, "nvidia", "model", numa))
        else:
            rate, layer = (
                draw(st.sampled_from([400.0, 400.0, 200.0, 100.0, 0.0])),
                draw(st.sampled_from(["InfiniBand", "Ethernet"])),
            )
            port_ = NicPort(active=draw(st.integers(0, 4)) > 0, gbit_per_s=rate, link_layer=layer)
            nics.append(Nic(f"nic{number}", address, numa, (port_,)))
    return Topology(
        numa_nodes=nodes,
        pci=tuple(sorted(devices.values(), key=lambda d: d.address)),
        gpus=tuple(sorted(gpus, key=lambda g: g.pci)),
        nics=tuple(sorted(nics, key=lambda n: n.pci)),
    )


def nearness(topology: Topology, gpu: int, nic: Nic) -> tuple[int, bool]:
    kind = topology.path(gpu, nic.name).kind
    unknown = -1 in (nic.numa_node, topology.gpus[gpu].numa_node)
    return kind.distance, kind.value == "SYS" and unknown


@settings(max_examples=300, deadline=None)
@given(topologies())
def test_assignment(topology: Topology) -> None:
    assigned = topology.assign_nics()
    assert len(assigned) == len(topology.gpus)
    if not topology.nics:
        assert set(assigned) <= {""}
        return
    nics = {nic.name: nic for nic in topology.nics}
    gpus = range(len(topology.gpus))
    usable = [nics[name] for name in topology.pick_nics(0)] if topology.gpus else []
    if any(nic.active for nic in topology.nics):
        assert all(nic.active for nic in usable)
    assert len({nic.ports[0].link_layer for nic in usable}) <= 1
    for gpu in gpus:
        picked = topology.pick_nics(gpu)
        assert set(picked) == {nic.name for nic in usable}
        distances = [nearness(topology, gpu, nics[name]) for name in picked]
        assert distances == sorted(distances)
        assert nearness(topology, gpu, nics[assigned[gpu]]) == distances[0]

    # NICs that are equal for every GPU differ by one GPU at most.
    load = Counter(assigned)
    alike: dict[tuple[tuple[int, bool], ...], list[int]] = {}
    for nic in usable:
        alike.setdefault(tuple(nearness(topology, gpu, nic) for gpu in gpus), []).append(load[nic.name])
    assert all(max(loads) - min(loads) <= 1 for loads in alike.values())


@settings(max_examples=100, deadline=None)
@given(topologies(), st.randoms(use_true_random=False))
def test_other_devices_do_not_matter(topology: Topology, random: object) -> None:
    """The order of the PCI table, NVMe drives and notes have no say."""
    shuffled = list(topology.pci)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    other = dataclasses.replace(topology, pci=tuple(shuffled), notes=("x",))
    assert other.assign_nics() == topology.assign_nics()
