# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""What was built, what this machine has, what is missing and the line that gets it: `mori doctor`.

    from mori import doctor
    doctor.examine()["targets"]          # {"cpu": True, "cuda": False, "hip": True}

Each question is answered on its own. Whatever is broken, the answer says so and the others are given all the
same: nothing here raises.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

__all__ = ["examine", "print_report"]

_PATTERNS = {"cpu": "cpu_w1.so", "cuda": "*.fatbin", "hip": "*.hsaco"}
_REMEDIES = {
    "cpu": "pip install .   (in MoRI's source folder, with g++ 12 or later)",
    "cuda": "put nvcc 12 or later on the PATH or set CUDA_HOME, then install again",
    "hip": "apt-get install clang-22 lld-22, or ROCm; then install again",
    "torch": "pip install torch --index-url https://download.pytorch.org/whl/cpu   (or a GPU's build)",
    "matplotlib": "pip install 'mori-comm[bench]'",
    "mpi4py": "apt-get install libopenmpi-dev openmpi-bin && pip install 'mori-comm[mpi]'",
}
_OPTIONAL = {
    "matplotlib": "mori bench --plot",
    "mpi4py": "mori.init(comm=...) and mori bench --peers mpi",
}


def examine() -> dict[str, Any]:
    """Everything that `mori doctor` prints, as plain values.

    targets {"cpu", "cuda", "hip": bool}, kernels {folder, files, manifest}, versions, drivers {kind:
    {devices, why}}, gpus, nics, limits, missing [{what, needed_for, get}], errors {question: what went
    wrong}.
    """
    errors: dict[str, str] = {}

    def ask(question: str, answer: Callable[[], Any], otherwise: Any) -> Any:
        try:
            return answer()
        except Exception as error:  # the one place where every failure is an answer
            errors[question] = f"{type(error).__name__}: {error}"
            return otherwise

    kernels = ask("kernels", _kernels, {"folder": "", "files": [], "manifest": None})
    report: dict[str, Any] = {
        "targets": {name: bool(_matching(kernels["files"], pattern)) for name, pattern in _PATTERNS.items()},
        "kernels": kernels,
        "versions": ask("versions", _versions, {}),
        "drivers": ask("drivers", _drivers, {}),
        "gpus": ask("gpus", _gpus, []),
        "nics": ask("nics", _nics, []),
        "limits": ask("limits", _limits, {}),
        "environment": ask("environment", _environment, {}),
    }
    report["missing"] = ask("missing", lambda: _missing(report), [])
    report["errors"] = errors
    return report


def _matching(files: list[str], pattern: str) -> list[str]:
    return [name for name in files if Path(name).match(pattern)]


def _kernels() -> dict[str, Any]:
    from . import config

    folder = Path(config.load().kernel_dir or _kernel_folder())
    files = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    manifest = folder / "manifest.json"
    return {
        "folder": str(folder),
        "files": [
            name for name in files if any(Path(name).match(p) for p in ("*.so", "*.fatbin", "*.hsaco"))
        ],
        "manifest": json.loads(manifest.read_text()) if manifest.is_file() else None,
    }


