# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Where a GPU sits: for descriptors, which other processes read, whose ordinals differ."""

from __future__ import annotations

import functools
from pathlib import Path

from mori import _core

__all__ = ["gpu_place"]


@functools.cache
def gpu_place(device: int) -> tuple[str, int]:
    """PCI address and NUMA node of a GPU of this process; ("", -1) where nobody knows, and for host memory."""
    if device < 0:
        return "", -1
    for kind in ("cuda", "hip"):
        if device >= _core.device_count(kind)[0]:
            continue
        bus_id = str(_core.open_device(kind, device, "", 1, 1).properties.pci_bus_id).lower()
        try:
            return bus_id, int(Path(f"/sys/bus/pci/devices/{bus_id}/numa_node").read_text())
        except (OSError, ValueError):
            return bus_id, -1
    return "", -1
