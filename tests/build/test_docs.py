# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The README has its two commands and an example that runs; pages link to what exists."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from build_support import ROOT

IGNORED = {".venv", "build", ".git", ".pytest_cache"}
PAGES = sorted(p for p in ROOT.rglob("*.md") if not IGNORED & set(p.relative_to(ROOT).parts))
README = (ROOT / "README.md").read_text()


def anchors(text: str) -> set[str]:
    """Names that a link to a heading may use."""
    headings = re.findall(r"^#+ +(.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in headings}


def broken_links(page: Path) -> list[str]:
    text = re.sub(r"^```.*?^```$|`[^`\n]*`", "", page.read_text(), flags=re.M | re.S)
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        target, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        path = (page.parent / target).resolve() if target else page
        if not path.exists() or (anchor and path.suffix == ".md" and anchor not in anchors(path.read_text())):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links(page: Path) -> None:
    assert broken_links(page) == []


def test_broken_links_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Here it is\n[a](none.md) [b](page.md#here-it-is) [c](#nowhere) `[d](code.md)` [e](https://x)\n")
    assert broken_links(page) == ["none.md", "#nowhere"]


def test_readme_has_exactly_two_commands() -> None:
    command = [sys.executable, ROOT / ".ci/readme_command.py", ROOT / "README.md"]
    blocks = [subprocess.check_output([*command, n], text=True, timeout=30) for n in ("1", "2")]
    assert "mori bench ep" in blocks[0]
    assert blocks[1].strip().endswith("pytest")


def test_readme_fits_a_screen_or_so() -> None:
    assert len(README.splitlines()) <= 80


@pytest.mark.timeout(90)
def test_readme_example_runs(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (block,) = re.findall(r"^```python\n(.*?)^```$", README, re.M | re.S)
    script = tmp_path / "example.py"
    script.write_text(block)
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=80, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    norms = [float(word) for word in re.findall(r"[\d.]+", run.stdout)]
    assert len(norms) == 4
    # each token comes back once from each of one or two ranks: between the input's norm (256) and twice it
    assert all(200 < norm < 600 for norm in norms)


@pytest.mark.parametrize("suffix", [".py", ".cpp", ".hpp", ".cmake"])
def test_every_source_has_its_licence(suffix: str) -> None:
    files = {p for p in ROOT.rglob(f"*{suffix}") if not IGNORED & set(p.relative_to(ROOT).parts)}
    assert files
    unmarked = {p for p in files if "SPDX-License-Identifier: MIT" not in p.read_text()[:400]}
    assert sorted(p for p in unmarked if p.stat().st_size > 0) == []
