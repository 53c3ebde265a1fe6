# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""What `mori doctor` says of NICs that kernels could post to, on machines as sysfs trees."""

from __future__ import annotations

from pathlib import Path

import pytest
from machines import NVIDIA, Tree

from mori import _doctor_nics

pytestmark = pytest.mark.timeout(60)

LIBRARIES = [
    {"family": "mlx5", "vendor": 0x15B3, "library": "libmlx5.so.none", "problem": ""},
    {"family": "bnxt_re", "vendor": 0x14E4, "library": "libbnxt_re.so.none", "problem": "no rings from it"},
    {"family": "ionic", "vendor": 0x1DD8, "library": "libionic.so.none", "problem": "no rings either"},
]
GOOD = {
    "dev/infiniband/uverbs0": "",
    "sys/class/infiniband/nic0/fw_ver": "28.39.1002",
    "sys/class/infiniband/nic0/ports/1/gids/0": "fe80:0000:0000:0000:0000:0000:0000:0001",
    "sys/class/infiniband/nic0/ports/1/gids/1": "0000:0000:0000:0000:0000:0000:0000:0000",
    "sys/class/infiniband/nic0/ports/1/gids/3": "0000:0000:0000:0000:0000:ffff:0a08:0001",
    "sys/class/infiniband/nic0/ports/1/gid_attrs/types/0": "IB/RoCE v1",
    "sys/class/infiniband/nic0/ports/1/gid_attrs/types/3": "RoCE v2",
    "sys/module/nvidia_peermem/version": "1",
    "proc/sys/kernel/osrelease": "6.1.0-30-amd64",
    "proc/driver/nvidia/params": 'ResmanDebugLevel: 4294967295\nRegistryDwords: "PeerMappingOverride=1;"',
}


def checks(root: Path, without: str = "", vendor: int = 0x15B3, state: str = "4: ACTIVE", **changed: str) -> dict:
    """{what: (found, do)} of a machine of one GPU and one NIC behind one switch."""
    tree = Tree()
    tree.numa(0, "0-3", 0, "10")
    tree.pci("pci0000:10/0000:10:01.0/0000:11:00.0/0000:12:00.0/0000:13:00.0", NVIDIA, 0x2330, 0x030200)
    where = "pci0000:10/0000:10:01.0/0000:11:00.0/0000:12:01.0/0000:14:00.0"
    tree.nic("nic0", where, vendor=vendor, layer="Ethernet", netdev="eth0", state=state)
    tree.write(root)
    for name, text in {**GOOD, **changed}.items():
        if not without or without not in name:
            file = root / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text + "\n")
    return {check["what"]: (check["found"], check["do"]) for check in _doctor_nics.examine(root, LIBRARIES)}


def test_a_machine_on_which_all_is_well(tmp_path: Path) -> None:
    found = checks(tmp_path)
    assert found == {
        "/dev/infiniband": ("uverbs0", ""),
        "nic0": ("mlx5, firmware 28.39.1002", ""),
        "nic0 port 1": ("active, RoCE v2 at GID 3 (10.8.0.1)", ""),
        "direct verbs of mlx5": ("no libmlx5.so.none", ""),  # its problem is the caller's word
        "GPU memory for NICs": ("peer memory (nvidia_peermem), dma-buf (kernel 6.1.0-30-amd64)", ""),
        "doorbells from NVIDIA GPUs": ("PeerMappingOverride is on", ""),
        "NIC of GPU 0000:13:00.0": ("nic0 (PIX)", ""),
    }


def test_no_nic(tmp_path: Path) -> None:
    tree = Tree()
    tree.software_nic("rxe0", "eth0")
    (check,) = _doctor_nics.examine(tree.write(tmp_path), LIBRARIES)
    assert check["found"] == "none of hardware (software: rxe0)" and "driver" in check["do"]


BROKEN = [
    ({"without": "uverbs0"}, "/dev/infiniband", "no uverbs files", "modprobe ib_uverbs"),
    ({"vendor": 0x8086}, "nic0", "a family that kernels cannot post to", "ConnectX"),
    ({"without": "types/3"}, "nic0 port 1", "active, 2 GIDs, none of RoCE v2", "give eth0 an IP address"),
    ({"state": "1: DOWN"}, "nic0 port 1", "down", "cable"),
    ({"vendor": 0x14E4}, "direct verbs of bnxt_re", "no libbnxt_re.so.none", "no rings from it"),
    ({"vendor": 0x14E4, "sys/class/infiniband/nic0/fw_ver": "231.0.1.0"}, "nic0", "bnxt_re, firmware 231", "235"),
    ({"vendor": 0x1DD8, "sys/class/infiniband/nic0/fw_ver": "1.117.1-a-63"}, "nic0", "ionic", "1.117.5"),
    (
        {"without": "nvidia_peermem", "proc/sys/kernel/osrelease": "5.4.0"},
        "GPU memory for NICs",
        "no way (kernel 5.4.0)",
        "modprobe nvidia_peermem",
    ),
    (
        {"proc/driver/nvidia/params": 'RegistryDwords: ""'},
        "doorbells from NVIDIA GPUs",
        "PeerMappingOverride is off",
        "NVreg_RegistryDwords",
    ),
    (
        {"proc/driver/nvidia/params": 'RegistryDwords: "PeerMappingOverride=0;"'},
        "doorbells from NVIDIA GPUs",
        "PeerMappingOverride is off",
        "NVreg_RegistryDwords",
    ),
]


@pytest.mark.parametrize(("broken", "what", "found", "hint"), BROKEN, ids=lambda value: str(value)[:30])
def test_what_is_missing_is_named_and_what_to_do(
    tmp_path: Path, broken: dict, what: str, found: str, hint: str
) -> None:
    said = checks(tmp_path, **broken)[what]
    assert said[0].startswith(found) and hint in said[1]


@pytest.mark.parametrize(("vendor", "firmware"), [(0x14E4, "235.2.86.0"), (0x1DD8, "1.117.5-a-58")])
def test_firmware_that_is_new_enough(tmp_path: Path, vendor: int, firmware: str) -> None:
    found = checks(tmp_path, vendor=vendor, **{"sys/class/infiniband/nic0/fw_ver": firmware})
    assert found["nic0"][1] == ""


def test_a_far_nic_is_said_to_be_far(tmp_path: Path) -> None:
    tree = Tree()
    tree.numa(0, "0-3", 0, "10 32")
    tree.numa(1, "4-7", 1, "32 10")
    tree.pci("pci0000:10/0000:10:01.0/0000:11:00.0", NVIDIA, 0x2330, 0x030200)
    tree.nic("nic0", "pci0000:80/0000:80:01.0/0000:81:00.0", numa=1)
    last = _doctor_nics.examine(tree.write(tmp_path), LIBRARIES)[-1]
    assert last["found"] == "nic0 (SYS)" and "across the processor" in last["do"]
