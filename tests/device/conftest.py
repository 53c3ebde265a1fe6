# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""A `Lab` on every kind of device: arrays in device memory, and the self-test kernels of the prelude.

The `lab` fixture runs a test on the fast CPU target, on lanes of 32 and 64, and on a GPU where there is one
(`-m gpu`), `each_lab` with one thread only; `cpu_lab` on the CPU
targets only, `lanes_lab` on those with more than one lane in a warp.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from mori import _core


class Target(NamedTuple):
    kind: str
    lanes: int = 1
    threads: int = 1

    def __str__(self) -> str:
        return f"w{self.lanes}-{self.threads}threads" if self.kind == "cpu" else self.kind


CPU_TARGETS = [Target("cpu", lanes, threads) for lanes, threads in [(1, 1), (1, 3), (32, 1), (32, 2), (64, 1), (64, 2)]]
GPU_TARGETS = [pytest.param(Target(kind), marks=pytest.mark.gpu, id=kind) for kind in ("cuda", "hip")]


class Error(NamedTuple):
    """mori::ErrorWord."""

    state: int
    wait: int
    refusal: int
    peer: int
    expected: int
    seen: int


class Lab:
    """A device, its self-test kernels, and memory that is freed at the end."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.device = _core.open_device(target.kind, 0, "", target.lanes, target.threads)
        self.warp_size: int = self.device.properties.warp_size
        self._allocations: list[int] = []
        self._error = self.array(np.zeros(8, np.uint64))

    def array(self, values: NDArray[Any]) -> int:
        """The address of a copy in device memory."""
        address: int = self.device.allocate(max(1, values.nbytes))
        self._allocations.append(address)
        self.write(address, values)
        return address

    def write(self, address: int, values: NDArray[Any]) -> None:
        self.device.copy(address, np.ascontiguousarray(values).ctypes.data, values.nbytes)

    def read(self, address: int, dtype: Any, count: int) -> NDArray[Any]:
        values = np.empty(count, dtype)
        self.device.copy(values.ctypes.data, address, values.nbytes)
        return values

    @property
    def error(self) -> Error:
        return Error(*(int(word) for word in self.read(self._error, np.uint64, 6)))

    def set_abort(self, value: int) -> None:
        """What the host writes when a peer is lost."""
        self.device.copy(self._error + 48, np.array([value], np.uint64).ctypes.data, 8)

    def arguments(self, out: int = 0, source: int = 0, count: int = 0, value: int = 0, timeout_s: float = 20) -> bytes:
        """mori::SelfTestArgs."""
        ticks = int(timeout_s * self.device.properties.clock_hz)
        return struct.pack("<QQQIIQQQQQ", 0, self._error, ticks, 0, 1, 0, out, source, count, value)

    def launch(
        self,
        name: str,
        blocks: int = 1,
        warps: int = 1,
        shared_bytes: int = 0,
        stream: int = 0,
        **fields: Any,
    ) -> None:
        """Queues a kernel of unit selftest."""
        arguments = self.arguments(**fields)
        function = self.device.function("selftest", f"selftest_{name}", len(arguments))
        self.device.launch(function, _core.LaunchShape(blocks, warps, shared_bytes), stream, arguments)

    def run(self, name: str, blocks: int = 1, warps: int = 1, shared_bytes: int = 0, **fields: Any) -> None:
        """The same, and waits for it."""
        self.launch(name, blocks, warps, shared_bytes, **fields)
        self.device.synchronize(0)

    def close(self) -> None:
        for address in self._allocations:
            self.device.free(address)


def open_lab(target: Target) -> Iterator[Lab]:
    if target.kind != "cpu":
        count, why = _core.device_count(target.kind)
        if count == 0:
            pytest.skip(f"no {target.kind} device: {why}")
    lab = Lab(target)
    yield lab
    lab.close()


@pytest.fixture(params=[*CPU_TARGETS, *GPU_TARGETS], ids=str)
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    yield from open_lab(request.param)


@pytest.fixture(params=[*(target for target in CPU_TARGETS if target.threads == 1), *GPU_TARGETS], ids=str)
def each_lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Every kind of warp once."""
    yield from open_lab(request.param)


@pytest.fixture(scope="session")
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture
def kernel_cache(cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of compiled kernels, for this run of the tests."""
    monkeypatch.setenv("MORI_KERNEL_CACHE", str(cache_folder))
    return cache_folder


@pytest.fixture(params=CPU_TARGETS, ids=str)
def cpu_lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    yield from open_lab(request.param)


@pytest.fixture(params=[target for target in CPU_TARGETS if target.lanes > 1], ids=str)
def lanes_lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    yield from open_lab(request.param)
