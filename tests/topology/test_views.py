# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""What people and other programs get to see: tree, picture, JSON; and that a topology is a plain value."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import pytest
from machines import MACHINES, NVIDIA, Tree, described
from mori.errors import ConfigError
from mori.topology import GpuLink, Topology, print_topology
from rich.console import Console

pytestmark = pytest.mark.timeout(20)
Machine = Callable[[str], Topology]


def text_of(topology: Topology, width: int = 80) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(topology.tree())
    return out.getvalue()


@pytest.mark.parametrize("name", MACHINES)
def test_nothing_is_left_out(name: str, machine: Machine) -> None:
    topology = machine(name)
    tree, svg = text_of(topology, 200), "".join(ElementTree.fromstring(topology.svg()).itertext())
    for index, gpu in enumerate(topology.gpus):
        assert f"GPU {index}" in tree
        assert f"GPU {index}:" in svg
        assert gpu.pci in tree  # also 0000:ab:00.0, which rich would make an emoji
        assert gpu.model in svg
    for nic in topology.nics:
        assert nic.name in tree
        assert nic.name in svg
    for note in topology.notes:
        assert note in tree
        assert note in svg
    for nvme in topology.nvmes:
        assert nvme.name in tree
        assert nvme.name in svg


def test_tree_fits_a_terminal(machine: Machine) -> None:
    text = text_of(machine("h200_8"), 80)
    assert "GPU7  NVL   NVL   NVL   NVL   NVL   NVL   NVL    ." in text
    assert "NVL 450 GB/s, 18 links: every pair of GPUs" in text


def test_picture_of_some_pairs(write: Callable[[Tree], Topology]) -> None:
    """Links between two of three GPUs are drawn one by one, inside the picture."""
    tree = Tree()
    tree.numa(0, "0-3", 0, "10")
    gpus = [tree.pci(f"pci0000:{b}0/0000:{b}0:01.0/0000:{b}1:00.0", NVIDIA, 1, 0x030200) for b in "123"]
    tree.gpu_links = [GpuLink(a, b, links=4, gbytes_per_s=100) for a, b in list(combinations(gpus, 2))[:2]]
    picture = ElementTree.fromstring(write(tree).svg())
    assert len(picture.findall("{*}path")) == 2
    assert "NVL 100 GB/s, 4 links: 2 of 3 pairs of GPUs" in "".join(picture.itertext())


@pytest.mark.parametrize("name", MACHINES)
def test_everything_is_inside_the_picture(name: str, machine: Machine) -> None:
    picture = ElementTree.fromstring(machine(name).svg())
    width, height = float(picture.get("width", 0)), float(picture.get("height", 0))
    for box in picture.iter("{http://www.w3.org/2000/svg}rect"):
        if box.get("x"):
            x, y, w, h = (float(box.get(key, "nan")) for key in ("x", "y", "width", "height"))
            assert 0 <= x < x + w <= width
            assert 0 <= y < y + h <= height


@pytest.mark.parametrize("name", MACHINES)
def test_json_and_pickle_give_the_same_value(name: str, machine: Machine) -> None:
    topology = machine(name)
    topology.assign_nics()
    again = Topology.from_json(topology.json())
    assert again == topology
    assert again.assign_nics() == topology.assign_nics()
    assert pickle.loads(pickle.dumps(topology)) == topology
    assert hash(again) == hash(topology)


def test_json_tells_the_choice(machine: Machine) -> None:
    value = json.loads(machine("two_sockets_one_nic").json())
    assert value["nic_of_gpu"] == ["mlx5_0", "mlx5_0"]
    assert value["gpu_paths"] == [["SELF", "SYS"], ["SYS", "SELF"]]


@pytest.mark.parametrize("text", ["", "[]", '{"gpus": 3}', '{"gpus": [{"pci": 7}]}', '{"links": [{"a": "x"}]}'])
def test_other_json_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="not the JSON of a topology"):
        Topology.from_json(text)


def test_print_topology(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "root").mkdir()
    root = described("two_sockets_one_nic").write(tmp_path / "root")
    print_topology(root=root)
    assert "mlx5_0" in capsys.readouterr().out
    print_topology(json=True, root=root)
    assert Topology.from_json(capsys.readouterr().out).nics[0].name == "mlx5_0"
    print_topology(svg=tmp_path / "picture.svg", root=root)
    assert ElementTree.parse(tmp_path / "picture.svg")
    assert "mlx5_0" in capsys.readouterr().out
