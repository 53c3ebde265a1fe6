# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Loading code objects of the CPU: what is refused, and that the words say which file and why."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from mori.errors import ConfigError

import mori
from mori import _core

pytestmark = pytest.mark.timeout(60)
KERNELS = Path(_core.__file__).parent / "kernels"
ROOT = Path(__file__).resolve().parents[2]


def compile_object(folder: Path, source: str, *extra: str) -> Path:
    """cpu_w1.so of one source text and whatever files are named."""
    (folder / "object.cpp").write_text(source)
    command = ["g++", "-std=c++20", "-shared", "-fPIC", "-fvisibility=hidden", "-I", str(ROOT), *extra]
    subprocess.run([*command, str(folder / "object.cpp"), "-o", str(folder / "cpu_w1.so")], check=True, timeout=60)
    return folder


def test_kernels_are_found_beside_the_library() -> None:
    assert Path(mori.__file__).name == "__init__.py"
    assert _core.open_device("cpu").function("selftest", "selftest_nop", 72).name == "selftest_nop"


def test_a_missing_folder_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"{tmp_path}/cpu_w32\.so does not exist"):
        _core.open_device("cpu", 0, str(tmp_path), 32)


def test_an_unknown_kernel_lists_those_there_are(cpu_lab: Any) -> None:
    with pytest.raises(ConfigError, match=r"no kernel nosuch \(unit selftest\).*selftest_nop.*selftest_copy"):
        cpu_lab.device.function("selftest", "nosuch", 72)


@pytest.mark.parametrize("bytes_", [0, 71, 80])
def test_another_argument_block_is_refused(cpu_lab: Any, bytes_: int) -> None:
    for _ in range(2):
        with pytest.raises(ConfigError, match=f"argument block of 72 bytes, not {bytes_}"):
            cpu_lab.device.function("selftest", "selftest_nop", bytes_)
        cpu_lab.device.function("selftest", "selftest_nop", 72)


def test_functions_are_cached(cpu_lab: Any) -> None:
    first = cpu_lab.device.function("selftest", "selftest_nop", 72)
    assert cpu_lab.device.function("selftest", "selftest_nop", 72) is first
    assert (first.name, first.args_bytes) == ("selftest_nop", 72)


def test_not_a_library(tmp_path: Path) -> None:
    (tmp_path / "cpu_w1.so").write_text("nothing")
    with pytest.raises(ConfigError, match="cannot load the CPU kernels"):
        _core.open_device("cpu", 0, str(tmp_path))


def test_a_library_of_something_else(tmp_path: Path) -> None:
    folder = compile_object(tmp_path, 'extern "C" __attribute__((visibility("default"))) int other() { return 0; }')
    with pytest.raises(ConfigError, match="lacks mori_cpu_object"):
        _core.open_device("cpu", 0, str(folder))


def test_an_object_for_other_lanes(tmp_path: Path) -> None:
    shutil.copy(KERNELS / "cpu_w32.so", tmp_path / "cpu_w64.so")
    with pytest.raises(ConfigError, match=r"built for interface \d+, lanes=32"):
        _core.open_device("cpu", 0, str(tmp_path), 64)


def test_an_object_of_another_interface(tmp_path: Path) -> None:
    source = """
#include "src/core/device/cpu_abi.hpp"
extern "C" __attribute__((visibility("default"))) MoriCpuObject mori_cpu_object() { return {99, 1, 0, 0}; }
"""
    with pytest.raises(ConfigError, match="built for interface 99"):
        _core.open_device("cpu", 0, str(compile_object(tmp_path, source)))


NARROW = """
#include "src/core/device/selftest.hpp"
#include "src/core/device/prelude.hpp"
namespace mori { MORI_KERNEL(narrow, SelfTestArgs, 4) { (void)args; } }
"""


def test_two_kernels_of_one_name(tmp_path: Path) -> None:
    (tmp_path / "again.cpp").write_text(NARROW)
    cpu_object = str(ROOT / "src/core/device/cpu_object.cpp")
    folder = compile_object(tmp_path, NARROW, cpu_object, str(tmp_path / "again.cpp"))
    with pytest.raises(ConfigError, match="two kernels named narrow"):
        _core.open_device("cpu", 0, str(folder))


def test_more_threads_than_the_kernel_declares(tmp_path: Path) -> None:
    folder = compile_object(tmp_path, NARROW, str(ROOT / "src/core/device/cpu_object.cpp"))
    device = _core.open_device("cpu", 0, str(folder))
    function = device.function("narrow", "narrow", 72)
    device.launch(function, _core.LaunchShape(1, 4), 0, bytes(72))
    with pytest.raises(ConfigError, match="warps=5"):
        device.launch(function, _core.LaunchShape(1, 5), 0, bytes(72))
