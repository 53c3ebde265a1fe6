# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Streams of the CPU device: order within one, none between two, and where failures come out.

The wait kernel is the instrument: it ends when the test writes its signal.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from mori.errors import ConfigError, MoriError

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def stream(cpu_lab: Any) -> Iterator[int]:
    handle = cpu_lab.device.create_stream()
    yield handle
    cpu_lab.device.destroy_stream(handle)


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.001)


def gate(lab: Any) -> tuple[int, int, Callable[[], None]]:
    """Where a waiting kernel writes, what it waits for, and what lets it go."""
    out, signal = lab.array(np.zeros(1, np.uint64)), lab.array(np.zeros(1, np.uint64))
    return out, signal, lambda: lab.write(signal, np.ones(1, np.uint64))


def test_launch_returns_before_the_kernel_ends(cpu_lab: Any, stream: int) -> None:
    out, signal, release = gate(cpu_lab)
    cpu_lab.launch("wait", 2, 2, stream=stream, out=out, source=signal, value=1)
    assert cpu_lab.read(out, np.uint64, 1)[0] == 0
    release()
    cpu_lab.device.synchronize(stream)
    assert cpu_lab.read(out, np.uint64, 1)[0] == 1


def test_the_default_stream_is_synchronous(cpu_lab: Any) -> None:
    out, signal, release = gate(cpu_lab)
    release()
    cpu_lab.launch("wait", out=out, source=signal, value=1)
    assert cpu_lab.read(out, np.uint64, 1)[0] == 1


def test_kernels_of_a_stream_run_in_order(cpu_lab: Any, stream: int) -> None:
    # Each copies what the one before it copied; the first starts when all are queued.
    out, signal, release = gate(cpu_lab)
    rows = [cpu_lab.array(np.full(64, i + 1, np.uint8)) for i in range(8)]
    cpu_lab.launch("wait", stream=stream, out=out, source=signal, value=1)
    for source, target in itertools.pairwise(rows):
        cpu_lab.launch("copy", stream=stream, out=target, source=source, count=64)
    assert cpu_lab.read(rows[-1], np.uint8, 64).tolist() == [8] * 64
    release()
    cpu_lab.device.synchronize(stream)
    assert cpu_lab.read(rows[-1], np.uint8, 64).tolist() == [1] * 64


def test_streams_and_the_default_stream_run_side_by_side(cpu_lab: Any, stream: int) -> None:
    other = cpu_lab.device.create_stream()
    out, signal, release = gate(cpu_lab)
    out2, signal2, release2 = gate(cpu_lab)
    cpu_lab.launch("wait", stream=stream, out=out, source=signal, value=1)
    cpu_lab.launch("wait", stream=other, out=out2, source=signal2, value=1)
    cpu_lab.run("nop", 4)  # neither holds up stream 0
    release2()
    cpu_lab.device.synchronize(other)
    assert cpu_lab.read(out2, np.uint64, 1)[0] == 1
    assert cpu_lab.read(out, np.uint64, 1)[0] == 0
    release()
    cpu_lab.device.synchronize(stream)
    cpu_lab.device.destroy_stream(other)


def test_arguments_are_copied_at_launch(cpu_lab: Any, stream: int) -> None:
    out, signal, release = gate(cpu_lab)
    function = cpu_lab.device.function("selftest", "selftest_wait", 72)
    from mori import _core

    arguments = bytearray(cpu_lab.arguments(out=out, source=signal, value=1))
    cpu_lab.device.launch(function, _core.LaunchShape(), stream, arguments)
    arguments[:] = bytes(72)
    release()
    cpu_lab.device.synchronize(stream)
    assert cpu_lab.read(out, np.uint64, 1)[0] == 1


def test_a_failure_surfaces_once_and_drops_what_was_queued_behind(cpu_lab: Any, stream: int) -> None:
    out, signal, release = gate(cpu_lab)
    behind = cpu_lab.array(np.zeros(16, np.uint8))
    source = cpu_lab.array(np.ones(16, np.uint8))
    cpu_lab.launch("wait", stream=stream, out=out, source=signal, value=1)
    cpu_lab.launch("diverge", 2, 2, stream=stream, value=5)
    cpu_lab.launch("copy", stream=stream, out=behind, source=source, count=16)
    release()
    with pytest.raises(MoriError, match="divergence"):
        cpu_lab.device.synchronize(stream)
    assert not cpu_lab.read(behind, np.uint8, 16).any()
    cpu_lab.device.synchronize(stream)
    cpu_lab.launch("copy", stream=stream, out=behind, source=source, count=16)
    cpu_lab.device.synchronize(stream)
    assert cpu_lab.read(behind, np.uint8, 16).all()


def test_destroying_a_stream_finishes_it_and_tells_of_failures(cpu_lab: Any) -> None:
    handle = cpu_lab.device.create_stream()
    out, signal, release = gate(cpu_lab)
    cpu_lab.launch("wait", stream=handle, out=out, source=signal, value=1)
    threading.Timer(0.05, release).start()
    cpu_lab.device.destroy_stream(handle)
    assert cpu_lab.read(out, np.uint64, 1)[0] == 1
    handle = cpu_lab.device.create_stream()
    cpu_lab.launch("diverge", 2, 2, stream=handle, value=5)
    with pytest.raises(MoriError, match="divergence"):
        cpu_lab.device.destroy_stream(handle)
    with pytest.raises(ConfigError, match=f"stream={handle}"):
        cpu_lab.device.synchronize(handle)


def test_an_unknown_stream_is_refused(cpu_lab: Any) -> None:
    with pytest.raises(ConfigError, match="stream=12345"):
        cpu_lab.launch("nop", stream=12345)


def test_a_device_may_be_used_from_many_threads(cpu_lab: Any) -> None:
    failures: list[str] = []

    def work(index: int) -> None:
        handle = cpu_lab.device.create_stream() if index % 2 else 0
        source = cpu_lab.device.allocate(4096)
        out = cpu_lab.device.allocate(4096)
        for round_ in range(20):
            value = 1 + (index * 20 + round_) % 250
            cpu_lab.device.fill(source, value, 4096)
            cpu_lab.launch("copy", 2, 2, stream=handle, out=out, source=source, count=1024)
            cpu_lab.device.synchronize(handle)
            if not (cpu_lab.read(out, np.uint8, 4096) == value).all():
                failures.append(f"thread {index} round {round_}")
        cpu_lab.device.free(source)
        cpu_lab.device.free(out)
        if handle:
            cpu_lab.device.destroy_stream(handle)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_waiting_does_not_hold_the_interpreter(cpu_lab: Any) -> None:
    out, signal, release = gate(cpu_lab)
    done = threading.Event()

    def call() -> None:
        cpu_lab.launch("wait", out=out, source=signal, value=1)
        done.set()

    threading.Thread(target=call).start()
    time.sleep(0.02)
    assert not done.is_set()
    release()
    until(done.is_set)