def _kernel_folder() -> Path:
    """kernels/ beside the extension, which an editable install may keep apart from the Python sources."""
    try:
        from . import _core

        return Path(_core.__file__).with_name("kernels")
    except ImportError:
        return Path(__file__).with_name("kernels")


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {"python": platform.python_version(), "system": platform.platform()}
    for name in ("mori-comm", "torch", "numpy", "mpi4py", "matplotlib"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def _drivers() -> dict[str, dict[str, Any]]:
    from . import _core

    found = {}
    for kind in ("cuda", "hip"):
        devices, why = _core.device_count(kind)
        found[kind] = {"devices": devices, "why": why}
    return found


def _gpus() -> list[dict[str, Any]]:
    from . import _core

    found = []
    for kind in ("cuda", "hip"):
        for ordinal in range(_core.device_count(kind)[0]):
            properties = _core.open_device(kind, ordinal).properties
            found.append(
                {
                    "kind": kind,
                    "ordinal": ordinal,
                    "name": properties.name,
                    "arch": properties.arch,
                    "pci": properties.pci_bus_id,
                    "memory_bytes": properties.memory_bytes,
                }
            )
    return found


def _nics() -> list[dict[str, Any]]:
    from . import topology

    fields = ("name", "pci", "driver", "link_state", "state", "gbit_per_s", "numa_node")
    return [{key: getattr(nic, key) for key in fields if hasattr(nic, key)} for nic in topology.read().nics]


def _limits() -> dict[str, Any]:
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    shm = shutil.disk_usage("/dev/shm") if Path("/dev/shm").is_dir() else None
    return {
        "memlock_bytes": None if soft == resource.RLIM_INFINITY else soft,
        "open_files": files,
        "shm_bytes": shm.total if shm else 0,
        "shm_free_bytes": shm.free if shm else 0,
    }


def _environment() -> dict[str, Any]:
    from . import config

    config.load()  # a bad value is what this question is for
    return {"not_read": list(config.unknown())}


def _missing(report: dict[str, Any]) -> list[dict[str, str]]:
    out = []

    def add(what: str, needed_for: str, get: str) -> None:
        out.append({"what": what, "needed_for": needed_for, "get": get})

    told = (report["kernels"].get("manifest") or {}).get("missing") or {}
    for target, built in report["targets"].items():
        if built:
            continue
        said = told.get(target) if isinstance(told, dict) else None
        reason = f" ({said['reason']})" if isinstance(said, dict) and said.get("reason") else ""
        remedy = said["remedy"] if isinstance(said, dict) and said.get("remedy") else _REMEDIES[target]
        whom = {"cpu": "everything", "cuda": "NVIDIA GPUs", "hip": "AMD GPUs"}[target]
        add(f"{target} kernels{reason}", whom, remedy)
    versions = report["versions"]
    if versions and not versions.get("torch"):
        add("torch", "mori.ep and mori bench", _REMEDIES["torch"])
    for name, use in _OPTIONAL.items():
        if versions and not versions.get(name):
            add(name, use, _REMEDIES[name])
    locked = report["limits"].get("memlock_bytes")
    if report["nics"] and locked is not None and locked < 1 << 30:
        add(
            f"locked memory beyond {locked} bytes",
            "RDMA",
            "ulimit -l unlimited   (containers: --ulimit memlock=-1)",
        )
    return out


def print_report(*, as_json: bool = False, file: IO[str] | None = None) -> None:
    """Prints the examination: JSON for programs, tables for people."""
    report = examine()
    if as_json:
        print(json.dumps(report, indent=2, default=str), file=file or sys.stdout)
        return
    from rich.console import Console

    console = Console(file=file)
    for heading, rows in _sections(report):
        console.print(heading, style="bold")
        for row in rows:
            console.print(f"  {row}", markup=False, highlight=False, soft_wrap=True)


def _sections(report: dict[str, Any]) -> list[tuple[str, list[str]]]:
    limits, kernels = report["limits"], report["kernels"]
    targets = []
    for target, built in report["targets"].items():
        files = len(_matching(kernels["files"], _PATTERNS[target]))
        driver = report["drivers"].get(target, {})
        devices = (
            f"{driver['devices']} devices{': ' + driver['why'] if driver.get('why') else ''}"
            if driver
            else "this CPU"
        )
        if not driver and target != "cpu":
            devices = "driver not asked"
        targets.append(
            f"{target:<5} {'built (' + str(files) + ' files)' if built else 'NOT BUILT':<18} {devices}"
        )
    out = [("targets", targets)]
    gpus = [
        f"{g['kind']}:{g['ordinal']} {g['name']} {g['arch']} {g['pci']} {_size(g['memory_bytes'])}"
        for g in report["gpus"]
    ]
    out.append(("GPUs", gpus or ["none"]))
    out.append(
        (
            "NICs",
            ["  ".join(f"{v}" for v in nic.values() if v not in ("", None)) for nic in report["nics"]]
            or ["none"],
        )
    )
    out.append(
        ("versions", [f"{name} {version or 'not installed'}" for name, version in report["versions"].items()])
    )
    if limits:
        locked = "unlimited" if limits["memlock_bytes"] is None else _size(limits["memlock_bytes"])
        shm = f"{_size(limits['shm_free_bytes'])} of {_size(limits['shm_bytes'])} free"
        out.append(
            (
                "limits",
                [f"locked memory {locked}", f"shared memory {shm}", f"open files {limits['open_files']}"],
            )
        )
    unread = report["environment"].get("not_read")
    if unread:
        out.append(("set, but not read by MoRI", [", ".join(unread)]))
    missing = [f"{m['what']}, for {m['needed_for']}\n      {m['get']}" for m in report["missing"]]
    out.append(("missing", missing or ["nothing"]))
    if report["errors"]:
        out.append(("could not be answered", [f"{what}: {why}" for what, why in report["errors"].items()]))
    return out


def _size(count: int) -> str:
    value, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f} {unit}"
