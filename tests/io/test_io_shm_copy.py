# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Every way of the shm backend moves exactly the bytes that were asked for: the other process's memory is
compared whole, so a byte too many anywhere is seen."""

from __future__ import annotations

import os
import signal
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import backend_lab as b
import numpy as np
import pytest

pytestmark = pytest.mark.timeout(120)
WAYS = {
    "mapped": {"process_vm": False},
    "mapped_streaming": {"process_vm": False, "copy": 1},
    "mapped_queued": {"process_vm": False, "inline_bytes": 0},
    "vm": {"map": False},
    "vm_queued": {"map": False, "inline_bytes": 0},
}
SIZE = 3 << 20


@pytest.fixture(params=WAYS)
def lab(request: pytest.FixtureRequest) -> Iterator[b.Lab]:
    made = b.Lab.shm(**WAYS[request.param])
    yield made
    made.close()


@pytest.fixture(scope="module")
def process() -> Iterator[b.Owner]:
    with b.Owner(SIZE, offset=24) as made:
        yield made


@pytest.fixture
def owner(process: b.Owner) -> b.Owner:
    process.fill(0)
    return process


def expect(owner: b.Owner, image: np.ndarray) -> None:
    assert owner.crc() == zlib.crc32(image)


SEGMENTS = {
    "one_byte": [[5, 7, 1]],
    "first_and_last": [[0, 0, 1], [SIZE - 1, SIZE - 1, 1]],
    "whole": [[0, 0, SIZE]],
    "odd": [[1, 3, 4095], [8191, 8193, 4097], [70001, 90001, 65535]],
    "unaligned_large": [[13, 7, SIZE - 100]],
    "touching_remote": [[100 * i, 5000 + 64 * i, 64] for i in range(3000)],
    "touching_local": [[64 * i, 100 * i, 64] for i in range(3000)],
    "many": [[1000 * (2999 - i), 1000 * i, 1 + i % 999] for i in range(3000)],
}


@pytest.mark.parametrize("op", ["write", "read"])
@pytest.mark.parametrize("segments", SEGMENTS.values(), ids=SEGMENTS.keys())
def test_exactly_these_bytes_move(lab: b.Lab, owner: b.Owner, segments: list[list[int]], op: str) -> None:
    local = np.random.default_rng(11).integers(0, 256, SIZE, np.uint8)
    owner.fill(0x5A)
    route = lab.prepare(local, owner.remote)
    image, before = np.full(SIZE, 0x5A, np.uint8), local.copy()
    job = lab.submit(route, op, segments)
    assert lab.wait(job) == b.SUCCESS, job.message
    for here, there, size in segments:
        if op == "write":
            image[there : there + size] = local[here : here + size]
        else:
            before[here : here + size] = 0x5A
    expect(owner, image)
    np.testing.assert_array_equal(local, before)
    assert job.finishes == 1 and len(job.unfinished) == 0


def test_random_lists_arrive(lab: b.Lab, owner: b.Owner) -> None:
    rng = np.random.default_rng(12)
    local = rng.integers(0, 256, SIZE, np.uint8)
    image = np.zeros(SIZE, np.uint8)
    route = lab.prepare(local, owner.remote)
    for _ in range(20):
        count = int(rng.integers(1, 1500))
        starts = np.sort(rng.choice(SIZE // 512 - 1, count, replace=False)) * 512
        sizes = rng.integers(1, 513, count)
        here = rng.integers(0, SIZE - 513, count)
        job = lab.submit(route, "write", np.stack([here, starts, sizes], 1))
        assert lab.wait(job) == b.SUCCESS
        for one, there, size in zip(here, starts, sizes, strict=True):
            image[there : there + size] = local[one : one + size]
    expect(owner, image)


def test_jobs_of_many_threads_all_finish_once(lab: b.Lab, owner: b.Owner) -> None:
    local = np.arange(SIZE, dtype=np.uint64).view(np.uint8)[:SIZE].copy()
    piece = SIZE // 16
    route = lab.prepare(local, owner.remote)

    def send(index: int) -> int:
        at = index % 16 * piece
        job = lab.submit(route, "write", [[at, at, piece]])
        code = lab.wait(job)
        return code if job.finishes == 1 else -5

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(send, range(160))) == [b.SUCCESS] * 160
    expect(owner, local)


def test_a_job_that_nobody_waits_for_finishes(lab: b.Lab, owner: b.Owner) -> None:
    local = np.full(SIZE, 9, np.uint8)
    job = lab.submit(lab.prepare(local, owner.remote), "write", [[0, 0, SIZE]])
    assert job.wait() == b.SUCCESS  # without help()
    expect(owner, local)


def test_a_stopped_peer_does_not_matter(lab: b.Lab, owner: b.Owner) -> None:
    local = np.full(SIZE, 3, np.uint8)
    route = lab.prepare(local, owner.remote)
    owner.signal(signal.SIGSTOP)
    job = lab.submit(route, "write", [[0, 0, SIZE]])
    assert lab.wait(job) == b.SUCCESS
    owner.signal(signal.SIGCONT)
    expect(owner, local)


def test_two_engines_of_one_process_copy_directly() -> None:
    lab, owner = b.Lab.shm(), b.Lab.shm()
    source, target = np.arange(1000, dtype=np.uint8), np.zeros(1000, np.uint8)
    remote = b.Remote(os.getpid(), 4, b.CPU, target.ctypes.data, 1000, owner.attach(4, target.ctypes.data, 1000))
    job = lab.submit(lab.prepare(source, remote), "write", [[0, 500, 100], [900, 900, 100]])
    assert lab.wait(job) == b.SUCCESS and lab.counter("jobs_own") == 1
    np.testing.assert_array_equal(target[500:600], source[:100])
    np.testing.assert_array_equal(target[900:], source[900:])
    assert target[:500].max() == 0 and target[600:900].max() == 0
    lab.close()
    owner.close()
