# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""What goes wrong with files: errors of the device, no room, truncation, short results, a forbidden io_uring, stops,
revocation, leftovers. A job ends once and says what is unfinished."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import backend_lab as b
import numpy as np
import pytest

pytestmark = pytest.mark.timeout(120)
SIZE = 2 << 20
HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def _no_faults() -> Iterator[None]:
    yield
    b.file_faults()


@pytest.fixture(params=[True, False], ids=["ring", "threads"])
def lab(request: pytest.FixtureRequest) -> Iterator[b.Lab]:
    made = b.Lab.file(io_uring=request.param, depth=4, block=65536, filter=True)
    yield made
    made.close()


@pytest.fixture
def file(tmp_path: Path) -> Iterator[b.File]:
    made = b.File(tmp_path / "data", SIZE)
    yield made
    made.close()


def ones() -> np.ndarray:
    return np.ones(SIZE, np.uint8)


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, errno.EDQUOT], ids=errno.errorcode.get)
@pytest.mark.parametrize("op", ["write", "read"])
def test_the_device_fails_in_the_middle(lab: b.Lab, file: b.File, op: str, error: int) -> None:
    local = ones()
    route = lab.prepare(local, lab.attach_file(file))
    b.file_faults(error=error, after=5)
    job = lab.submit(route, op, [[0, 0, SIZE]])
    assert lab.wait(job) == b.IO and job.finishes == 1 and not job.reroutable
    assert os.strerror(error) in job.message and "offset" in job.message
    missing = int(job.unfinished[:, 2].sum())
    assert missing >= SIZE - 5 * 65536 and missing < SIZE
    image = np.fromfile(file.path, np.uint8)
    done = np.ones(SIZE, bool)
    for here, start, size in job.unfinished.astype(int):
        assert here == start
        done[start : start + size] = False
    if op == "write":
        assert image[done].min() == 1
    else:
        assert local[done].max() == 0
    b.file_faults()
    assert lab.wait(lab.submit(route, op, [[0, 0, SIZE]])) == b.SUCCESS  # the route is as good as before


