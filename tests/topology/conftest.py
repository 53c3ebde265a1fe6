# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""`machine("h200_8")` writes that machine's sysfs and reads it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from machines import Tree, described

from mori.topology import Topology, read


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Tree], Topology]:
    """Writes a tree into a folder of its own, and reads it."""

    def write_and_read(tree: Tree) -> Topology:
        root = tmp_path / str(len(list(tmp_path.iterdir())))
        root.mkdir()
        return read(tree.write(root), tree.gpu_links)

    return write_and_read


@pytest.fixture
def machine(write: Callable[[Tree], Topology]) -> Callable[[str], Topology]:
    return lambda name: write(described(name))
