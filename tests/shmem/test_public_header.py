# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""What docs/shmem.md, docs/shmem_guide.md and docs/blocks.md show compiles, without a warning, for every target whose
compiler is here; so do a kernel that uses every name of mori/shmem.hpp by every group, and the kernels that test
mori/blocks.hpp."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EVERY_NAME = """
#include <mori/shmem.hpp>
namespace mori {
struct EveryArgs {
  World world;
  shmem::Team team;
  uint64_t to, from, signal;
};
using namespace shmem;
template <class Group, class T>
MORI_DEVICE bool every(const EveryArgs &a, const Group &group, T value) {
  const Ctx ctx(a.world, 0);
  const uint32_t pe = (my_pe(ctx) + 1) % n_pes(ctx);
  T *to = global<T>(a.to);
  const T *from = global<const T>(a.from);
  uint64_t *sig = global<uint64_t>(a.signal);
  put(group, a.world, to, from, 3, pe);
  put_nbi(group, ctx, to, from, 3, pe);
  get(group, ctx, to, from, 3, pe);
  iput(group, ctx, to, from, 2, 3, 5, pe);
  iget(group, ctx, to, from, 2, 3, 5, pe);
  p(ctx, to, value, pe);
  value = g(ctx, from, pe);
  put_signal(group, ctx, to, from, 1, sig, 1, SignalOp::set, pe);
  put_signal_nbi(group, ctx, to, from, 9, sig, 1, SignalOp::add, pe);
  fence(group, ctx);
  quiet(group, ctx, pe);
  signal_op(ctx, sig, uint64_t(1), SignalOp::add, pe);
  uint64_t seen;
  if (!signal_wait_until(group, ctx, sig, Cmp::ge, 1, pe, &seen))
    return false;
  if constexpr (sizeof(T) == 4 || sizeof(T) == 8) {
    atomic_set(ctx, to, value, pe);
    value = atomic_swap(ctx, to, value, pe);
    atomic_add(ctx, to, value, pe);
    value = atomic_fetch(ctx, to, pe);
    if constexpr (kIsInteger<T>) {
      atomic_inc(ctx, to, pe);
      atomic_and(ctx, to, value, pe);
      atomic_or(ctx, to, value, pe);
      atomic_xor(ctx, to, value, pe);
      value = atomic_compare_swap(ctx, to, value, T(2), pe);
      T f;
      atomic_fetch_add_nbi(ctx, &f, to, value, pe);
      size_t index, count;
      size_t *indices = global<size_t>(a.signal);
      if (!wait_until(group, ctx, to, Cmp::ne, value))
        return false;
      if (test(group, ctx, to, Cmp::lt, value))
        return false;
      if (!wait_until_all(group, ctx, to, 4, nullptr, Cmp::eq, value) ||
          !wait_until_any(group, ctx, to, 4, nullptr, Cmp::eq, value, index) ||
          !wait_until_some(group, ctx, to, 4, indices, nullptr, Cmp::eq, value,
                           count))
        return false;
      if (!wait_until_all_vector(group, ctx, to, 4, nullptr, Cmp::eq, from) ||
          !wait_until_any_vector(group, ctx, to, 4, nullptr, Cmp::eq, from,
                                 index) ||
          !wait_until_some_vector(group, ctx, to, 4, indices, nullptr, Cmp::eq,
                                  from, count))
        return false;
      if (test_all(group, ctx, to, 4, nullptr, Cmp::eq, value) &&
          test_any(group, ctx, to, 4, nullptr, Cmp::eq, value) +
                  test_some(group, ctx, to, 4, indices, nullptr, Cmp::eq,
                            value) ==
              3)
        return false;
      if (!and_reduce(group, ctx, a.team, to, from, 7) ||
          !or_reduce(group, ctx, a.team, to, from, 7) ||
          !xor_reduce(group, ctx, a.team, to, from, 7))
        return false;
    }
  }
  return sync(group, ctx, a.team) && barrier(group, ctx, a.team) &&
         broadcast(group, ctx, a.team, to, from, 3, 0) &&
         fcollect(group, ctx, a.team, to, from, 3) &&
         alltoall(group, ctx, a.team, to, from, 3) &&
         sum_reduce(group, ctx, a.team, to, from, 3) &&
         prod_reduce(group, ctx, a.team, to, from, 3) &&
         min_reduce(group, ctx, a.team, to, from, 3) &&
         max_reduce(group, ctx, a.team, to, from, 3);
}
MORI_KERNEL(every_name, EveryArgs, 256) {
  if (!every(args, Thread{}, 1)) return;
  if (!every(args, shmem::Warp{}, uint64_t(1))) return;
  if (!every(args, mori::Block{shared_memory<uint32_t>()}, 1.0f)) return;
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
    """All kernels of the pages, as one file: their names differ."""
    pages = [(ROOT / "docs" / page).read_text() for page in ("shmem.md", "shmem_guide.md", "blocks.md")]
    blocks = [block.split("```", 1)[0] for page in pages for block in page.split("```cpp\n")[1:]]
    assert len(blocks) == 9
    return "\n".join(blocks)


def of_blocks(name: str) -> str:
    return "#define FORMAT E4m3fn\n" + (ROOT / "tests/device/kernels" / name).read_text()


SOURCES: dict[str, Callable[[], str]] = {
    "documented": documented,
    "every-name": lambda: EVERY_NAME,
    "blocks": lambda: of_blocks("blocks.cpp"),
    "blocks-reduce": lambda: of_blocks("blocks_reduce.cpp"),
    "blocks-flags": lambda: of_blocks("blocks_flags.cpp"),
}


@pytest.mark.timeout(100)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("source", SOURCES)
def test_it_compiles(tmp_path: Path, source: str, target: str) -> None:
    command = TARGETS[target]
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    file = tmp_path / "kernel.cpp"
    file.write_text(SOURCES[source]())
    done = subprocess.run(
        [*command, "-std=c++20", "-I", str(ROOT), "-I", str(ROOT / "tests/device/kernels"), str(file)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
