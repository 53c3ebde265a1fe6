# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Whether kernels could post to this machine's NICs, for `mori doctor`: one line per thing, with what to do.

    for check in examine():
        check["what"], check["found"], check["do"]       # "do" is empty where all is well

What each line is about: docs/ibgda_hardware.md. `root` is another machine's tree, for tests.
"""

from __future__ import annotations

import contextlib
import ctypes
import re
from collections.abc import Iterator, Sequence
from ipaddress import IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .topology import Nic, Topology

__all__ = ["examine"]

_OLDEST_FIRMWARE = {"bnxt_re": (235,), "ionic": (1, 117, 5)}
_OLDEST_KERNEL = (5, 12)  # registers dma-bufs
_NVIDIA_PARAMETERS = "proc/driver/nvidia/params"
_PEER_MODULES = ("nvidia_peermem", "nv_peer_mem")
_FAR = ("NODE", "SYS", "NET")


def examine(root: Path | str = "/", libraries: Sequence[dict[str, Any]] | None = None) -> list[dict[str, str]]:
    """The checks in the order in which a NIC is brought up."""
    from . import _core, topology

    root = Path(root)
    machine = topology.read(root)
    hardware = [nic for nic in machine.nics if nic.pci]
    if not hardware:
        software = ", ".join(nic.name for nic in machine.nics)
        found = f"none of hardware (software: {software})" if software else "none"
        hint = "load the NIC's driver (mlx5_ib, bnxt_re, ionic_rdma); containers: --device /dev/infiniband"
        return [_check("RDMA device", found, hint)]
    rows = list(_core.direct_libraries() if libraries is None else libraries)
    families = {row["vendor"]: str(row["family"]) for row in rows}
    vendors = {device.address: device.vendor for device in machine.pci}
    out = [_device_files(root)]
    present = set()
    for nic in hardware:
        family = families.get(vendors.get(nic.pci, 0), "")
        present.add(family)
        out += [_nic(root, nic, family), *_ports(root, nic)]
    out += [_library(row) for row in rows if row["family"] in present]
    if machine.gpus:
        out += [_gpu_memory(root, machine), *_registers(root), *_distances(machine)]
    return out


def _check(what: str, found: str, do: str = "") -> dict[str, str]:
    return {"what": what, "found": found, "do": do}


def _text(file: Path) -> str:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return file.read_text().strip()
    return ""


def _names(folder: Path) -> list[str]:
    with contextlib.suppress(OSError):
        return sorted(entry.name for entry in folder.iterdir())
    return []


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def _device_files(root: Path) -> dict[str, str]:
    files = [name for name in _names(root / "dev/infiniband") if name.startswith("uverbs")]
    hint = "" if files else "modprobe ib_uverbs   (containers: --device /dev/infiniband)"
    return _check("/dev/infiniband", ", ".join(files) or "no uverbs files", hint)


def _nic(root: Path, nic: Nic, family: str) -> dict[str, str]:
    firmware = _text(root / "sys/class/infiniband" / nic.name / "fw_ver")
    found = f"{family or 'a family that kernels cannot post to'}, firmware {firmware or 'unknown'}"
    oldest = _OLDEST_FIRMWARE.get(family, ())
    hint = ""
    if not family:
        hint = "use a ConnectX (mlx5), Thor2 (bnxt_re) or Pensando (ionic) NIC; mori.io works over any"
    elif firmware and oldest and _numbers(firmware) < oldest:
        hint = f"update the firmware to {'.'.join(map(str, oldest))} or later"
    return _check(nic.name, found, hint)


def _ports(root: Path, nic: Nic) -> Iterator[dict[str, str]]:
    for port in nic.ports:
        what = f"{nic.name} port {port.number}"
        if not port.active:
            yield _check(what, "down", "connect the cable, or bring its interface up (ip link set dev NAME up)")
            continue
        folder = root / "sys/class/infiniband" / nic.name / "ports" / str(port.number)
        gids = dict(_gids(folder))
        routed = [f"{index} ({address})" for index, (kind, address) in gids.items() if "v2" in kind]
        if port.link_layer != "Ethernet":
            yield _check(what, f"active, {port.link_layer}, {len(gids)} GIDs")
        elif routed:
            yield _check(what, f"active, RoCE v2 at GID {', '.join(routed)}")
        else:
            owner = port.netdev or "its interface"
            yield _check(what, f"active, {len(gids)} GIDs, none of RoCE v2", f"give {owner} an IP address")


def _gids(folder: Path) -> Iterator[tuple[int, tuple[str, str]]]:
    for name in sorted(_names(folder / "gids"), key=int):
        text = _text(folder / "gids" / name)
        with contextlib.suppress(ValueError):
            address = IPv6Address(text)
            if int(address):
                yield int(name), (_text(folder / "gid_attrs/types" / name), str(address.ipv4_mapped or address))


def _library(row: dict[str, Any]) -> dict[str, str]:
    version = _version_of(str(row["library"]))
    found = f"{row['library']} {version}".strip() if version else f"no {row['library']}"
    return _check(f"direct verbs of {row['family']}", found, str(row["problem"]))


def _version_of(library: str) -> str:
    """Of a library as it is installed: the loader resolves the name, its file has the version."""
    try:
        ctypes.CDLL(library)
        mapped = Path("/proc/self/maps").read_text()
    except OSError:
        return ""
    stem = library.split(".so")[0]
    files = re.findall(rf"(/\S*/{re.escape(stem)}\.so\S*)", mapped)
    return Path(files[0]).resolve().name.split(".so.")[-1] if files else "found"


def _gpu_memory(root: Path, machine: Topology) -> dict[str, str]:
    what = "GPU memory for NICs"
    peer = [name for name in _PEER_MODULES if (root / "sys/module" / name).exists()]
    peer += _names(root / "sys/kernel/mm/memory_peers")
    release = _text(root / "proc/sys/kernel/osrelease")
    dmabuf = _numbers(release)[:2] >= _OLDEST_KERNEL
    ways = [f"peer memory ({name})" for name in dict.fromkeys(peer)]
    ways += [f"dma-buf (kernel {release})"] if dmabuf else []
    if ways:
        return _check(what, ", ".join(ways))
    nvidia = any(gpu.vendor == "nvidia" for gpu in machine.gpus)
    hint = "modprobe nvidia_peermem, or " if nvidia else ""
    return _check(what, f"no way (kernel {release or 'unknown'})", hint + "a kernel from 5.12 on, for dma-buf")


def _registers(root: Path) -> Iterator[dict[str, str]]:
    parameters = root / _NVIDIA_PARAMETERS
    if not parameters.exists():
        return
    on = re.search(r"PeerMappingOverride=0*[1-9a-fx]", _text(parameters)) is not None
    line = 'options nvidia NVreg_RegistryDwords="PeerMappingOverride=1;"'
    yield _check(
        "doorbells from NVIDIA GPUs",
        "PeerMappingOverride is on" if on else "PeerMappingOverride is off",
        "" if on else f"write '{line}' to /etc/modprobe.d/nvidia.conf and reload the driver",
    )


def _distances(machine: Topology) -> Iterator[dict[str, str]]:
    for gpu, name in zip(machine.gpus, machine.assign_nics(), strict=True):
        if not name:
            continue
        kind = machine.path(gpu.pci, name).kind.name
        hint = f"no NIC is behind a switch or bridge of this GPU: {name} is reached across the processor"
        yield _check(f"NIC of GPU {gpu.pci}", f"{name} ({kind})", hint if kind in _FAR else "")
