# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""docs/device_prelude.md: its kernel compiles and runs as it stands; its error message is the real one."""

from __future__ import annotations

import re
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
from mori.errors import MoriError

from mori import _core

pytestmark = pytest.mark.timeout(90)
ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/device_prelude.md").read_text()


@pytest.mark.parametrize("lanes", [1, 32, 64])
def test_the_example_kernel_sums_rows(tmp_path: Path, lanes: int) -> None:
    (example,) = re.findall(r"```cpp\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "row_sum.kernel.cpp").write_text(example)
    command = ["g++", "-std=c++20", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    command += [f"-DMORI_CPU_WARP={lanes}", "-I", str(ROOT), str(tmp_path / "row_sum.kernel.cpp")]
    command += [str(ROOT / "src/core/device/cpu_object.cpp"), "-o", str(tmp_path / f"cpu_w{lanes}.so")]
    subprocess.run(command, check=True, timeout=60)
    device = _core.open_device("cpu", 0, str(tmp_path), lanes)
    rows = np.random.default_rng(0).integers(0, 1000, (37, 129), dtype=np.uint32)
    sums = np.zeros(37, np.uint32)
    arguments = struct.pack("<QQII", rows.ctypes.data, sums.ctypes.data, *rows.shape)
    kernel = device.function("row_sum", "row_sum", len(arguments))
    device.launch(kernel, _core.LaunchShape(4, 2), 0, arguments)
    assert (sums == rows.sum(1)).all()


def test_the_message_about_divergence_is_the_real_one() -> None:
    device = _core.open_device("cpu", 0, "", 32)
    arguments = bytes(72)  # mori::SelfTestArgs
    kernel = device.function("selftest", "selftest_diverge", len(arguments))
    with pytest.raises(MoriError) as caught:
        device.launch(kernel, _core.LaunchShape(3, 2), 0, arguments)
    assert str(caught.value) in PAGE
