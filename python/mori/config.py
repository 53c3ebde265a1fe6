# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Every environment variable MoRI reads: its name, type, default and one sentence. No other file reads any.

    from mori import config
    settings = config.load()        # a read-only snapshot, taken whenever a context is made
    settings.timeout_s

An argument of a function stands above its variable. `mori env` prints the table.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from .errors import ConfigError

__all__ = ["Config", "Variable", "load", "print_env", "unknown", "variables"]

_SUFFIXES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def _seconds(text: str) -> float:
    value = float(text)
    if math.isnan(value) or value < 0:
        raise ValueError
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError
    return value


def _bytes(text: str) -> int:
    number = text.strip().upper().removesuffix("B").removesuffix("I")
    suffix = number[-1:] if number[-1:].isalpha() else ""
    value = int(number.removesuffix(suffix)) * _SUFFIXES[suffix]
    if value <= 0:
        raise ValueError
    return value


def _switch(text: str) -> bool:
    return {
        "1": True,
        "true": True,
        "on": True,
        "yes": True,
        "0": False,
        "false": False,
        "off": False,
        "no": False,
    }[text.strip().lower()]


def _one_of(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.strip().lower() not in allowed:
            raise ValueError
        return text.strip().lower()

    return parse


def _lanes(text: str) -> int:
    return {"1": 1, "32": 32, "64": 64}[text.strip()]


_HIDDEN = ("io_secret",)  # never printed
_LEVELS = ("debug", "info", "warning", "error", "critical")


def _variable(name: str, default: Any, parse: Callable[[str], Any], form: str, sentence: str) -> Any:
    return dataclasses.field(
        default=default, metadata={"name": name, "parse": parse, "form": form, "sentence": sentence}
    )


@dataclasses.dataclass(frozen=True)
class Config:
    """One snapshot of the settings. The fields below are the whole list of variables."""

    timeout_s: float = _variable(
        "MORI_TIMEOUT_S",
        30.0,
        _seconds,
        "seconds",
        "How long any wait for another rank may last; 0 waits for ever.",
    )
    heap_bytes: int = _variable(
        "MORI_HEAP_BYTES", 1 << 30, _bytes, "bytes, or with K, M, G", "Size of each rank's symmetric heap."
    )
    debug: bool = _variable(
        "MORI_DEBUG",
        False,
        _switch,
        "0 or 1",
        "Poison buffers, put canaries round them and stamp generations.",
    )
    log: str = _variable("MORI_LOG", "warning", _one_of(*_LEVELS), " | ".join(_LEVELS), "Level of the logger `mori`.")
    cpu_threads: int = _variable(
        "MORI_CPU_THREADS",
        0,
        _count,
        "count",
        "Threads of each rank's CPU device; 0 is one, for ranks that share the cores.",
    )
    cpu_lanes: int = _variable(
        "MORI_CPU_LANES",
        1,
        _lanes,
        "1 | 32 | 64",
        "Warp size of the CPU device; 32 and 64 are the lane-accurate ones, for tests.",
    )
    sms: int = _variable(
        "MORI_SMS",
        0,
        _count,
        "count",
        "Multiprocessors (compute units) a communication kernel may take; 0 computes it.",
    )
    kernel_dir: str = _variable(
        "MORI_KERNEL_DIR",
        "",
        str,
        "folder",
        "Where code objects are loaded from instead of the installed package.",
    )
    kernel_cache: str = _variable(
        "MORI_KERNEL_CACHE",
        "",
        str,
        "folder",
        "Where `mori.compile_kernel` keeps what it compiled; empty means the user's cache folder.",
    )
    socket_ifname: str = _variable(
        "MORI_SOCKET_IFNAME",
        "",
        str,
        "interface",
        "Where ranks of other hosts reach this one over TCP; all interfaces unless it is given.",
    )
    bootstrap_host: str = _variable(
        "MORI_BOOTSTRAP_HOST",
        "",
        str,
        "address",
        "Address at which `unique_id()` listens and others reach it; empty means this host only (127.0.0.1).",
    )
    io_secret: str = _variable(
        "MORI_IO_SECRET",
        "",
        str,
        "text, at least 16 bytes",
        "Shared secret of transfer engines; without one they take only loopback addresses.",
    )
    io_allow_insecure: bool = _variable(
        "MORI_IO_ALLOW_INSECURE",
        False,
        _switch,
        "0 or 1",
        "Transfer engines take other addresses without a secret, too: whoever reaches the port may connect.",
    )
    transport: str = _variable(
        "MORI_TRANSPORT",
        "auto",
        _one_of("auto", "p2p", "ibgda"),
        "auto | p2p | ibgda",
        "How kernels reach other ranks: load and store, or queues of a NIC; auto: by where the rank is.",
    )
    ibgda_provider: str = _variable(
        "MORI_IBGDA_PROVIDER",
        "auto",
        _one_of("auto", "mlx5", "bnxt_re", "ionic"),
        "auto | mlx5 | bnxt_re | ionic",
        "Whose format queues have where a software NIC serves them; auto is mlx5.",
    )
    ibgda_nic: str = _variable(
        "MORI_IBGDA_NIC",
        "",
        str,
        "name of an RDMA device",
        "The NIC whose queues kernels post to; empty means a software NIC.",
    )
    ibgda_mover: str = _variable(
        "MORI_IBGDA_MOVER",
        "auto",
        _one_of("auto", "shm", "tcp", "verbs"),
        "auto | shm | tcp | verbs",
        "How a software NIC reaches a peer: load and store, TCP, or an RDMA NIC; auto: shm if mapped, or tcp.",
    )
    ibgda_queues: int = _variable(
        "MORI_IBGDA_QUEUES",
        1,
        _count,
        "1 to 64",
        "Queues to each peer; a kernel's blocks share them out among themselves.",
    )
    rdma_devices: str = _variable(
        "MORI_RDMA_DEVICES",
        "",
        str,
        "names, separated by commas",
        "NICs that transfer engines choose from, empty means all; the mover `verbs` takes the first.",
    )


@dataclasses.dataclass(frozen=True)
class Variable:
    """One row of the table."""

    name: str
    field: str
    form: str
    default: Any
    sentence: str


def variables() -> tuple[Variable, ...]:
    """All variables, in the order of `Config`."""
    return tuple(
        Variable(f.metadata["name"], f.name, f.metadata["form"], f.default, f.metadata["sentence"])
        for f in dataclasses.fields(Config)
    )


def load(environ: Mapping[str, str] | None = None) -> Config:
    """Reads the environment, or `environ`. Unset or empty means the default; a bad value is a ConfigError."""
    source = os.environ if environ is None else environ
    values = {}
    for f in dataclasses.fields(Config):
        text = source.get(f.metadata["name"], "")
        if not text:
            continue
        try:
            values[f.name] = f.metadata["parse"](text)
        except (ValueError, KeyError, OverflowError):
            name, form = f.metadata["name"], f.metadata["form"]
            raise ConfigError(f"{name}={text!r} is not valid; it takes {form} (default {f.default!r})") from None
    return Config(**values)


def unknown(environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Names that look like ours and are not read: misspellings, and variables of other packages."""
    known = {variable.name for variable in variables()}
    return tuple(
        sorted(n for n in (os.environ if environ is None else environ) if n.startswith("MORI_") and n not in known)
    )


def launched(environ: Mapping[str, str] | None = None) -> bool:
    """Whether a launcher such as torchrun announced ranks (RANK or WORLD_SIZE); torch reads their values."""
    source = os.environ if environ is None else environ
    return "RANK" in source or "WORLD_SIZE" in source


def kernel_cache() -> Path:
    """Folder of compiled kernels: MORI_KERNEL_CACHE, or mori/kernels in the user's cache folder."""
    if named := load().kernel_cache:
        return Path(named).absolute()
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "mori" / "kernels"


def toolchain() -> dict[str, str]:
    """What the compilers' own variables name, empty where unset; they are not MoRI's to describe."""
    return {name: os.environ.get(name, "") for name in ("CXX", "CUDA_HOME", "CUDA_PATH", "ROCM_PATH")}


def environment() -> dict[str, str]:
    """A copy of the process's environment, to start other processes with."""
    return dict(os.environ)


def set_environment(values: Mapping[str, str]) -> None:
    """Makes `values` the whole environment of this process; for the worker processes of `mori.testing`."""
    os.environ.clear()
    os.environ.update(values)


def markdown() -> str:
    """The table as it stands in docs/cluster.md."""
    rows = [f"| `{v.name}` | {v.form.replace('|', 'or')} | `{v.default!r}` | {v.sentence} |" for v in variables()]
    return "\n".join(["| variable | takes | default | meaning |", "|---|---|---|---|", *rows])


def print_env(*, as_json: bool = False, file: IO[str] | None = None) -> None:
    """What `mori env` shows: each variable with its value, where that comes from, and its sentence."""
    settings = load()
    rows = [
        {
            "name": v.name,
            "value": "(hidden)" if v.field in _HIDDEN and getattr(settings, v.field) else getattr(settings, v.field),
            "default": v.default,
            "set": bool(os.environ.get(v.name)),
            "takes": v.form,
            "meaning": v.sentence,
        }
        for v in variables()
    ]
    from rich.console import Console

    console = Console(file=file)
    if as_json:
        text = json.dumps({"variables": rows, "unknown": unknown()}, indent=2)
        console.print(text, markup=False, highlight=False, soft_wrap=True)
        return
    from rich.table import Table

    table = Table(title="Environment of MoRI")
    for heading in ("variable", "value", "takes", "meaning"):
        table.add_column(heading)
    for row in rows:
        value = repr(row["value"]) if row["set"] else f"{row['value']!r} (default)"
        table.add_row(str(row["name"]), value, str(row["takes"]), str(row["meaning"]))
    console.print(table)
    if unknown():
        console.print(f"set, but not read by MoRI: {', '.join(unknown())}", markup=False)
