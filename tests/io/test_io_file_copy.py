# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Files as remote memory: every way moves exactly the bytes that were asked for. The whole file and the whole local
memory are compared, so a byte too many anywhere is seen."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import backend_lab as b
import numpy as np
import pytest

pytestmark = pytest.mark.timeout(120)
WAYS = {
    "ring": {},
    "ring_small_blocks": {"block": 8192, "depth": 2},
    "threads": {"io_uring": False},
}
SIZE = (3 << 20) + 777


@pytest.fixture(params=WAYS)
def lab(request: pytest.FixtureRequest) -> Iterator[b.Lab]:
    made = b.Lab.file(**WAYS[request.param])
    yield made
    made.close()


@pytest.fixture(params=[False, True], ids=["buffered", "direct"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[b.File]:
    path = tmp_path / "data"
    path.write_bytes(np.random.default_rng(1).integers(0, 256, SIZE, np.uint8).tobytes())
    try:
        made = b.File(path, direct=request.param)
    except ValueError as refused:
        pytest.skip(str(refused))
    yield made
    made.close()


def content(file: b.File) -> np.ndarray:
    return np.fromfile(file.path, np.uint8)


SEGMENTS = {
    "one_byte": [[5, 7, 1]],
    "first_and_last": [[0, 0, 1], [SIZE - 1, SIZE - 1, 1]],
    "whole": [[0, 0, SIZE]],
    "aligned": [[4096 * (7 - i), 8192 * i, 4096] for i in range(8)],
    "odd": [[1, 3, 4095], [8191, 8193, 4097], [70001, 90001, 65535]],
    "unaligned_memory": [[1, 4096, 1 << 20], [3 + (1 << 20), 2 << 20, 12288]],
    "unaligned_file": [[0, 13, SIZE - 100]],
    "gathered": [[5000 * i, 4096 + 512 * i, 512] for i in range(600)],
    "gathered_pages": [[8192 * (200 - i), 4096 * i, 4096] for i in range(200)],
    "many": [[1000 * (2999 - i), 1000 * i, 1 + i % 999] for i in range(3000)],
}


@pytest.mark.parametrize("op", ["write", "read"])
@pytest.mark.parametrize("segments", SEGMENTS.values(), ids=SEGMENTS.keys())
def test_exactly_these_bytes_move(lab: b.Lab, file: b.File, segments: list[list[int]], op: str) -> None:
    local = np.random.default_rng(2).integers(0, 256, SIZE, np.uint8)
    image, expected = content(file), local.copy()
    route = lab.prepare(local, lab.attach_file(file))
    for here, there, size in segments:
        if op == "write":
            image[there : there + size] = local[here : here + size]
        else:
            expected[here : here + size] = image[there : there + size]
    job = lab.submit(route, op, segments)
    assert lab.wait(job) == b.SUCCESS, job.message
    np.testing.assert_array_equal(content(file), image)
    np.testing.assert_array_equal(local, expected)
    assert job.finishes == 1 and len(job.unfinished) == 0


@pytest.mark.parametrize("seed", range(3))
def test_random_lists_arrive(lab: b.Lab, file: b.File, seed: int) -> None:
    rng = np.random.default_rng(seed)
    local = rng.integers(0, 256, SIZE, np.uint8)
    image = content(file)
    route = lab.prepare(local, lab.attach_file(file))
    for _ in range(5):
        cuts = np.sort(rng.choice(SIZE, 2 * int(rng.integers(1, 60)), replace=False)).reshape(-1, 2)
        cuts = cuts // rng.choice([1, 512, 4096]) * 1
        cuts = cuts[cuts[:, 1] > cuts[:, 0]]
        sizes = cuts[:, 1] - cuts[:, 0]
        here = rng.integers(0, SIZE - sizes)
        job = lab.submit(route, "write", np.stack([here, cuts[:, 0], sizes], 1))
        assert lab.wait(job) == b.SUCCESS, job.message
        for start, there, size in zip(here, cuts[:, 0], sizes, strict=True):
            image[there : there + size] = local[start : start + size]
    np.testing.assert_array_equal(content(file), image)


def test_direct_requests_are_direct_and_the_rest_is_not(tmp_path: Path) -> None:
    try:
        file = b.File(tmp_path / "data", 1 << 20, direct=True)
    except ValueError as refused:
        pytest.skip(str(refused))
    lab = b.Lab.file(depth=4, block=65536)
    memory = b.Memory(1 << 20)  # starts on a page
    route = lab.prepare(memory.bytes, lab.attach_file(file))
    assert "O_DIRECT" in lab.reason
    assert lab.wait(lab.submit(route, "write", [[0, 0, 1 << 20]])) == b.SUCCESS
    assert (lab.counter("requests_direct"), lab.counter("requests_buffered")) == (16, 0)
    assert lab.wait(lab.submit(route, "read", [[1, 0, 65536]])) == b.SUCCESS  # memory off its alignment
    assert lab.counter("requests_direct") == 17 and lab.counter("requests_buffered") == 0
    assert lab.wait(lab.submit(route, "write", [[0, 100, 131072]])) == b.SUCCESS  # two ends and a middle
    assert lab.counter("requests_buffered") == 2
    lab.close()
    memory.close()
    file.close()


def test_a_small_read_of_cached_pages_needs_no_thread(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"x" * 65536)
    file, lab = b.File(tmp_path / "data", direct=False), b.Lab.file()
    local = np.zeros(65536, np.uint8)
    job = lab.submit(lab.prepare(local, lab.attach_file(file)), "read", [[0, 4096, 8192], [9000, 30000, 1]])
    assert job.wait() == b.SUCCESS
    if lab.counter("jobs_from_cache") == 0:
        pytest.skip("this file system does not read without waiting")
    assert local[:8192].min() == local[9000] == ord("x") and local[8192:9000].max() == 0
    assert lab.counter("requests_buffered") == 0
    lab.close()
    file.close()


@pytest.mark.parametrize("durable", [False, True], ids=["", "durable"])
@pytest.mark.parametrize("io_uring", [True, False], ids=["ring", "threads"])
def test_many_jobs_at_once_all_finish_once(tmp_path: Path, io_uring: bool, durable: bool) -> None:
    file = b.File(tmp_path / "data", 4 << 20, durable=durable)
    lab = b.Lab.file(io_uring=io_uring, depth=4, block=65536)
    local = np.random.default_rng(3).integers(0, 256, 4 << 20, np.uint8)
    route = lab.prepare(local, lab.attach_file(file))

    def send(index: int) -> int:
        at = index % 16 * (256 << 10)
        job = lab.submit(route, "write", [[at, at, 256 << 10]])
        code = lab.wait(job)
        return code if job.finishes == 1 else -5

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(send, range(64))) == [b.SUCCESS] * 64
    np.testing.assert_array_equal(content(file), local)
    lab.close()
    file.close()


@pytest.mark.parametrize("op", ["write", "read"])
def test_gpu_memory_is_staged(file: b.File, op: str) -> None:
    lab = b.Lab.file(gpu=True)
    local = np.random.default_rng(4).integers(0, 256, SIZE, np.uint8)  # the "GPU": its bits are turned round
    image, expected = content(file), local.copy()
    segments = [[0, 0, 100], [4096, 8192, 65536], [100_000, 200_001, (2 << 20) + 5]]
    for here, there, size in segments:
        if op == "write":
            image[there : there + size] = ~local[here : here + size]
        else:
            expected[here : here + size] = ~image[there : there + size]
    job = lab.submit(lab.prepare(local, lab.attach_file(file), local_location=b.GPU), op, segments)
    assert lab.wait(job) == b.SUCCESS, job.message
    np.testing.assert_array_equal(content(file), image)
    np.testing.assert_array_equal(local, expected)
    lab.close()
