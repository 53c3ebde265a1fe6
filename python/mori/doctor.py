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
    "torch": "pip install torch   (its CPU build where there is no GPU)",
    "matplotlib": "pip install 'mori-comm[bench]'",
    "mpi4py": "apt-get install libopenmpi-dev openmpi-bin && pip install 'mori-comm[mpi]'",
}
_OPTIONAL = {
    "matplotlib": "mori bench --plot",
    "mpi4py": "mori.init(comm=...) and mori bench --peers mpi",
}


def examine() -> dict[str, Any]:
    """Everything that `mori doctor` prints, as plain values.

    targets {"cpu", "cuda", "hip": bool}, kernels {folder, files}, built {target: compiler, or what was
    missing}, versions, drivers {kind: {devices, why}}, gpus, nics, rdma {devices, why}, posting [{what, found, do}],
    limits, environment, missing [{what, needed_for, get}], errors {question: what went wrong}.
    """
    errors: dict[str, str] = {}

    def ask(question: str, answer: Callable[[], Any], otherwise: Any) -> Any:
        try:
            return answer()
        except Exception as error:  # the one place where every failure is an answer
            errors[question] = f"{type(error).__name__}: {error}"
            return otherwise

    kernels = ask("kernels", _kernels, {"folder": "", "files": []})
    report: dict[str, Any] = {
        "targets": {name: bool(_matching(kernels["files"], pattern)) for name, pattern in _PATTERNS.items()},
        "kernels": kernels,
        "built": ask("built", lambda: _manifest(kernels["folder"]), {}),
        "versions": ask("versions", _versions, {}),
        "drivers": ask("drivers", _drivers, {}),
        "gpus": ask("gpus", _gpus, []),
        "nics": ask("nics", _nics, []),
        "rdma": ask("rdma", _rdma, {"devices": [], "why": ""}),
        "posting": ask("posting", _posting, []),
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
    names = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    kinds = {".so", ".fatbin", ".hsaco"}
    return {"folder": str(folder), "files": [name for name in names if Path(name).suffix in kinds]}


def _manifest(folder: str) -> dict[str, Any]:
    """What the build wrote beside its kernels: compilers, architectures, and why a target is missing."""
    file = Path(folder, "manifest.json")
    found = json.loads(file.read_text()) if folder and file.is_file() else {}
    return {name: dict(target) for name, target in found.get("targets", {}).items()}


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

    return [
        {"name": nic.name, "pci": nic.pci, "active": nic.active, "gbit_per_s": nic.gbit_per_s}
        for nic in topology.read().nics
    ]


def _rdma() -> dict[str, Any]:
    """Each RDMA device opened as the transfer engine would: address, MTU, or what is in the way."""
    from . import _core, config

    devices, why = _core.io.rdma_examine(config.load().rdma_devices)
    return {"devices": devices, "why": why}


def _posting() -> list[dict[str, str]]:
    """Whether kernels could post to the NICs (IBGDA)."""
    from . import _doctor_nics

    return _doctor_nics.examine()


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

    for target, built in report["targets"].items():
        if not built:
            said = report["built"].get(target, {})
            reason = f" ({said['missing']})" if said.get("missing") else ""
            whom = {"cpu": "everything", "cuda": "NVIDIA GPUs", "hip": "AMD GPUs"}[target]
            add(f"{target} kernels{reason}", whom, said.get("remedy") or _REMEDIES[target])
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
    """Headings with their lines, for people."""
    out = [
        ("targets", [_target_line(report, target) for target in report["targets"]]),
        ("GPUs", [_gpu_line(gpu) for gpu in report["gpus"]] or ["none"]),
        ("NICs", [_nic_line(nic) for nic in report["nics"]] or ["none"]),
        ("RDMA", [_rdma_line(device) for device in report["rdma"]["devices"]] or [report["rdma"]["why"]]),
        ("kernels that post to NICs", [_posting_line(check) for check in report["posting"]]),
        (
            "versions",
            [f"{name} {version or 'not installed'}" for name, version in report["versions"].items()],
        ),
        ("limits", _limit_lines(report["limits"])),
        ("set, but not read by MoRI", report["environment"].get("not_read", [])),
        ("missing", [f"{m['what']}, for {m['needed_for']}\n      {m['get']}" for m in report["missing"]]),
        ("could not be answered", [f"{what}: {why}" for what, why in report["errors"].items()]),
    ]
    return [(heading, rows or ["nothing"]) for heading, rows in out if rows or heading == "missing"]


def _target_line(report: dict[str, Any], target: str) -> str:
    files = len(_matching(report["kernels"]["files"], _PATTERNS[target]))
    built = f"built ({files} files)" if files else "NOT BUILT"
    driver = report["drivers"].get(target)
    if target == "cpu":
        found = "this CPU"
    elif driver is None:
        found = "driver not asked"
    else:
        found = f"{driver['devices']} devices" + (f": {driver['why']}" if driver["why"] else "")
    return f"{target:<5} {built:<18} {found}"


def _gpu_line(gpu: dict[str, Any]) -> str:
    memory = _size(gpu["memory_bytes"])
    return f"{gpu['kind']}:{gpu['ordinal']} {gpu['name']} {gpu['arch']} {gpu['pci']} {memory}"


def _nic_line(nic: dict[str, Any]) -> str:
    state = f"{nic['gbit_per_s']:g} Gbit/s" if nic["active"] else "no active port"
    return f"{nic['name']} {nic['pci'] or 'software'} {state}"


def _rdma_line(device: dict[str, Any]) -> str:
    state = device["problem"] or f"{device['address']}, MTU {device['mtu']}"
    return f"{device['name']} {state}"


def _posting_line(check: dict[str, str]) -> str:
    return f"{check['what']}: {check['found']}" + (f"\n      {check['do']}" if check["do"] else "")


def _limit_lines(limits: dict[str, Any]) -> list[str]:
    if not limits:
        return []
    locked = "unlimited" if limits["memlock_bytes"] is None else _size(limits["memlock_bytes"])
    shm = f"{_size(limits['shm_free_bytes'])} of {_size(limits['shm_bytes'])} free"
    return [f"locked memory {locked}", f"shared memory {shm}", f"open files {limits['open_files']}"]


def _size(count: int) -> str:
    value, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f} {unit}"
