# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Kinds and rates of PCIe paths where shapes get odd, and paths between ranks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
from machines import BRIDGE, BROADCOM, MELLANOX, NVIDIA, Tree, described
from mori.errors import ConfigError

from mori.topology import PathKind, RankPlace, Topology

pytestmark = pytest.mark.timeout(20)
Write = Callable[[Tree], Topology]
SWITCH = "pci0000:10/0000:10:01.0/0000:11:00.0"
GPU = (NVIDIA, 0x2330, 0x030200)


def kind_of(write: Write, a: str, b: str, prepare: Callable[[Tree], object] = lambda tree: None) -> str:
    tree = Tree()
    tree.numa(0, "0-3", 0, "10 20")
    tree.numa(1, "4-7", 1, "20 10")
    prepare(tree)
    first = tree.pci(a, *GPU)
    second = tree.nic("nic", b)
    topology = write(tree)
    path = topology.path(first, second)
    assert path == topology.path(second, first)
    return str(path.kind)


@pytest.mark.parametrize(
    ("a", "b", "kind"),
    [
        (f"{SWITCH}/0000:12:00.0/0000:13:00.0", f"{SWITCH}/0000:12:01.0/0000:14:00.0", "PIX"),
        (
            f"{SWITCH}/0000:12:00.0/0000:13:00.0",
            f"{SWITCH}/0000:12:01.0/0000:14:00.0/0000:15:00.0/0000:16:00.0",
            "PXB",
        ),
        ("pci0000:10/0000:10:01.0/0000:11:00.0", "pci0000:10/0000:10:01.0/0000:11:00.1", "PIX"),
        ("pci0000:10/0000:10:01.0/0000:11:00.0", "pci0000:10/0000:10:02.0/0000:12:00.0", "PHB"),
        ("pci0000:10/0000:10:01.0/0000:11:00.0", "pci0000:20/0000:20:01.0/0000:21:00.0", "NODE"),
        # two host bridges that are devices of a third one (VMD), then one of them
        (
            "pci0000:10/0000:10:01.0/pci10000:00/10000:00:01.0",
            "pci0000:10/0000:10:02.0/pci10001:00/10001:00:01.0",
            "PHB",
        ),
        (
            "pci0000:10/0000:10:01.0/pci10000:00/10000:00:01.0",
            "pci0000:10/0000:10:01.0/pci10000:00/10000:00:02.0",
            "PHB",
        ),
    ],
    ids=["switch", "two_switches", "one_slot", "bridge", "node", "two_vmds", "one_vmd"],
)
def test_kind(a: str, b: str, kind: str, write: Write) -> None:
    assert kind_of(write, a, b) == kind


def test_switch_on_the_nics_own_card_is_not_counted(write: Write) -> None:
    card = f"{SWITCH}/0000:12:01.0/0000:14:00.0"

    def prepare(tree: Tree) -> None:
        tree.pci(f"{SWITCH}/0000:12:01.0", BROADCOM, 0xC030, BRIDGE)
        tree.pci(card, MELLANOX, 0x1979, BRIDGE)
        tree.pci(f"{card}/0000:15:00.0", MELLANOX, 0x197B, BRIDGE)

    a, b = f"{SWITCH}/0000:12:00.0/0000:13:00.0", f"{card}/0000:15:00.0/0000:16:00.0"
    assert kind_of(write, a, b, prepare) == "PIX"


@pytest.mark.parametrize(
    ("gt_s", "width", "gbytes_per_s"),
    [(2.5, 1, 0.25), (5.0, 4, 2.0), (8.0, 16, 15.75), (16.0, 16, 31.5), (32.0, 16, 63.0), (64.0, 16, 121.0)],
)
def test_rate_of_a_link(gt_s: float, width: int, gbytes_per_s: float, write: Write) -> None:
    tree = Tree()
    tree.numa(0, "0-3", 0, "10")
    for port in ("01", "02"):
        tree.pci(f"pci0000:10/0000:10:{port}.0", BROADCOM, 1, BRIDGE, gt_s=gt_s)
        tree.pci(f"pci0000:10/0000:10:{port}.0/0000:{port}:00.0", *GPU, gt_s=64.0, width=width)
    assert write(tree).path(0, 1).gbytes_per_s == pytest.approx(gbytes_per_s, rel=0.001)


@pytest.mark.parametrize("device", ["0000:99:00.0", "mlx5_77", ""])
def test_unknown_device(device: str, write: Write) -> None:
    with pytest.raises(ConfigError, match=r"0000:01:00.0, 0000:81:00.0, 0000:82:00.0 \(mlx5_0\)"):
        write(described("two_sockets_one_nic")).path(0, device)


def test_ranks_of_one_machine(write: Write) -> None:
    topology = write(described("h200_8"))
    a, b = topology.place(0), topology.place(5)
    assert (a.nic, a.nic_gbytes_per_s, b.numa_node) == ("mlx5_0", 50.0, 1)
    assert topology.path_between_ranks(a, b) == topology.path(0, 5)
    assert topology.path_between_ranks(a, a).kind is PathKind.SELF


def test_ranks_of_two_machines(write: Write) -> None:
    topology = write(described("h200_8"))
    a = topology.place(0)
    b = RankPlace("another boot id", "0000:18:00.0", 0, "mlx5_0", 25.0)
    path = topology.path_between_ranks(a, b)
    assert (path.kind, path.gbytes_per_s) == (PathKind.NET, 25.0)


def test_hidden_host_counts_as_another_one(write: Write) -> None:
    tree = described("h200_8")
    del tree.files["proc/sys/kernel/random/boot_id"]
    topology = write(tree)
    assert topology.path_between_ranks(topology.place(0), topology.place(1)).kind is PathKind.NET


@pytest.mark.parametrize(
    ("a", "b", "kind"),
    [(0, 0, "NODE"), (0, 1, "SYS"), (-1, -1, "SYS")],
    ids=["one_node", "two_nodes", "unknown"],
)
def test_cpu_ranks(a: int, b: int, kind: str, write: Write) -> None:
    topology = write(described("h200_8"))
    places = [topology.place(numa_node=node) for node in (a, b)]
    assert str(topology.path_between_ranks(*places).kind) == kind


def test_cpu_rank_and_gpu_rank(write: Write) -> None:
    topology = write(described("h200_8"))
    assert topology.path_between_ranks(topology.place(0), topology.place(numa_node=0)).kind is PathKind.PHB
    assert topology.path_between_ranks(topology.place(0), topology.place(numa_node=1)).kind is PathKind.SYS
    assert topology.place(numa_node=1).nic == "mlx5_4"


def test_peer_whose_gpu_this_container_does_not_see(write: Write) -> None:
    topology = write(described("h200_8"))
    here = topology.place(0)
    near = dataclasses.replace(here, gpu="0000:77:00.0")
    far = dataclasses.replace(near, numa_node=1)
    assert topology.path_between_ranks(here, near).kind is PathKind.NODE
    assert topology.path_between_ranks(here, far).kind is PathKind.SYS
