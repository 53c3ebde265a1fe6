# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""This machine, whatever it is: agreement with hwloc (`lstopo`), and with NVIDIA's driver if there is one."""

from __future__ import annotations

import re
import shutil
import subprocess
from xml.etree import ElementTree

import pytest
from mori.topology import PathKind, Topology, read

pytestmark = pytest.mark.timeout(60)
GPUS = {(vendor, code) for vendor in ("10de", "1002") for code in ("0300", "0302", "0380")} | {("1002", "1200")}


@pytest.fixture(scope="module")
def here() -> Topology:
    return read()


@pytest.fixture(scope="module")
def hwloc() -> ElementTree.Element:
    program = shutil.which("lstopo-no-graphics") or shutil.which("lstopo")
    if program is None:
        pytest.skip("needs hwloc's lstopo (Debian: hwloc-nox)")
    command = [program, "--of", "xml", "--whole-io", "--disallowed"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=50, check=True)
    return ElementTree.fromstring(result.stdout)


def test_numa_nodes(here: Topology, hwloc: ElementTree.Element) -> None:
    nodes = {int(o.get("os_index", -1)) for o in hwloc.iter("object") if o.get("type") == "NUMANode"}
    if not here.numa_nodes:
        pytest.skip("sysfs of this machine hides NUMA nodes; hwloc makes one up")
    assert {node.id for node in here.numa_nodes} == nodes


def test_gpus(here: Topology, hwloc: ElementTree.Element) -> None:
    expected = set()
    for device in hwloc.iter("object"):
        kind = re.match(r"(\w{4}) \[(\w{4}):", device.get("pci_type", ""))
        if kind and (kind[2], kind[1]) in GPUS:
            expected.add(device.get("pci_busid"))
    assert {gpu.pci for gpu in here.gpus} == expected


@pytest.mark.parametrize(("osdev_type", "pattern"), [("3", ""), ("0", "nvme")], ids=["nics", "nvmes"])
def test_devices(osdev_type: str, pattern: str, here: Topology, hwloc: ElementTree.Element) -> None:
    expected = {
        device.get("pci_busid")
        for device in hwloc.iter("object")
        for child in device.findall("object")
        if child.get("osdev_type") == osdev_type and child.get("name", "").startswith(pattern)
    } - {None}
    seen = {nic.pci for nic in here.nics if nic.pci} if osdev_type == "3" else {d.pci for d in here.nvmes}
    assert seen == expected


def test_every_path_has_an_answer(here: Topology) -> None:
    for a in range(len(here.gpus)):
        for b in range(len(here.gpus)):
            assert (here.path(a, b).kind is PathKind.SELF) == (a == b)
    assert here.host


@pytest.mark.gpu
def test_agrees_with_nvidia_smi(here: Topology) -> None:
    program = shutil.which("nvidia-smi")
    if program is None:
        pytest.skip("needs nvidia-smi")
    query = [program, "--query-gpu=pci.bus_id", "--format=csv,noheader"]
    listed = subprocess.run(query, capture_output=True, text=True, timeout=50, check=True).stdout.split()
    numbers = [here.gpu_index(bus_id) for bus_id in listed]
    assert len(set(numbers)) == len(listed)
    matrix = subprocess.run([program, "topo", "-m"], capture_output=True, text=True, timeout=50).stdout
    lines = re.sub(r"\x1b\[\d*m", "", matrix).splitlines()
    rows = [line.split() for line in lines if re.match(r"GPU\d+\s", line)]
    for a, row in enumerate(rows):
        for b in range(len(rows)):
            said = "SELF" if row[1 + b] == "X" else re.sub(r"^NV\d+$", "NVL", row[1 + b])
            assert str(here.path(numbers[a], numbers[b]).kind) == said, (a, b, row)
