# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The compilers of kernels, one for each kind of device, and how they are called.

cmake/kernel_flags.json says which and with what: the build of the library's own kernels reads it too.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import cmake_dir, config
from .errors import ConfigError

__all__ = ["TIMEOUT_S", "Target", "Toolchain", "flags", "target_of"]

TIMEOUT_S = 600.0  # of one compilation
_ENDING = {"cpu": ".so", "cuda": ".fatbin", "hip": ".hsaco"}
_SHOWN_LINES = 40  # of what a compiler says


@functools.cache
def flags() -> dict[str, Any]:
    """cmake/kernel_flags.json: by kind, `compilers`, `flags`, `own_flags` (of a code object by itself), `remedy`."""
    table: dict[str, Any] = json.loads((cmake_dir() / "kernel_flags.json").read_text())
    return table


@dataclass(frozen=True)
class Target:
    """What a code object is for: `arch` is "sm_90", "gfx942", or a CPU's "x86_64" with its lanes."""

    kind: str
    arch: str
    lanes: int

    @property
    def name(self) -> str:
        return f"w{self.lanes}" if self.kind == "cpu" else self.arch

    @property
    def ending(self) -> str:
        return _ENDING[self.kind]

    def __str__(self) -> str:
        return f"the CPU with lanes={self.lanes}" if self.kind == "cpu" else f"{self.kind} {self.arch}"


def target_of(core_device: Any) -> Target:
    properties = core_device.properties
    return Target(core_device.kind, properties.arch, properties.warp_size)


class Toolchain:
    """The compiler for one target. ConfigError in words that say what to install where there is none."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.compiler = _find(target.kind)
        self.version = _ask(*self.compiler, "--version")

    def command(
        self,
        source: Path,
        *,
        include_dirs: Sequence[Path],
        defines: Mapping[str, object],
        extra: Sequence[str],
    ) -> list[str]:
        """All but where the results go. MoRI's headers are the first of `include_dirs`."""
        row = flags()[self.target.kind]
        return [
            *self.compiler,
            *row["flags"],
            *row["own_flags"],
            *self._target_flags(include_dirs[0]),
            *(f"-I{folder}" for folder in include_dirs),
            *(f"-D{name}" if value is None else f"-D{name}={_literal(value)}" for name, value in defines.items()),
            *extra,
            str(source),
        ]

    def outputs(self, result: Path, inputs: Path) -> list[str]:
        """Further arguments: the code object goes to `result`, a makefile's line of what was read to `inputs`."""
        if self.target.kind == "hip":  # clang ignores -MD here
            front = ("-dependency-file", str(inputs), "-MT", "object")
            return ["-o", str(result), *(word for option in front for word in ("-Xclang", option))]
        return ["-o", str(result), "-MD", "-MF", str(inputs), "-MT", "object"]

    def run(self, command: Sequence[str], source: Path) -> str:
        """What the compiler said. Raises ConfigError with its words if it failed."""
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=TIMEOUT_S,
                check=False,
                stdin=subprocess.DEVNULL,
            )
        except subprocess.TimeoutExpired:
            raise ConfigError(f"{source} did not compile for {self.target} within {TIMEOUT_S:g} s") from None
        said = (done.stdout + done.stderr).strip()
        if done.returncode != 0:
            lines = [line for line in said.splitlines() if not _is_report(line)]
            shown = "\n".join(lines[:_SHOWN_LINES])
            more = f"\n({len(lines) - _SHOWN_LINES} lines more)" if len(lines) > _SHOWN_LINES else ""
            raise ConfigError(
                f"{source} does not compile for {self.target} ({self.compiler[-1]}):\n{shown}{more}\n"
                f"command: {shlex.join(command)}"
            )
        return said

    def kernels(self, said: str) -> list[str]:
        """Kernels that the compiler reported; none for the CPU, whose code objects say it themselves."""
        found = re.findall(r"Compiling entry function '(\S+)'|remark: (?:\S+: )?\s*Function Name: (\S+)", said)
        return sorted({first or second for first, second in found})

    def warnings(self, said: str) -> str:
        lines = [line for line in said.splitlines() if not _is_report(line)]
        return "\n".join(lines) if any("warning" in line for line in lines) else ""

    def _target_flags(self, headers: Path) -> list[str]:
        if self.target.kind == "cpu":
            # for tests: fibers take the time, and optimisation most of the compiler's
            fewer = flags()["cpu"]["many_lanes_flags"] if self.target.lanes > 1 else []
            runtime = str(headers / "src/core/device/cpu_object.hpp")
            return [*fewer, f"-DMORI_CPU_WARP={self.target.lanes}", "-include", runtime]
        if self.target.kind == "hip":
            return [f"--offload-arch={self.target.arch}"]
        number = self.target.arch.removeprefix("sm_")
        known = re.findall(r"sm_(\d+)\b", _ask(*self.compiler, "--list-gpu-code"))
        if number in known:
            return ["-gencode", f"arch=compute_{number},code=sm_{number}"]
        older = [int(k) for k in known if int(k) < int(number)]  # the driver compiles its PTX for a newer GPU
        if not older:
            raise ConfigError(f"{self.compiler[-1]} compiles for none of sm_{number} and before; {self._remedy()}")
        return ["-gencode", f"arch=compute_{max(older)},code=compute_{max(older)}"]

    def _remedy(self) -> str:
        return str(flags()[self.target.kind]["remedy"])


def _is_report(line: str) -> bool:
    return "ptxas info" in line or "[-Rpass-analysis=kernel-resource-usage]" in line or "bytes stack frame" in line


def _literal(value: object) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


def _find(kind: str) -> list[str]:
    """The compiler as words of a command line."""
    row, named = flags()[kind], config.toolchain()
    if kind == "cpu" and named["CXX"]:
        words = shlex.split(named["CXX"])
        if shutil.which(words[0]):
            return words
        raise ConfigError(f"CXX={named['CXX']!r}: there is no {words[0]}; {row['remedy']}")
    homes = {
        "cpu": [],
        "cuda": [named["CUDA_HOME"], named["CUDA_PATH"], "/usr/local/cuda"],
        "hip": [named["ROCM_PATH"], "/opt/rocm"],
    }[kind]
    folders = [f"{home}/{sub}" for home in homes if home for sub in ("bin", "llvm/bin", "lib/llvm/bin")]
    for name in row["compilers"]:
        for path in (None, os.pathsep.join(folders) or os.devnull):
            found = shutil.which(name, path=path)
            if found:
                return [found]
    raise ConfigError(f"no compiler of kernels for {kind} found ({', '.join(row['compilers'])}); {row['remedy']}")


@functools.cache
def _ask(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"{shlex.join(command)} fails: {error}") from None
    if done.returncode != 0:
        raise ConfigError(f"{shlex.join(command)} fails: {(done.stdout + done.stderr).strip()[:500]}")
    return done.stdout
