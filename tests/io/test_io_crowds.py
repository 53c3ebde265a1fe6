# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Many threads, many blocks, many bytes, many transfers."""

from __future__ import annotations

import mmap
import queue
import threading
import time

import numpy as np
import pytest
from io_engines import Pair, assert_moved, blocks, engine, engines, introduce, random_bytes
from mori.io import MemoryLocationType, StatusCode

pytestmark = pytest.mark.timeout(120)
CPU = MemoryLocationType.CPU
GIB = 1 << 30
MAP_NORESERVE = 0x4000


@pytest.mark.parametrize(
    "backend",
    [
        pytest.param(("loopback", {}), id="inline"),
        pytest.param(("loopback", {"mode": 1}), id="threaded"),
        pytest.param(("shm", {}), id="shm"),
    ],
)
def test_eight_threads_submit_and_eight_wait(backend: tuple[str, dict[str, int]]) -> None:
    """Each submitter owns a stripe; waiters take statuses in any order, some are dropped."""
    stripe, size, rounds = 1 << 15, 512, 60
    with engines(backend, size=8 * stripe) as pair:
        waiting: queue.Queue[object] = queue.Queue()
        wrong: list[object] = []

        def submit(i: int) -> None:
            rng = np.random.default_rng(i)
            for round_ in range(rounds):
                offsets = rng.permutation(stripe // size)[:20] * size + i * stripe
                status = pair.session.batch_write(offsets, offsets, size, round_)
                if round_ % 5:
                    waiting.put(status)
            everything = np.arange(stripe // size) * size + i * stripe
            waiting.put(pair.session.batch_write(everything, everything, size, rounds))

        def wait() -> None:
            while (status := waiting.get()) is not None:
                if status.WaitFor(20_000) != StatusCode.SUCCESS:  # type: ignore[attr-defined]
                    wrong.append(status)

        waiters = [threading.Thread(target=wait) for _ in range(8)]
        submitters = [threading.Thread(target=submit, args=(i,)) for i in range(8)]
        for thread in waiters + submitters:
            thread.start()
        for thread in submitters:
            thread.join(60)
        for _ in waiters:
            waiting.put(None)
        for thread in waiters:
            thread.join(60)
        assert not wrong and (pair.x == pair.y).all()
        counted = pair.a.metrics()["engine"]
        assert counted["ended"] == {"success": 8 * (rounds + 1)} and counted["in_flight"] == 0


@pytest.mark.parametrize("op", ["read", "write"])
def test_a_hundred_thousand_blocks(op: str) -> None:
    count, size = 100_000, 16
    with engines("shm", size=2 * count * size) as pair:
        local, remote = blocks(count, size, 2 * count)
        if op == "write":
            pair.session.batch_write(local, remote, size).wait(30)
            assert (pair.y.reshape(-1, size)[remote // size] == pair.x.reshape(-1, size)[local // size]).all()
        else:
            pair.y[:] = random_bytes(pair.y.size, 3)
            pair.session.batch_read(local, remote, size).wait(30)
            assert (pair.y.reshape(-1, size)[remote // size] == pair.x.reshape(-1, size)[local // size]).all()


def sparse(size: int) -> tuple[mmap.mmap, int]:
    """Anonymous memory without any page behind it until it is written."""
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE)
    return memory, np.frombuffer(memory, np.uint8).ctypes.data


def test_offsets_beyond_four_gigabytes() -> None:
    size = 6 * GIB
    here, mine = sparse(size)
    there, theirs = sparse(size)
    with engine("a", "shm") as a, engine("b", "shm") as b:
        introduce(a, b)
        session = a.create_session(a.register_memory(mine, size, -1, CPU), b.register_memory(theirs, size, -1, CPU))
        places = [0, 4 * GIB - 3, 4 * GIB + 5, size - 4096]
        for place in places:
            here[place : place + 8] = (place + 1).to_bytes(8, "little")
        session.batch_write(places, places, 8).wait(10)
        for place in places:
            assert there[place : place + 8] == here[place : place + 8]


@pytest.mark.slow
def test_one_request_of_more_than_four_gigabytes() -> None:
    """Both sides map one file over and over, so it takes no such memory."""
    size, piece = 4 * GIB + (8 << 20), 8 << 20
    with Repeated(size, piece) as source, Repeated(size, piece) as target:
        source.first[:] = random_bytes(piece)
        with engine("a", ("loopback", {"mode": 1, "chunk_bytes": 1 << 20})) as a:
            mine = a.register_memory(source.address, size, -1, CPU)
            theirs = a.register_memory(target.address, size, -1, CPU)
            status = a.create_session(mine, theirs).write(0, 0, size, 1, deadline_s=0)
            assert status.bytes_total == size
            status.wait(100)
            assert status.bytes_done == size
            assert a.metrics()["backends"]["loopback"]["bytes"] == size
        assert (source.first == target.first).all()


class Repeated:
    """`size` bytes of addresses that are the same `piece` bytes of memory again and again."""

    def __init__(self, size: int, piece: int) -> None:
        import ctypes
        import os

        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
        libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        self.libc, self.size = libc, size
        self.fd = os.memfd_create("repeated")
        os.ftruncate(self.fd, piece)
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
        self.address: int = libc.mmap(None, size, 0, flags, -1, 0)
        access = mmap.PROT_READ | mmap.PROT_WRITE
        for at in range(0, size, piece):
            fixed = 0x10  # MAP_FIXED
            assert libc.mmap(self.address + at, piece, access, mmap.MAP_SHARED | fixed, self.fd, 0) == self.address + at
        self.first = np.ctypeslib.as_array((ctypes.c_uint8 * piece).from_address(self.address))

    def __enter__(self) -> Repeated:
        return self

    def __exit__(self, *_: object) -> None:
        import os

        self.libc.munmap(self.address, self.size)
        os.close(self.fd)


def test_many_small_transfers_leave_nothing_behind() -> None:
    with engines("shm") as pair:

        def burst(count: int) -> None:
            statuses = [pair.session.write(i % 1000, i % 1000, 8, i) for i in range(count)]
            assert pair.a.wait_all(statuses, 20_000) == StatusCode.SUCCESS

        burst(20_000)
        before = resident_bytes()
        for _ in range(5):
            burst(20_000)
        assert resident_bytes() - before < 16 << 20
        assert pair.a.metrics()["engine"]["in_flight"] == 0


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * mmap.PAGESIZE


def test_registering_views_of_one_allocation_is_cheap() -> None:
    with engine("a") as a:
        x = random_bytes(1 << 20)
        a.register_buffer(x)
        ranges = [(x.ctypes.data + 1024 * i, 1024, -1, CPU) for i in range(1000)]
        began = time.perf_counter()
        descs = a.register_memories(ranges)
        assert time.perf_counter() - began < 5
        assert len({desc.id for desc in descs}) == 1000


def test_several_engines_move_bytes_between_each_other() -> None:
    count = 4
    crew = [engine(f"e{i}", "shm") for i in range(count)]
    memories = [np.full(count * 4096, i, np.uint8) for i in range(count)]
    descs = [e.register_buffer(memory) for e, memory in zip(crew, memories, strict=True)]
    for one in crew:
        for other in crew:
            if one is not other:
                introduce(one, other)
    statuses = [
        crew[i].create_session(descs[i], descs[j]).write(i * 4096, i * 4096, 4096, i)
        for i in range(count)
        for j in range(count)
        if i != j
    ]
    assert crew[0].wait_all(statuses, 10_000) == StatusCode.SUCCESS
    for i, memory in enumerate(memories):
        for j in range(count):
            assert (memory[j * 4096 : (j + 1) * 4096] == j).all(), (i, j)
    for e in crew:
        e.close()


def test_a_batch_moves_exactly_its_blocks() -> None:
    with engines("shm") as pair:
        check_exact(pair)


def check_exact(pair: Pair) -> None:
    local, remote = blocks(200, 1024, 1024)
    pair.session.batch_write(local.tolist(), remote.astype(np.uint32), np.full(200, 1024)).wait(10)
    assert_moved(pair, local, remote, 1024)