@pytest.mark.parametrize("op", ["write", "read"])
@pytest.mark.parametrize("most", [1, 511, 4096, 50_000])
def test_short_results_go_on_where_they_stopped(lab: b.Lab, file: b.File, op: str, most: int) -> None:
    size = min(SIZE, most * 300)
    local = np.random.default_rng(1).integers(0, 256, size, np.uint8)
    content = np.random.default_rng(2).integers(0, 256, SIZE, np.uint8)
    content.tofile(file.path)
    route = lab.prepare(local, lab.attach_file(file))
    b.file_faults(most=most)
    job = lab.submit(route, op, [[0, 0, size // 2], [size // 2, size // 2 + 64, size // 2 - 64]])
    assert lab.wait(job) == b.SUCCESS, job.message
    assert lab.counter("requests_resumed") > 2
    image = np.fromfile(file.path, np.uint8)
    half = size // 2
    np.testing.assert_array_equal(local[:half], image[:half])
    np.testing.assert_array_equal(local[half : 2 * half - 64], image[half + 64 : 2 * half])
    np.testing.assert_array_equal(image[2 * half :], content[2 * half :])


@pytest.mark.parametrize("op", ["write", "read"])
def test_a_file_system_that_refuses_direct_requests_gets_buffered_ones(lab: b.Lab, file: b.File, op: str) -> None:
    b.file_faults(error=errno.EINVAL, only_direct=True)
    np.full(SIZE, 1, np.uint8).tofile(file.path)
    local = ones()
    job = lab.submit(lab.prepare(local, lab.attach_file(file)), op, [[0, 0, SIZE]])
    assert lab.wait(job) == b.SUCCESS, job.message
    assert local.min() == 1 and np.fromfile(file.path, np.uint8).min() == 1


def test_a_truncated_file_is_an_error_not_zeros(lab: b.Lab, file: b.File) -> None:
    route = lab.prepare(ones(), lab.attach_file(file))
    os.truncate(file.path, SIZE // 2 + 100)
    job = lab.submit(route, "read", [[0, 0, SIZE]])
    assert lab.wait(job) == b.IO and "truncated" in job.message
    assert lab.wait(lab.submit(route, "read", [[0, 0, SIZE // 2]])) == b.SUCCESS
    with pytest.raises(b.NoRoute, match=f"has {SIZE // 2 + 100} bytes"):
        lab.prepare(ones(), lab.attach_file(file, 2))


def test_a_full_file_system(lab: b.Lab, tmp_path: Path) -> None:
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(tmp_path)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("mounting a small file system is not permitted")
    try:
        with pytest.raises(ValueError, match="no room for bytes=4194304"):
            b.File(tmp_path / "large", 4 << 20)
        os.unlink(tmp_path / "large")
        (tmp_path / "sparse").touch()
        os.truncate(tmp_path / "sparse", SIZE)
        file = b.File(tmp_path / "sparse")
        job = lab.submit(lab.prepare(ones(), lab.attach_file(file)), "write", [[0, 0, SIZE]])
        assert lab.wait(job) == b.IO and os.strerror(errno.ENOSPC) in job.message
        assert 0 < job.unfinished[:, 2].sum() < SIZE
        file.close()
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_a_job_stopped_before_it_began_moves_nothing(lab: b.Lab, file: b.File) -> None:
    job = lab.submit(lab.prepare(ones(), lab.attach_file(file)), "write", [[0, 0, SIZE]], stopped=True)
    assert lab.wait(job) == b.CANCELLED and job.unfinished[:, 2].sum() == SIZE
    assert np.fromfile(file.path, np.uint8).max() == 0


@pytest.mark.parametrize("op", ["write", "read"])
def test_after_a_stop_nothing_lands(lab: b.Lab, file: b.File, op: str) -> None:
    b.file_faults(delay_us=2000)
    local = ones()
    if op == "read":
        np.full(SIZE, 7, np.uint8).tofile(file.path)
    job = lab.submit(lab.prepare(local, lab.attach_file(file)), op, [[0, 0, SIZE]])
    time.sleep(0.01)
    lab.stop(job)
    assert job.wait() == b.CANCELLED and 0 < job.unfinished[:, 2].sum() <= SIZE
    seen = np.fromfile(file.path, np.uint8) if op == "write" else local.copy()
    local[local == 1] = 2
    seen[seen == 1] = 2 if op == "read" else 1
    time.sleep(0.03)
    np.testing.assert_array_equal(np.fromfile(file.path, np.uint8) if op == "write" else local, seen)


def test_revocation_waits_for_what_is_in_flight(lab: b.Lab, file: b.File) -> None:
    b.file_faults(delay_us=500)
    local = ones()
    route = lab.prepare(local, lab.attach_file(file))
    jobs = [lab.submit(route, "write", [[0, 0, SIZE]]) for _ in range(5)]
    lab.revoke(route)
    codes = [job.wait(0.2) for job in jobs]
    assert set(codes) <= {b.SUCCESS, b.NOT_FOUND} and b.NOT_FOUND in codes
    late = lab.submit(route, "write", [[0, 0, 4096]])
    assert late.wait(0) == b.NOT_FOUND and len(late.unfinished) == 1


def test_a_lost_peer_ends_its_jobs(lab: b.Lab, file: b.File) -> None:
    route = lab.prepare(ones(), lab.attach_file(file))
    lab.lost(route)
    assert lab.submit(route, "read", [[0, 0, 4096]]).wait() == b.PEER_LOST


def test_direct_and_buffered_writes_side_by_side_keep_both(lab: b.Lab, file: b.File) -> None:
    """Neighbours in one page, some direct and some not, from several threads."""
    rng = np.random.default_rng(8)
    local = rng.integers(1, 256, SIZE, np.uint8)
    route = lab.prepare(local, lab.attach_file(file))
    edges = np.unique(np.concatenate([[0, SIZE], rng.integers(0, SIZE // 512, 400) * 512 + rng.integers(0, 2, 400)]))
    parts = np.stack([edges[:-1], edges[:-1], np.diff(edges)], 1)
    rng.shuffle(parts)

    def send(mine: np.ndarray) -> None:
        for part in mine:
            codes.append(lab.wait(lab.submit(route, "write", [part])))

    codes: list[int] = []
    threads = [threading.Thread(target=send, args=(parts[i::4],)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert codes == [b.SUCCESS] * len(parts)
    np.testing.assert_array_equal(np.fromfile(file.path, np.uint8), local)


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    before = (len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task")))
    for io_uring in (True, False):
        file, lab = b.File(tmp_path / "data", SIZE), b.Lab.file(io_uring=io_uring)
        local, state = ones(), None
        for id in range(1, 20):
            route = lab.prepare(local, lab.attach_file(file, id))
            assert lab.wait(lab.submit(route, "write", [[1, 5, 9999]])) == b.SUCCESS
            lab.revoke(route)
            lab.drop(route)
            open_now = len(os.listdir("/proc/self/fd"))
            state = state or open_now
            assert open_now == state
        lab.close()
        file.close()
    assert (len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))) == before


def test_an_idle_ring_uses_no_cpu(file: b.File) -> None:
    lab = b.Lab.file()
    assert lab.wait(lab.submit(lab.prepare(ones(), lab.attach_file(file)), "write", [[0, 0, SIZE]])) == b.SUCCESS
    mine = [t for t in Path("/proc/self/task").iterdir() if (t / "comm").read_text() == "mori-file\n"]
    if not mine:
        pytest.skip("io_uring is forbidden here")

    def switches() -> int:
        return sum(int(line.split()[1]) for line in (mine[0] / "status").read_text().splitlines() if "ctxt" in line)

    time.sleep(0.01)
    before = switches()
    time.sleep(0.3)
    assert switches() == before
    lab.close()


def test_an_error_of_the_gpu_is_reported(file: b.File) -> None:
    lab = b.Lab.file(gpu=True)
    route = lab.prepare(ones(), lab.attach_file(file), local_location=b.GPU)
    b.file_faults(gpu=True)
    job = lab.submit(route, "write", [[0, 0, SIZE]])
    assert lab.wait(job) == 15 and "pretended GPU" in job.message and job.unfinished[:, 2].sum() == SIZE
    lab.close()


FORBIDDEN = """
import ctypes, os, struct, sys
sys.path.insert(0, {here!r})
import backend_lab as b, numpy as np
b.library()
numbers = {numbers}
def op(code, jt, jf, k):
    return struct.pack("HBBI", code, jt, jf, k)
program = op(0x20, 0, 0, 0)  # load the system call's number
for number in numbers:
    program += op(0x15, 0, 1, number) + op(0x06, 0, 0, 0x00050000 | {error})
program += op(0x06, 0, 0, 0x7FFF0000)
buffer = ctypes.create_string_buffer(program)
header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
if libc.prctl(22, 2, header, 0, 0) != 0:
    print("no seccomp")
    sys.exit(0)
{body}
"""


def forbid(numbers: list[int], error: int, body: str) -> str:
    """Runs `body` in a process whose seccomp filter answers these system calls (x86-64) with an error."""
    if os.uname().machine != "x86_64":
        pytest.skip("system call numbers of x86-64")
    code = FORBIDDEN.format(here=str(HERE), numbers=numbers, error=error, body=body)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    if "no seccomp" in done.stdout:
        pytest.skip("seccomp filters are not available")
    return done.stdout.strip()


@pytest.mark.parametrize("error", [errno.EPERM, errno.ENOSYS], ids=errno.errorcode.get)
def test_where_seccomp_forbids_io_uring_threads_do_it(tmp_path: Path, error: int) -> None:
    body = f"""
file, lab = b.File({str(tmp_path / "data")!r}, 1 << 20), b.Lab.file()
route = lab.prepare(np.full(1 << 20, 7, np.uint8), lab.attach_file(file))
assert lab.wait(lab.submit(route, "write", [[3, 0, (1 << 20) - 3]])) == b.SUCCESS
assert np.fromfile(file.path, np.uint8)[:-3].min() == 7
print(lab.reason)
"""
    said = forbid([425], error, body)
    assert "threads, since io_uring is not available: " + os.strerror(error) in said


def test_where_seccomp_forbids_process_vm_private_memory_has_no_route() -> None:
    body = """
with b.Owner(8192, shared=False) as owner:
    try:
        b.Lab.shm().prepare(np.ones(8192, np.uint8), owner.remote)
    except b.NoRoute as reason:
        print(reason)
"""
    assert "seccomp profile" in forbid([310, 311], errno.EPERM, body)
