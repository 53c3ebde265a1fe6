# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""What goes wrong under a shm transfer: peers that die, exec or unmap, partial copies, stops, revocation, leftovers.
A job ends once, says what is unfinished, and touches nothing afterwards."""

from __future__ import annotations

import os
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import backend_lab as b
import numpy as np
import pytest

pytestmark = pytest.mark.timeout(120)
SIZE = 4 << 20
WAYS = {"mapped": {"process_vm": False}, "vm": {"map": False}}


@pytest.fixture(autouse=True)
def _no_faults() -> Iterator[None]:
    yield
    b.faults()


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_killed_peer_is_lost_to_process_vm() -> None:
    lab = b.Lab.shm(map=False)
    local = np.ones(SIZE, np.uint8)
    with b.Owner(SIZE, shared=False) as owner:
        route = lab.prepare(local, owner.remote)
        owner.kill()
        job = lab.submit(route, "write", [[0, 0, 100], [200, 200, 100]])
        assert job.wait() == b.PEER_LOST and len(job.unfinished) == 2 and not job.reroutable
        assert str(owner.pid) in job.message
    lab.close()


def test_killed_in_the_middle_of_a_long_job() -> None:
    b.faults(vm_bytes=256 << 10, vm_delay_us=2000)
    lab = b.Lab.shm(map=False, inline_bytes=0)
    local = np.ones(SIZE, np.uint8)
    with b.Owner(SIZE, shared=False) as owner:
        job = lab.submit(lab.prepare(local, owner.remote), "write", [[0, 0, SIZE]])
        time.sleep(0.02)
        owner.kill()
        assert job.wait() == b.PEER_LOST and job.finishes == 1
        assert 0 < job.unfinished[:, 2].sum() < SIZE
    lab.close()


@pytest.mark.parametrize("op", ["write", "read"])
def test_another_program_under_the_same_pid_is_not_touched(op: str) -> None:
    lab = b.Lab.shm(map=False)
    with b.Owner(SIZE, shared=False) as owner:
        route = lab.prepare(np.ones(SIZE, np.uint8), owner.remote)
        assert owner.ask("exec") == 1  # the same pid, another address space
        job = lab.submit(route, op, [[0, 0, 4096]])
        assert job.wait() == b.PEER_LOST
    lab.close()


@pytest.mark.parametrize("op", ["write", "read"])
def test_memory_that_vanished_is_reported(op: str) -> None:
    lab = b.Lab.shm(map=False)
    with b.Owner(SIZE, shared=False) as owner:
        route = lab.prepare(np.ones(SIZE, np.uint8), owner.remote)
        assert owner.ask("unmap") == 0
        job = lab.submit(route, op, [[0, 0, 4096]])
        assert job.wait() == b.NOT_FOUND and "not mapped" in job.message and not job.reroutable
    lab.close()


@pytest.mark.parametrize("op", ["write", "read"])
@pytest.mark.parametrize("limit", [17, 4096, 99_999])
def test_partial_copies_go_on_where_they_stopped(op: str, limit: int) -> None:
    rng = np.random.default_rng(5)
    size = min(SIZE, limit * 60)
    local = rng.integers(0, 256, size, np.uint8)
    segments = [[size // 8 * i, size // 8 * i, size // 8 - i] for i in range(8)]
    lab = b.Lab.shm(map=False)
    with b.Owner(size, shared=False, fill=9) as owner:
        route = lab.prepare(local, owner.remote)
        b.faults(vm_bytes=limit)
        image = np.full(size, 9, np.uint8)
        expected = local.copy()
        assert lab.wait(lab.submit(route, op, segments)) == b.SUCCESS
        b.faults()
        for here, there, count in segments:
            if op == "write":
                image[there : there + count] = local[here : here + count]
            else:
                expected[here : here + count] = 9
        assert owner.crc() == zlib.crc32(image)
        np.testing.assert_array_equal(local, expected)
    lab.close()


def test_permission_that_is_withdrawn_reroutes_the_rest() -> None:
    import errno

    lab = b.Lab.shm(map=False)
    with b.Owner(SIZE, shared=False) as owner:
        route = lab.prepare(np.ones(SIZE, np.uint8), owner.remote)
        b.faults(vm_errno=errno.EPERM)
        job = lab.submit(route, "write", [[0, 0, SIZE]])
        assert lab.wait(job) == b.TRANSPORT and job.reroutable
        assert job.unfinished[:, 2].sum() == SIZE
    lab.close()


@pytest.mark.parametrize("queued", [False, True], ids=["inline", "queued"])
def test_a_job_stopped_before_it_began_moves_nothing(way: str, queued: bool) -> None:
    lab = b.Lab.shm(**WAYS[way], inline_bytes=0 if queued else 1 << 40)
    with b.Owner(SIZE) as owner:
        job = lab.submit(lab.prepare(np.ones(SIZE, np.uint8), owner.remote), "write", [[0, 0, SIZE]], stopped=True)
        assert lab.wait(job) == b.CANCELLED and job.unfinished[:, 2].sum() == SIZE
        assert owner.crc() == zlib.crc32(bytes(SIZE))
    lab.close()


def test_after_a_stop_nothing_lands_and_the_rest_is_listed() -> None:
    lab, watcher = b.Lab.shm(map=False, inline_bytes=0), b.Lab.shm(process_vm=False)
    local = np.random.default_rng(6).integers(1, 256, SIZE, np.uint8)
    image = np.zeros(SIZE, np.uint8)
    with b.Owner(SIZE) as owner:
        route, watch = lab.prepare(local, owner.remote), watcher.prepare(image, owner.remote)

        def look() -> np.ndarray:
            assert watcher.wait(watcher.submit(watch, "read", [[0, 0, SIZE]])) == b.SUCCESS
            return image.copy()

        b.faults(vm_bytes=64 << 10, vm_delay_us=500)
        job = lab.submit(route, "write", [[0, 0, SIZE]])
        time.sleep(0.005)
        lab.stop(job)
        assert job.wait() == b.CANCELLED and 0 < job.unfinished[:, 2].sum() <= SIZE
        seen = look()
        arrived = np.ones(SIZE, bool)
        for _, start, size in job.unfinished.astype(int):
            arrived[start : start + size] = False
        np.testing.assert_array_equal(seen[arrived], local[arrived])
        time.sleep(0.02)
        np.testing.assert_array_equal(look(), seen)  # no late write
    watcher.close()
    lab.close()


@pytest.mark.parametrize("repeat", range(5))
def test_revocation_waits_for_the_copy_and_then_nothing_lands(way: str, repeat: int) -> None:
    lab = b.Lab.shm(**WAYS[way], inline_bytes=0)
    local = np.full(SIZE, 1, np.uint8)
    with b.Owner(SIZE) as owner:
        route = lab.prepare(local, owner.remote)
        jobs = [lab.submit(route, "write", [[0, 0, SIZE]]) for _ in range(20)]
        time.sleep(0.001 * repeat)
        lab.revoke(route)
        codes = [job.wait(0) for job in jobs]  # finished by the time revoke() returns
        assert set(codes) <= {b.SUCCESS, b.NOT_FOUND}
        seen = owner.crc()
        late = lab.submit(route, "write", [[0, 0, 4096]])
        assert late.wait(0) == b.NOT_FOUND and not late.reroutable and "deregistered" in late.message
        local[:] = 2
        time.sleep(0.01)
        assert owner.crc() == seen
    lab.close()


def test_revocation_while_submitters_write_inline(way: str) -> None:
    lab = b.Lab.shm(**WAYS[way])
    local = np.full(SIZE, 1, np.uint8)
    with b.Owner(SIZE) as owner:
        route = lab.prepare(local, owner.remote)
        counts = {b.SUCCESS: 0, b.NOT_FOUND: 0}

        def submit() -> None:
            while counts[b.NOT_FOUND] < 100:
                counts[lab.submit(route, "write", [[0, 0, 65536]]).wait()] += 1

        threads = [threading.Thread(target=submit) for _ in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(0.05)
        lab.revoke(route)
        seen = owner.crc()
        for thread in threads:
            thread.join(20)
        assert counts[b.SUCCESS] > 0 and owner.crc() == seen
    lab.close()


def test_a_lost_peer_ends_what_is_queued_and_what_comes(way: str) -> None:
    lab = b.Lab.shm(**WAYS[way], inline_bytes=0)
    with b.Owner(SIZE) as owner:
        route = lab.prepare(np.ones(SIZE, np.uint8), owner.remote)
        lab.lost(route)
        job = lab.submit(route, "write", [[0, 0, 100]])
        assert job.wait() == b.PEER_LOST and len(job.unfinished) == 1
        again = lab.prepare(np.ones(SIZE, np.uint8), owner.remote)  # it came back: a route of its own
        assert lab.wait(lab.submit(again, "write", [[0, 0, 100]])) == b.SUCCESS
    lab.close()


def mappings() -> int:
    with open("/proc/self/maps") as maps:
        return sum("memfd:mori-io" in line for line in maps)


def test_nothing_is_left_behind() -> None:
    mapped = mappings()
    with b.Owner(SIZE) as owner:
        lab = b.Lab.shm()
        local = np.ones(SIZE, np.uint8)
        at_owner = owner.ask("fds")
        before = None
        for _ in range(30):
            route = lab.prepare(local, owner.remote)
            assert lab.wait(lab.submit(route, "write", [[0, 0, 100]])) == b.SUCCESS
            lab.revoke(route)
            lab.drop(route)
            state = (len(os.listdir("/proc/self/fd")), mappings(), lab.counter("routes"))
            before = before or state
            assert state == before
        lab.close()
        assert owner.ask("detach") and owner.ask("fds") == at_owner - 1  # the attachment's own descriptor
    assert mappings() == mapped


def test_a_forked_child_does_not_keep_the_mapping() -> None:
    lab = b.Lab.shm(process_vm=False)
    mapped = mappings()
    with b.Owner(SIZE) as owner:
        lab.prepare(np.ones(SIZE, np.uint8), owner.remote)
        assert mappings() == mapped + 1
        child = os.fork()
        if child == 0:
            os._exit(mappings() - mapped)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    lab.close()


def test_an_idle_backend_uses_no_cpu() -> None:
    lab = b.Lab.shm(inline_bytes=0)
    with b.Owner(SIZE) as owner:
        route = lab.prepare(np.ones(SIZE, np.uint8), owner.remote)
        assert lab.submit(route, "write", [[0, 0, SIZE]]).wait() == b.SUCCESS  # carried by the thread
        tasks = Path("/proc/self/task")
        mine = [task for task in tasks.iterdir() if (task / "comm").read_text() == "mori-shm\n"]
        assert len(mine) == 1

        def ticks() -> int:
            fields = (mine[0] / "stat").read_text().rsplit(")", 1)[1].split()
            return int(fields[11]) + int(fields[12])

        time.sleep(0.01)
        before = ticks()
        time.sleep(0.3)
        assert ticks() == before
    lab.close()
