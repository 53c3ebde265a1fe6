# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Checks the order around system-scope accesses in the code that the compilers really made.

    isa_check.py [--list] [--expect FILE.json] FILE.hsaco|FILE.ptx...

Weakening one flag from release to relaxed passes every functional test and fails on a user's machine; here
it fails at once. For AMD (gfx94x, gfx95x) the disassembly must show, for each access that peers see
("sc0 sc1"):
  release  "buffer_wbl2 sc0 sc1" and then "s_waitcnt vmcnt(0)" before a store or atomic
  acquire  "s_waitcnt vmcnt(0)" and then "buffer_inv sc0 sc1" after a load or atomic
and a "s_waitcnt vmcnt(0)" before each "s_barrier" (or one lane's release would not cover the other waves'
stores), no "flat_" and no "scratch_" instruction. For NVIDIA the PTX is read: .release, .acquire and .relaxed
of .sys, and no volatile access and no bare fence but those of SHMEM's fence and quiet.

--expect names for each function how many releases and acquires there are at least, and how many relaxed
system-scope accesses and flat instructions at most (0 unless named). Functions that have such accesses must
be in the file. Exit status 1 on any finding. The scan is linear: a fence in another basic block is not found,
and then its access counts as relaxed.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

_WINDOW = 24  # instructions between a fence and its access
_MEMORY = re.compile(r"^(global|flat|buffer)_(load|store|atomic)_")


class Instruction(NamedTuple):
    address: int
    name: str
    operands: str
    comment: str

    @property
    def words(self) -> set[str]:
        return set(re.split(r"[\s,]+", self.operands))


@dataclass
class Counts:
    """What one function does at system scope."""

    release: int = 0
    acquire: int = 0
    relaxed_loads: int = 0
    relaxed_stores: int = 0  # and atomics
    flat: int = 0
    scratch: int = 0
    open_barriers: int = 0  # with stores of this wave still under way
    bare: int = 0  # PTX: volatile accesses and fences
    seen: list[str] = field(default_factory=list)

    def summary(self) -> str:
        return " ".join(f"{k}={v}" for k, v in vars(self).items() if k != "seen")


def plain_name(symbol: str) -> str:
    """`fail` of `_ZN4mori7hip_w644failE...`; a kernel's name is not mangled."""
    match = re.match(r"_ZN?", symbol)
    rest, name = symbol[match.end() :] if match else "", symbol
    while number := re.match(r"\d+", rest):
        end = number.end() + int(number[0])
        name, rest = rest[number.end() : end], rest[end:]
    return name


# ---- AMD ---------------------------------------------------------------------------------------------


def disassemble(path: Path) -> dict[str, list[Instruction]]:
    """Instructions of each function of a code object."""
    versions = [f"llvm-objdump-{v}" for v in range(30, 17, -1)]
    tool = next((t for t in [*versions, "/opt/rocm/llvm/bin/llvm-objdump"] if shutil.which(t)), None)
    if tool is None:
        raise FileNotFoundError("llvm-objdump: apt-get install llvm-22")
    run = subprocess.run([tool, "-d", "--no-show-raw-insn", str(path)], check=True, capture_output=True, text=True)
    functions: dict[str, list[Instruction]] = {}
    body: list[Instruction] = []
    for line in run.stdout.splitlines():
        if m := re.match(r"^[0-9a-f]+ <(\S+)>:$", line):
            body = functions.setdefault(plain_name(m[1]), [])
        elif m := re.match(r"^\s+(\S+)\s*(.*?)\s*//\s*([0-9A-Fa-f]+):(.*)", line):
            body.append(Instruction(int(m[3], 16), m[1], m[2], m[4]))
    return functions


def _waits(insn: Instruction) -> bool:
    return insn.name == "s_waitcnt" and "vmcnt(0)" in insn.operands


def _system_access(insn: Instruction) -> str | None:
    """'load', 'store' or 'atomic' for an access that other devices see."""
    match = _MEMORY.match(insn.name)
    if not match:
        return None
    if match[2] == "atomic":  # here sc0 means "returns the old value" and sc1 is the scope
        return "atomic" if "sc1" in insn.words else None
    return match[2] if {"sc0", "sc1"} <= insn.words else None


def _leaves(insn: Instruction) -> bool:
    return insn.name.startswith(("s_branch", "s_endpgm", "s_setpc", "s_swappc"))


def _branch_targets(body: Sequence[Instruction]) -> set[int]:
    hits = (re.search(r"<[^>+]+\+0x([0-9a-f]+)>", insn.comment) for insn in body)
    return {body[0].address + int(m[1], 16) for m in hits if m}


def _released(body: Sequence[Instruction], i: int, targets: set[int]) -> bool:
    """A write-back and then a wait on every path to instruction i, with no other access between."""
    if body[i].address in targets:
        return False
    waited = False
    for insn in reversed(body[max(0, i - _WINDOW) : i]):
        if insn.name == "buffer_wbl2" and {"sc0", "sc1"} <= insn.words:
            return waited
        if _MEMORY.match(insn.name) or _leaves(insn) or insn.address in targets:
            return False
        waited |= _waits(insn)
    return False


