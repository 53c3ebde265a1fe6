# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""What docs/shmem.md shows compiles, without a warning, for every target whose compiler is here; and so does
a kernel that uses every name of mori/shmem.hpp by every group."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EVERY_NAME = """
#include <mori/shmem.hpp>

namespace mori {
struct EveryArgs {
  World world;
  shmem::BarrierState state;
  uint64_t to, from, signal;
};

template <class Group>
MORI_DEVICE bool every(const EveryArgs& a, const Group& group) {
  const uint32_t peer = (shmem::my_pe(a.world) + 1) % shmem::n_pes(a.world);
  *shmem::ptr(a.world, global<double>(a.to), peer) = 1;
  shmem::put(group, a.world, global<float>(a.to), global<const float>(a.from), 12, peer);
  shmem::put_signal(group, a.world, nullptr, nullptr, 0, global<uint64_t>(a.signal), 1, peer);
  return shmem::signal_wait_until(group, a.world, global<uint64_t>(a.signal), 1, peer) &&
         shmem::barrier(group, a.world, a.state);
}

MORI_KERNEL(every_name, EveryArgs, 256) {
  if (!every(args, Thread{})) return;
  if (!every(args, shmem::Warp{})) return;
  if (!every(args, mori::Block{shared_memory<uint32_t>()})) return;
}
}  // namespace mori
"""
CPU = ["g++", "-x", "c++", "-fsyntax-only", "-Wall", "-Wextra", "-Wshadow", "-Werror"]
HIP = [
    "clang++-22",
    "-x",
    "hip",
    "--cuda-device-only",
    "-nogpuinc",
    "-nogpulib",
    "-fsyntax-only",
    "-Wall",
    "-Wextra",
]
CUDA = ["nvcc", "-x", "cu", "-arch=sm_90", "-ptx", "-o", "/dev/null", "-Werror", "all-warnings"]
TARGETS = {
    "w1": [*CPU, "-DMORI_CPU_WARP=1"],
    "w32": [*CPU, "-DMORI_CPU_WARP=32"],
    "w64": [*CPU, "-DMORI_CPU_WARP=64"],
    "hip": [*HIP, "-Wextra", "-Wshadow", "-Werror", "--offload-arch=gfx942"],
    "cuda": CUDA,
}


def documented() -> str:
    text = (ROOT / "docs/shmem.md").read_text()
    return text.split("```cpp\n", 1)[1].split("```", 1)[0]


@pytest.mark.timeout(100)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("source", ["documented", "every-name"])
def test_it_compiles(tmp_path: Path, source: str, target: str) -> None:
    command = TARGETS[target]
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    file = tmp_path / "kernel.cpp"
    file.write_text(documented() if source == "documented" else EVERY_NAME)
    done = subprocess.run(
        [*command, "-std=c++20", "-I", str(ROOT), str(file)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
