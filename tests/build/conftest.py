# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Where the installed package's code objects are, and the device compilers for planted kernels."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from build_support import HIP_FLAGS, ROOT


@pytest.fixture(scope="session")
def kernel_dir() -> Path:
    """Folder of the installed code objects: beside _core, wherever the Python sources are."""
    import mori._core

    return Path(mori._core.__file__).parent / "kernels"


@pytest.fixture(scope="session")
def manifest(kernel_dir: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((kernel_dir / "manifest.json").read_text())
    return found


@pytest.fixture(scope="session")
def hip_clang(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A clang that makes AMD code objects."""
    names = ["/opt/rocm/llvm/bin/clang++", *(f"clang++-{v}" for v in range(23, 17, -1))]
    for name in names:
        if not shutil.which(name):
            continue
        out = tmp_path_factory.mktemp("probe") / "probe.hsaco"
        probe = [name, *HIP_FLAGS, "--offload-arch=gfx942", f"-I{ROOT}", f"-o{out}"]
        run = subprocess.run([*probe, ROOT / "cmake/probe.kernel.cpp"], capture_output=True, timeout=60)
        if run.returncode == 0:
            return name
    pytest.skip("no clang with the AMDGPU back end and lld (apt-get install clang-22 lld-22)")


@pytest.fixture(scope="session")
def nvcc() -> str:
    found = shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")
    if not found:
        pytest.skip("no nvcc")
    return found
