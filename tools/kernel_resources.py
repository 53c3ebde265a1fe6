# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Registers and spills of every kernel, out of what the device compilers report.

    kernel_resources.py check FILE...      a table; status 1 if a kernel keeps registers in memory
    kernel_resources.py manifest OUT ...   run by the build: kernels/manifest.json (see write_manifest)

FILE is a manifest.json or a compiler's report: clang's -Rpass-analysis=kernel-resource-usage or ptxas -v.
Both are normalised to Resources. A kernel that spills, or has a stack in (slow, per-lane) memory, is one
that was given too few registers or indexes a local array: never wanted in this library.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Resources:
    """What one kernel uses on one architecture."""

    arch: str
    kernel: str
    registers: int  # vector registers of one lane
    stack_bytes: int  # private memory of one lane, spills included
    spills: int  # bytes (ptxas: stores and loads) or registers (clang) that are moved to memory
    shared_bytes: int  # static, of one block
    dynamic_stack: bool = False
    waves: int | None = None  # per SIMD at once; clang only

    @property
    def bad(self) -> bool:
        return bool(self.stack_bytes or self.spills or self.dynamic_stack)


_REMARK = re.compile(r"remark: (?:\S+: )?\s*([A-Z][^:\n]*): (\S+) \[-Rpass-analysis=kernel-resource-usage\]")


def parse_clang(text: str, arch: str) -> list[Resources]:
    """Kernels of a clang report. SGPR spills go to vector registers, not to memory: not counted."""
    found: list[dict[str, str]] = []
    for key, value in _REMARK.findall(text):
        if key == "Function Name":
            found.append({"name": value})
        elif found:
            found[-1][key] = value
    return [
        Resources(
            arch=arch,
            kernel=fields["name"],
            registers=int(fields.get("VGPRs", 0)),
            stack_bytes=int(fields.get("ScratchSize [bytes/lane]", 0)),
            spills=int(fields.get("VGPRs Spill", 0)),
            shared_bytes=int(fields.get("LDS Size [bytes/block]", 0)),
            dynamic_stack=fields.get("Dynamic Stack") == "True",
            waves=int(fields["Occupancy [waves/SIMD]"]) if "Occupancy [waves/SIMD]" in fields else None,
        )
        for fields in found
    ]


_FRAME = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")


def parse_ptxas(text: str) -> list[Resources]:
    """Kernels of a ptxas -v report, and those functions they call that spill (with 0 registers)."""
    found: list[Resources] = []
    arch, name, stack, spills = "", "", 0, 0
    calls: list[Resources] = []
    for line in text.splitlines():
        if m := re.search(r"Compiling entry function '(\S+)' for '(\S+)'", line):
            arch = m[2]
        elif m := re.search(r"Function properties for (\S+)", line):
            name = m[1]
        elif m := _FRAME.search(line):
            stack, spills = int(m[1]), int(m[2]) + int(m[3])
            calls.append(Resources(arch, name, 0, stack, spills, 0))
        elif m := re.search(r"Used (\d+) registers", line):
            shared = re.search(r"(\d+) bytes smem", line)
            calls.pop()
            found.append(Resources(arch, name, int(m[1]), stack, spills, int(shared[1]) if shared else 0))
    return found + [call for call in calls if call.bad]


def parse_report(path: Path) -> list[Resources]:
    """A compiler's report `UNIT.fatbin.log` or `UNIT.ARCH.hsaco.log`."""
    text = path.read_text(errors="replace")
    if "ptxas info" in text:
        return parse_ptxas(text)
    arch = re.search(r"\.(gfx\w+)\.", path.name)
    return parse_clang(text, arch[1] if arch else "?")


def read(path: Path) -> list[tuple[str, Resources]]:
    """(unit, resources) of each kernel in a manifest or a report."""
    if path.suffix == ".json":
        kernels = json.loads(path.read_text())["kernels"]
        return [(k["unit"], Resources(**{f: v for f, v in k.items() if f != "unit"})) for k in kernels]
    return [(path.name.split(".")[0], resources) for resources in parse_report(path)]


def table(rows: Sequence[tuple[str, Resources]]) -> str:
    """One line a kernel; BAD marks those that fail the check."""
    width = max((len(r.kernel) for _, r in rows), default=6)
    lines = [f"{'arch':<8}{'kernel':<{width}}  registers  stack  spills  shared  waves"]
    for _, r in rows:
        waves = "-" if r.waves is None else str(r.waves)
        lines.append(
            f"{r.arch:<8}{r.kernel:<{width}}  {r.registers:>9}  {r.stack_bytes:>5}  {r.spills:>6}"
            f"  {r.shared_bytes:>6}  {waves:>5}{'  BAD' if r.bad else ''}"
        )
    return "\n".join(lines)


def _commit(source: Path) -> str | None:
    try:
        run = subprocess.run(
            ["git", "-C", str(source), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return run.stdout.strip() or None


def write_manifest(args: argparse.Namespace) -> None:
    """{"version", "commit", "targets": {cpu|cuda|hip: {"archs", "compiler"} or {"missing", "remedy"}},
    "units": [...], "kernels": [{"unit", fields of Resources}]}"""
    targets: dict[str, dict[str, Any]] = {}
    for name, archs, compiler in args.target:
        targets[name] = {"archs": archs.split(","), "compiler": compiler}
    for name, reason, remedy in args.missing:
        targets[name] = {"missing": reason, "remedy": remedy}
    units = [u for u in args.units.split(",") if u]
    kinds = {"fatbin", *targets.get("hip", {}).get("archs", ())}
    parts = [(path, path.name.split(".")) for path in sorted(args.out.parent.glob("*.log"))]
    built = [path for path, (unit, kind, *_) in parts if unit in units and kind in kinds]  # others are left over
    manifest = {
        "version": args.version,
        "commit": _commit(args.source),
        "targets": targets,
        "units": units,
        "kernels": [{"unit": unit, **asdict(r)} for path in built for unit, r in read(path)],
    }
    args.out.write_text(json.dumps(manifest, indent=1) + "\n")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="table of kernels; status 1 if one spills")
    check.add_argument("files", nargs="+", type=Path, metavar="FILE")
    manifest = commands.add_parser("manifest", help="write manifest.json from the reports beside it")
    manifest.add_argument("out", type=Path)
    manifest.add_argument("--version", required=True)
    manifest.add_argument("--source", type=Path, required=True, help="the repository, for its commit")
    manifest.add_argument("--units", default="", help="comma-separated")
    manifest.add_argument("--target", nargs=3, action="append", default=[], metavar=("NAME", "ARCHS", "COMPILER"))
    manifest.add_argument("--missing", nargs=3, action="append", default=[], metavar=("NAME", "REASON", "REMEDY"))
    args = parser.parse_args(argv)
    if args.command == "manifest":
        write_manifest(args)
        return 0
    rows = [row for path in args.files for row in read(path)]
    print(table(rows))
    return int(any(r.bad for _, r in rows))


if __name__ == "__main__":
    sys.exit(main())
