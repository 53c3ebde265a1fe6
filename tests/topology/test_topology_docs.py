# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""docs/topology.md shows what is really printed and drawn; its code and the example run."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from mori.topology import PathKind, Topology
from rich.console import Console

pytestmark = pytest.mark.timeout(60)
ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/topology.md").read_text(encoding="utf-8")


def test_tree_of_the_page(machine: Callable[[str], Topology]) -> None:
    out = io.StringIO()
    Console(file=out, width=100).print(machine("two_sockets_one_nic").tree())
    printed = "\n".join(line.rstrip() for line in out.getvalue().splitlines())
    assert f"$ mori topo\n{printed}\n```" in PAGE


def test_picture_of_the_page(machine: Callable[[str], Topology]) -> None:
    drawn = machine("h200_8").svg()
    committed = (ROOT / "docs/topology.svg").read_text(encoding="utf-8")
    assert committed == drawn, "write machine('h200_8').svg() to docs/topology.svg"


def test_code_of_the_page() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(code, {})


def test_kinds_of_the_page() -> None:
    assert re.findall(r"^\| ([A-Z]+) \|", PAGE, re.MULTILINE) == [kind.value for kind in PathKind]


def test_links_of_the_page() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", PAGE):
        assert (ROOT / "docs" / target).exists(), target


def test_example(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "examples/topology.py"), str(tmp_path / "here.svg")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert result.returncode == 0, result.stderr
    assert "machine" in result.stdout
    assert ElementTree.parse(tmp_path / "here.svg")
