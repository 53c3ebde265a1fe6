# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Where and with what a report was made: the machine, the commit and the version."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

from ..errors import ConfigError

__all__ = ["commit", "gpu_count", "machine", "version"]


def machine() -> str:
    return f"{_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}"


def version() -> str:
    try:
        return importlib.metadata.version("mori-comm")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def gpu_count() -> int:
    """Of this host, as torch sees them; ConfigError without torch."""
    try:
        import torch
    except ImportError:
        raise ConfigError("device='cuda': torch is not installed") from None
    return int(torch.cuda.device_count())


def commit() -> str:
    """The commit of the checkout that this file lies in, with "+" if changed; empty outside of one."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        found = subprocess.run(
            [*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, timeout=5, check=True
        )
        dirty = subprocess.run(
            [*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return found.stdout.strip() + ("+" if dirty.stdout.strip() else "")


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
