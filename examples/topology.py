# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Shows this machine, and what a launcher can take from it: NIC, CPUs and farthest peer of each GPU.

    python examples/topology.py [topology.svg]

Runs anywhere; without a GPU it shows the NUMA nodes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import mori.topology
import rich


def main() -> None:
    topology = mori.topology.read()
    rich.print(topology.tree())
    cpulist_of = {node.id: node.cpulist for node in topology.numa_nodes}
    for index, (gpu, nic) in enumerate(zip(topology.gpus, topology.assign_nics(), strict=True)):
        peers = [topology.path(index, other) for other in range(len(topology.gpus)) if other != index]
        farthest = max(peers, key=lambda path: path.kind.distance, default="none")
        cpus = cpulist_of.get(gpu.numa_node) or "any"
        print(f"GPU {index} ({gpu.pci}): NIC {nic or 'none'}, CPUs {cpus}, farthest peer over {farthest}")
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(topology.svg(), encoding="utf-8")


if __name__ == "__main__":
    main()
