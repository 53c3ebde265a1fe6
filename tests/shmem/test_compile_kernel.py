# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""mori.compile_kernel: what is compiled again and what is not, what is refused, and that the kernels run."""

from __future__ import annotations

import concurrent.futures
import ctypes
import logging
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mori._hsaco import argument_bytes
from mori._toolchain import Target as ToolTarget
from mori._toolchain import Toolchain
from mori.compiler import compile_object
from mori.errors import ConfigError
from mori.shmem.structs import Team, World
from mori.testing import run_ranks
from shmem_ranks import Target

import mori
from mori import _core

pytestmark = pytest.mark.timeout(120)
KERNELS = Path(__file__).parent / "kernels"
Compile = Callable[..., Any]


class AddArgs(ctypes.Structure):
    _fields_ = (("values", ctypes.c_uint64), ("count", ctypes.c_uint32), ("term", ctypes.c_uint32))


class ReachArgs(ctypes.Structure):
    _fields_ = (("world", World), ("slots", ctypes.c_uint64))


@pytest.fixture
def device(target: Target) -> Any:
    return _core.open_device(target.kind, 0, cpu_lanes=target.lanes)


@pytest.fixture
def cpu() -> Any:
    return _core.open_device("cpu", 0)


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """add.cpp with its header, in a folder with an empty cache beside it."""
    monkeypatch.setenv("MORI_KERNEL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "addend.hpp").write_text("inline constexpr unsigned kAddend = 1000;\n")
    return Path(shutil.copy(KERNELS / "add.cpp", tmp_path))


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Grows by a source file whenever a compiler runs."""
    from mori import _toolchain

    runs: list[Path] = []
    run = _toolchain.Toolchain.run

    def counted(self: Any, command: Any, source: Path) -> str:
        runs.append(source)
        return run(self, command, source)

    monkeypatch.setattr(_toolchain.Toolchain, "run", counted)
    return runs


def sums(module: Any, term: int = 7) -> set[int]:
    """What `add` makes of a thousand zeros."""
    device = module.core_device
    values = np.zeros(1000, np.uint32)
    memory = device.allocate(values.nbytes)
    try:
        module.kernel("add").launch(AddArgs(memory, values.size, term), blocks=3, warps=2)
        device.synchronize()
        device.copy(values.ctypes.data, memory, values.nbytes)
    finally:
        device.free(memory)
    return set(values.tolist())


def test_it_compiles_and_runs(source: Path, device: Any) -> None:
    assert sums(mori.compile_kernel(source, device=device)) == {1007}


def test_it_is_compiled_for_the_devices_lanes(source: Path, device: Any) -> None:
    module = mori.compile_kernel(source, device=device)
    memory = device.allocate(4)
    module.kernel("warp_size").launch(bytes(AddArgs(memory, 1, 0)))
    device.synchronize()
    found = np.zeros(1, np.uint32)
    device.copy(found.ctypes.data, memory, 4)
    device.free(memory)
    assert found[0] == device.properties.warp_size


def test_the_second_time_nothing_is_compiled(source: Path, cpu: Any, compilations: list[Path]) -> None:
    first, second = (mori.compile_kernel(source, device=cpu) for _ in range(2))
    assert compilations == [source] and first.path == second.path


def test_defines_and_flags_are_of_the_key(source: Path, cpu: Any, compilations: list[Path]) -> None:
    assert sums(mori.compile_kernel(source, device=cpu, defines={"EXTRA": 500})) == {1507}
    assert sums(mori.compile_kernel(source, device=cpu)) == {1007}
    assert sums(mori.compile_kernel(source, device=cpu, flags=["-UEXTRA", "-DEXTRA=30"])) == {1037}
    assert len(compilations) == 3


def test_a_changed_header_is_seen_and_the_old_one_remembered(source: Path, cpu: Any, compilations: list[Path]) -> None:
    header = source.parent / "addend.hpp"
    old = header.read_text()
    assert sums(mori.compile_kernel(source, device=cpu)) == {1007}
    header.write_text("inline constexpr unsigned kAddend = 2000;\n")
    assert sums(mori.compile_kernel(source, device=cpu)) == {2007}
    header.write_text(old)
    assert sums(mori.compile_kernel(source, device=cpu)) == {1007}
    assert len(compilations) == 2


def test_headers_come_from_include_dirs(source: Path, cpu: Any, compilations: list[Path]) -> None:
    folder = source.parent / "headers"
    folder.mkdir()
    (source.parent / "addend.hpp").rename(folder / "addend.hpp")
    assert sums(mori.compile_kernel(source, device=cpu, include_dirs=[folder])) == {1007}


@pytest.mark.parametrize("damage", ["object", "record", "no object"])
def test_a_damaged_entry_is_compiled_again(source: Path, cpu: Any, compilations: list[Path], damage: str) -> None:
    path = mori.compile_kernel(source, device=cpu).path
    if damage == "no object":
        path.unlink()
    else:
        broken = path if damage == "object" else path.with_suffix(".json")
        broken.write_bytes(broken.read_bytes()[:200])
    assert sums(mori.compile_kernel(source, device=_core.open_device("cpu", 0))) == {1007}
    assert len(compilations) == 2


def test_many_at_once_compile_once(source: Path, cpu: Any, compilations: list[Path]) -> None:
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda _: mori.compile_kernel(source, device=cpu).path, range(6)))
    assert len(set(found)) == 1 and compilations == [source]


def reach(rank: int, world_size: int, uid: bytes, source: Path, cache: Path) -> list[int]:
    import torch

    os.environ["MORI_KERNEL_CACHE"] = str(cache)
    with mori.init(uid=uid, rank=rank, world_size=world_size, device="cpu", heap_bytes=1 << 20, timeout=30) as ctx:
        slots = ctx.empty((world_size,), torch.int32, fill=0)
        assert (ctx.world.rank, ctx.world.world_size) == (rank, world_size)
        mori.compile_kernel(source, device=ctx).kernel("reach").launch(ReachArgs(ctx.world, slots.data_ptr()))
        ctx.barrier()
        return [int(slot) for slot in slots]


def test_ranks_compile_once_and_reach_each_other(source: Path, tmp_path: Path) -> None:
    assert run_ranks(reach, 3, source, tmp_path / "cache") == [[1, 2, 3]] * 3
    assert len(list((tmp_path / "cache").rglob("*.so"))) == 1


def test_the_compilers_words(source: Path, cpu: Any) -> None:
    source.write_text(source.read_text().replace("args.term", "args.turm"))
    with pytest.raises(ConfigError, match=r"add\.cpp does not compile for the CPU with lanes=1 (.|\n)*turm") as raised:
        mori.compile_kernel(source, device=cpu)
    assert "command: " in str(raised.value)


def test_warnings_are_logged(source: Path, cpu: Any, caplog: pytest.LogCaptureFixture) -> None:
    source.write_text(source.read_text() + "\n#warning look here\n")
    with caplog.at_level(logging.WARNING, "mori"):
        mori.compile_kernel(source, device=cpu)
    assert "look here" in caplog.text


def test_no_compiler(source: Path, cpu: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"no compiler of kernels for cpu found .*apt-get install g\+\+"):
        mori.compile_kernel(source, device=cpu)
    monkeypatch.setenv("CXX", "no-such-compiler -O1")
    with pytest.raises(ConfigError, match="CXX='no-such-compiler -O1': there is no no-such-compiler"):
        mori.compile_kernel(source, device=cpu)


def test_what_is_refused_before_compiling(source: Path, cpu: Any) -> None:
    with pytest.raises(ConfigError, match=r"source='.*/nowhere\.cpp': there is no such file"):
        mori.compile_kernel("nowhere.cpp", device=cpu)
    with pytest.raises(ConfigError, match=r"include_dirs: .*/absent is not a folder"):
        mori.compile_kernel(source, device=cpu, include_dirs=[source.parent / "absent"])
    with pytest.raises(ConfigError, match=r"device='cuda:0': a mori\.Context, a device"):
        mori.compile_kernel(source, device="cuda:0")


def test_a_cache_that_others_can_write_is_refused(source: Path, cpu: Any, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(0o777)
    with pytest.raises(ConfigError, match=r"cache of kernels .*mode 777.* can be written by others"):
        mori.compile_kernel(source, device=cpu)


def test_an_unknown_kernel_lists_those_there_are(source: Path, device: Any) -> None:
    with pytest.raises(ConfigError, match=r"no kernel adder in .*; it has: add, (warp_size, reach|reach, warp_size)"):
        mori.compile_kernel(source, device=device).kernel("adder")


def test_arguments_of_another_size(source: Path, device: Any) -> None:
    kernel = mori.compile_kernel(source, device=device).kernel("add")
    assert kernel.args_bytes == 16
    for wrong in (b"", bytes(15), bytes(17), World()):
        with pytest.raises(ConfigError, match=r"takes (an argument block of 16 bytes|16 bytes of arguments)"):
            kernel.launch(wrong)


@pytest.mark.parametrize("shape", [{"blocks": 0}, {"blocks": -1}, {"warps": 0}, {"warps": 5000}, {"shared_bytes": -1}])
def test_shapes_that_no_device_has(source: Path, cpu: Any, shape: dict[str, int]) -> None:
    kernel = mori.compile_kernel(source, device=cpu).kernel("add")
    with pytest.raises(ConfigError, match=f"{next(iter(shape))}={next(iter(shape.values()))} must lie between"):
        kernel.launch(AddArgs(), **shape)


def test_a_code_object_for_other_lanes(source: Path, cpu: Any) -> None:
    wide = _core.open_device("cpu", 0, cpu_lanes=32)
    path = mori.compile_kernel(source, device=wide).path
    with pytest.raises(ConfigError, match=r"lanes=32; this library needs interface \d+, lanes=1"):
        cpu.function_of(str(path), "add")


def test_a_code_object_of_another_interface(source: Path, cpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    headers = source.parent / "include"
    shutil.copytree(mori.include_dir(), headers)
    abi = headers / "src/core/device/cpu_abi.hpp"
    abi.write_text(re.sub(r"kMoriCpuAbi = \d+", "kMoriCpuAbi = 77", abi.read_text()))
    monkeypatch.setattr("mori.compiler.include_dir", lambda: headers)
    module = mori.compile_kernel(source, device=cpu)
    with pytest.raises(ConfigError, match="built for interface 77"):
        module.kernel("add")


def test_not_a_code_object(cpu: Any, tmp_path: Path) -> None:
    (tmp_path / "some.so").write_text("text")
    with pytest.raises(ConfigError, match=r"cannot load the CPU kernels: .*some\.so"):
        cpu.function_of(str(tmp_path / "some.so"), "add")


def test_structs_have_the_cores_layout(make_ranks: Callable[..., Any]) -> None:
    ranks = make_ranks(2)
    world = World.from_buffer_copy(ranks.world(1))
    assert (world.rank, world.world_size, world.error) == (1, 2, ranks.errors[1].device)
    assert ctypes.sizeof(Team) == 40


OTHERS = {
    "sm_90": ToolTarget("cuda", "sm_90", 32),
    "newer": ToolTarget("cuda", "sm_900", 32),
    "gfx942": ToolTarget("hip", "gfx942", 64),
}


@pytest.mark.parametrize("other", OTHERS)
def test_it_compiles_for_gpus_that_are_not_here(source: Path, other: str) -> None:
    target = OTHERS[other]
    try:
        Toolchain(target)
    except ConfigError as missing:
        pytest.skip(str(missing))
    compiled = compile_object(source, target)
    told = () if other == "newer" else ("add", "reach", "warp_size")  # of PTX alone nvcc reports nothing
    assert compiled.kernels == told and compiled.path.suffix == target.ending
    again = compile_object(source, target)
    assert again.path == compiled.path and not again.fresh
    if target.kind == "hip":
        assert argument_bytes(compiled.path.read_bytes()) == {"add": 16, "warp_size": 16, "reach": 48}
    source.write_text(source.read_text().replace("args.term", "args.turm"))
    with pytest.raises(ConfigError, match=rf"does not compile for {target.kind} {target.arch} (.|\n)*turm"):
        compile_object(source, target)


def test_only_code_objects_of_amd_have_their_metadata() -> None:
    assert argument_bytes(b"") == argument_bytes(b"\x7fELF\x02\x01" + bytes(100)) == {}
    assert argument_bytes(Path(_core.__file__).read_bytes()) == {}
