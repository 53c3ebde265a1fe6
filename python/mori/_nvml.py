# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""NVLink as the NVIDIA driver knows it, through its management library (NVML), which needs no CUDA context.

Counts the active links of each GPU by what is at their other end: another GPU, or NVSwitch, which joins all
GPUs that the driver says can reach each other.
"""

from __future__ import annotations

import ctypes
from collections import Counter
from itertools import combinations
from typing import Any

from mori._topology_types import GpuLink, PathKind

__all__ = ["read_links"]

_LIBRARY = "libnvidia-ml.so.1"
_MOST_LINKS = 64  # the driver answers "invalid argument" past the last one
_INVALID_ARGUMENT = 2
_REMOTE_GPU, _REMOTE_SWITCH = 0, 2  # nvmlIntNvLinkDeviceType_t
_P2P_NVLINK = 2  # nvmlGpuP2PCapsIndex_t


class _PciInfo(ctypes.Structure):
    _fields_ = [
        ("bus_id_legacy", ctypes.c_char * 16),
        ("domain", ctypes.c_uint),
        ("bus", ctypes.c_uint),
        ("device", ctypes.c_uint),
        ("pci_device_id", ctypes.c_uint),
        ("pci_subsystem_id", ctypes.c_uint),
        ("bus_id", ctypes.c_char * 32),
    ]

    def address(self) -> str:
        return f"{self.domain:04x}:{self.bus:02x}:{self.device:02x}.0"


def read_links() -> tuple[list[GpuLink], tuple[str, ...]]:
    """All NVLink pairs of this machine, and what prevented seeing them. Never raises."""
    try:
        nvml = ctypes.CDLL(_LIBRARY)
    except OSError:
        return [], (f"NVLink is unknown: {_LIBRARY} of the NVIDIA driver is not here",)
    try:
        if error := nvml.nvmlInit_v2():
            return [], (f"NVLink is unknown: nvmlInit_v2 answers {error}",)
        try:
            return _read(nvml), ()
        finally:
            nvml.nvmlShutdown()
    except AttributeError as error:  # an older driver without one of the functions
        return [], (f"NVLink is unknown: {error}",)


def _read(nvml: Any) -> list[GpuLink]:
    gpus: dict[str, ctypes.c_void_p] = {}
    count = ctypes.c_uint()
    nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
    for index in range(count.value):
        handle, pci = ctypes.c_void_p(), _PciInfo()
        if nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle)):
            continue
        if nvml.nvmlDeviceGetPciInfo_v3(handle, ctypes.byref(pci)) == 0:
            gpus[pci.address()] = handle

    direct: Counter[tuple[str, str]] = Counter()
    to_switch: Counter[str] = Counter()
    for address, handle in gpus.items():
        for link in range(_MOST_LINKS):
            active, kind, remote = ctypes.c_int(), ctypes.c_int(-1), _PciInfo()
            error = nvml.nvmlDeviceGetNvLinkState(handle, link, ctypes.byref(active))
            if error == _INVALID_ARGUMENT:
                break
            if error or not active.value:
                continue
            nvml.nvmlDeviceGetNvLinkRemoteDeviceType(handle, link, ctypes.byref(kind))
            if kind.value == _REMOTE_SWITCH:
                to_switch[address] += 1
            elif kind.value == _REMOTE_GPU:
                error = nvml.nvmlDeviceGetNvLinkRemotePciInfo_v2(handle, link, ctypes.byref(remote))
                direct[address, remote.address()] += 0 if error else 1

    pairs = []
    for a, b in combinations(gpus, 2):
        links = direct[a, b]
        if to_switch[a] and to_switch[b] and _reachable(nvml, gpus[a], gpus[b]):
            links += min(to_switch[a], to_switch[b])
        if links:
            pairs.append(GpuLink(a, b, PathKind.NVL, links=links))
    return pairs


def _reachable(nvml: Any, a: ctypes.c_void_p, b: ctypes.c_void_p) -> bool:
    """Whether NVSwitch lets the two talk: they may belong to different partitions of the fabric."""
    status = ctypes.c_int()
    return nvml.nvmlDeviceGetP2PStatus(a, b, _P2P_NVLINK, ctypes.byref(status)) == 0 and status.value == 0