def _acquired(body: Sequence[Instruction], i: int) -> bool:
    """A wait and then an invalidation after instruction i, with no other access between."""
    waited = False
    for insn in body[i + 1 : i + 1 + _WINDOW]:
        if insn.name == "buffer_inv" and {"sc0", "sc1"} <= insn.words:
            return waited
        if _MEMORY.match(insn.name) or _leaves(insn):
            return False
        waited |= _waits(insn)
    return False


def _settled(body: Sequence[Instruction], i: int, targets: set[int]) -> bool:
    """All accesses of this wave are complete at the barrier i."""
    if body[i].address in targets:
        return False
    for insn in reversed(body[max(0, i - _WINDOW) : i]):
        if _waits(insn):
            return True
        if _MEMORY.match(insn.name) or _leaves(insn) or insn.address in targets:
            return False
    return False


def check_amd(body: Sequence[Instruction]) -> Counts:
    counts = Counts()
    targets = _branch_targets(body) if body else set()
    for i, insn in enumerate(body):
        counts.flat += insn.name.startswith("flat_")
        counts.scratch += insn.name.startswith("scratch_")
        if insn.name == "s_barrier" and not _settled(body, i, targets):
            counts.open_barriers += 1
            counts.seen.append(f"{insn.address:#x} s_barrier: no s_waitcnt vmcnt(0) before it")
        access = _system_access(insn)
        if access is None:
            continue
        release = access != "load" and _released(body, i, targets)
        acquire = access != "store" and _acquired(body, i)
        counts.release += release
        counts.acquire += acquire
        if not release and not acquire:
            counts.relaxed_loads += access == "load"
            counts.relaxed_stores += access != "load"
        verdict = "+".join(n for n, on in (("release", release), ("acquire", acquire)) if on) or "relaxed"
        counts.seen.append(f"{insn.address:#x} {insn.name} {insn.operands}: {verdict}")
    return counts


# ---- NVIDIA ------------------------------------------------------------------------------------------


def check_ptx(text: str) -> dict[str, Counts]:
    """Counts of each function of a PTX text."""
    functions: dict[str, Counts] = {}
    counts = Counts()
    for line in text.splitlines():
        if m := re.search(r"\.(?:entry|func)\s+(?:\(.*?\)\s*)?([\w$]+)", line):
            counts = functions.setdefault(plain_name(m[1]), Counts())
            continue
        m = re.match(r"\s*(?:@!?%\w+\s+)?((?:ld|st|atom|red|fence|membar)\.[\w.:]+)", line)
        if not m:
            continue
        parts = m[1].split(".")
        if parts[0] in ("fence", "membar") or "volatile" in parts:
            counts.bare += 1
        elif "sys" in parts:
            release = "release" in parts or "acq_rel" in parts
            acquire = "acquire" in parts or "acq_rel" in parts
            counts.release += release
            counts.acquire += acquire
            if not release and not acquire:
                counts.relaxed_loads += parts[0] == "ld"
                counts.relaxed_stores += parts[0] != "ld"
        else:
            continue
        counts.seen.append(line.strip())
    return functions


# ---- both --------------------------------------------------------------------------------------------


def check_file(path: Path) -> dict[str, Counts]:
    if path.suffix == ".ptx":
        return check_ptx(path.read_text())
    return {name: check_amd(body) for name, body in disassemble(path).items()}


def findings(found: Mapping[str, Counts], expected: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Sentences on what is not as expected; empty when all is well."""
    wrong = []
    for name, counts in found.items():
        limits = expected.get(name, {})
        ordered = counts.release + counts.acquire + counts.relaxed_loads + counts.relaxed_stores
        if name not in expected and ordered:
            entry = {k: v for k, v in vars(counts).items() if v and k != "seen"}
            wrong.append(f'{name}: not in the expectations; if it is right, add "{name}": {json.dumps(entry)}')
            continue
        for key in ("release", "acquire"):
            if (value := getattr(counts, key)) < limits.get(key, 0):
                wrong.append(f"{name}: {key} = {value}, expected at least {limits[key]}")
        for key in ("relaxed_loads", "relaxed_stores", "flat", "scratch", "open_barriers", "bare"):
            if (value := getattr(counts, key)) > limits.get(key, 0):
                wrong.append(f"{name}: {key} = {value}, allowed {limits.get(key, 0)}")
    return wrong


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--expect", type=Path, metavar="FILE.json", help='{"kernel": {"release": 1, ...}}')
    parser.add_argument("--list", action="store_true", help="print every system-scope access and its verdict")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    args = parser.parse_args(argv)
    expected = json.loads(args.expect.read_text()) if args.expect else None
    wrong = []
    for path in args.files:
        found = check_file(path)
        for name, counts in found.items():
            print(f"{path.name} {name}: {counts.summary()}")
            for line in counts.seen if args.list else []:
                print(f"  {line}")
        if expected is not None:
            wrong += [f"{path.name} {sentence}" for sentence in findings(found, expected)]
    for sentence in wrong:
        print(f"WRONG {sentence}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
