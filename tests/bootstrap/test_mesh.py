# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Ranks exchange bytes and descriptors in any number and size, and whoever calls something else is named."""

import contextlib
import os
import threading
import time

import pytest
from boot_helpers import MODES, WORLDS, join, memfd, open_fds, refusal
from mori.errors import ConfigError, MoriError, PeerLost, TimeoutError
from mori.testing import run_ranks

pytestmark = pytest.mark.timeout(120)


def exchange_work(rank, world_size, uid, size, fds):
    with join(rank, world_size, uid) as mesh:
        mine = [memfd(f"{rank}.{i}") for i in range(fds)]
        payload = bytes([rank + 1]) * (size + rank)
        messages = mesh.exchange("numbers", payload, mine)
        for fd in mine:
            os.close(fd)
        mesh.barrier()
        assert [m.payload for m in messages] == [bytes([r + 1]) * (size + r) for r in range(world_size)]
        for peer, message in enumerate(messages):
            texts = [os.pread(fd, 100, 0).decode() for fd in message.fds]
            assert texts == ([] if peer == rank else [f"{peer}.{i}" for i in range(fds)])
            for fd in message.fds:
                assert not os.get_inheritable(fd)
                os.close(fd)
        return mesh.rank, mesh.world_size


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("world_size", WORLDS)
def test_exchange(world_size, mode):
    assert run_ranks(exchange_work, world_size, 5, 1, mode=mode) == [(r, world_size) for r in range(world_size)]


@pytest.mark.parametrize(
    ("size", "fds"),
    [
        pytest.param(0, 0, id="empty"),
        pytest.param(0, 3, id="only-fds"),
        pytest.param((1 << 18) - 36, 2, id="one-read"),
        pytest.param(3_000_001, 3, id="beyond-the-socket-buffer"),
        pytest.param(1, 260, id="more-fds-than-one-call-takes"),
    ],
)
def test_exchange_sizes(size, fds):
    run_ranks(exchange_work, 3, size, fds, mode="process")


def order_work(rank, world_size, uid):
    with join(rank, world_size, uid) as mesh:
        for i in range(200):
            if (rank + i) % 17 == 0:
                threading.Event().wait(0.001)
            assert [m.payload for m in mesh.exchange(f"call {i}", b"%d/%d" % (rank, i))] == [
                b"%d/%d" % (peer, i) for peer in range(world_size)
            ]


@pytest.mark.parametrize("mode", MODES)
def test_calls_of_fast_and_slow_ranks_do_not_mix(mode):
    run_ranks(order_work, 3, mode=mode)


def barrier_work(rank, world_size, uid, path):
    with join(rank, world_size, uid) as mesh:
        for _ in range(10):
            fd = os.open(path, os.O_WRONLY | os.O_APPEND)
            os.write(fd, b"x")
            os.close(fd)
            mesh.barrier()
            assert os.path.getsize(path) % world_size == 0
            mesh.barrier()


def test_a_barrier_is_one(tmp_path):
    (tmp_path / "log").touch()
    run_ranks(barrier_work, 3, str(tmp_path / "log"), mode="process")


def tags_work(rank, world_size, uid, odd):
    with join(rank, world_size, uid) as mesh:
        error = refusal(lambda: mesh.exchange("heap" if rank == odd else "barrier", timeout=5))
        mesh.barrier("again")  # the mesh survives the mistake
        return type(error), str(error)


@pytest.mark.parametrize("mode", MODES)
def test_different_calls_are_named(mode):
    for rank, (kind, text) in enumerate(run_ranks(tags_work, 3, 1, mode=mode)):
        assert kind is ConfigError
        assert "'heap'" in text
        assert "'barrier'" in text
        assert f"rank {rank} is at" in text


def late_work(rank, world_size, uid):
    with join(rank, world_size, uid) as mesh:
        mesh.barrier()
        if rank == 1:
            time.sleep(2.5)
            mesh.exchange("slow", b"late")
        else:
            with pytest.raises(TimeoutError) as caught:
                mesh.exchange("slow", timeout=1)
            assert (caught.value.what, caught.value.peer, caught.value.missing) == ("slow", 1, (1,))
        return [m.payload for m in mesh.exchange("next", b"%d" % rank)]


@pytest.mark.parametrize("mode", MODES)
def test_a_deadline_names_who_is_missing_and_the_mesh_goes_on(mode):
    assert run_ranks(late_work, 3, mode=mode) == [[b"0", b"1", b"2"]] * 3


def closed_work(rank, world_size, uid):
    mesh = join(rank, world_size, uid)
    if rank == 2:
        mesh.close()
        mesh.close()
        return refusal(mesh.barrier)
    error = refusal(mesh.barrier)
    lost = mesh.lost()
    mesh.close()
    return error, lost


@pytest.mark.parametrize("mode", MODES)
def test_a_farewell_is_no_crash_but_ends_calls(mode):
    first, second, own = run_ranks(closed_work, 3, mode=mode)
    for error, lost in (first, second):
        assert isinstance(error, PeerLost)
        assert lost == frozenset()
    assert first[0].peer == 2 or "closed" in str(first[0])
    assert isinstance(own, ConfigError)
    assert "closed" in str(own)


def finish_work(rank, world_size, uid):
    mesh = join(rank, world_size, uid)
    mesh.barrier()
    if rank:
        threading.Event().wait(0.2)
    messages = mesh.exchange("last", b"%d" % rank)
    mesh.close()
    return len(messages)


@pytest.mark.parametrize("mode", MODES)
def test_closing_right_after_the_last_call_takes_nothing_from_slower_ranks(mode):
    assert run_ranks(finish_work, 5, mode=mode) == [5] * 5


def subset_work(rank, world_size, uid):
    mesh = join(rank, world_size, uid)
    group = [4, 2, 0] if rank % 2 == 0 else [1, 3]
    part = mesh.subset(group)
    assert refusal(mesh.barrier) is not None
    seen = [int(m.payload) for m in part.exchange("global ranks", b"%d" % rank)]
    if rank % 2 == 0:
        pair = part.subset([2, 0]) if rank in (0, 4) else part.subset([1])
        seen += [int(m.payload) for m in pair.exchange("again", b"%d" % rank)]
        pair.close()
    part.close()
    return part.rank, seen


@pytest.mark.parametrize("mode", MODES)
def test_subsets_are_renumbered_and_independent(mode):
    assert run_ranks(subset_work, 5, mode=mode) == [
        (2, [4, 2, 0, 0, 4]),
        (0, [1, 3]),
        (1, [4, 2, 0, 2]),
        (1, [1, 3]),
        (0, [4, 2, 0, 0, 4]),
    ]


def subset_mismatch_work(rank, world_size, uid):
    with join(rank, world_size, uid) as mesh:
        return type(refusal(lambda: mesh.subset([0, 1, 2] if rank else [1, 0, 2]).exchange("x", timeout=5)))


def test_different_subsets_are_refused():
    kinds = run_ranks(subset_mismatch_work, 3, mode="thread")
    assert ConfigError in kinds
    assert set(kinds) <= {
        ConfigError,
        PeerLost,
    }


@pytest.mark.parametrize(
    "ranks",
    [[], [1], [0, 0], [0, 2], [0, -1], [0, "1"], [0, True]],
    ids=lambda ranks: str(ranks).replace(" ", ""),
)
def test_bad_subsets_are_refused(ranks):
    def work(rank, world_size, uid):
        with join(rank, world_size, uid) as mesh:
            if rank == 0:
                with pytest.raises(ConfigError, match="ranks"):
                    mesh.subset(ranks)
            mesh.barrier()

    run_ranks(work, 2, mode="thread")


def test_bad_arguments_are_refused_and_nothing_is_sent():
    def work(rank, world_size, uid):
        with join(rank, world_size, uid) as mesh:
            if rank == 1:
                for bad in (lambda: mesh.exchange("x", fds=[-1]), lambda: mesh.barrier(timeout=-1)):
                    assert isinstance(refusal(bad), ConfigError)
            mesh.barrier()

    run_ranks(work, 2, mode="thread")


def shared_work(rank, world_size, uid):
    """Two threads of each rank use one mesh; which goes first is chance, but nothing may hang or mix."""
    with join(rank, world_size, uid) as mesh:
        errors: list[MoriError] = []

        def many() -> None:
            for _ in range(50):
                with contextlib.suppress(ConfigError):
                    mesh.barrier("same", timeout=10)

        threads = [threading.Thread(target=many) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return len(errors)


def test_threads_of_a_rank_take_turns():
    assert run_ranks(shared_work, 2, mode="process") == [0, 0]


def test_a_mesh_closed_by_another_thread_ends_its_calls():
    def work(rank, world_size, uid):
        mesh = join(rank, world_size, uid)
        if rank:
            threading.Event().wait(0.5)
            return mesh.close()
        threading.Timer(0.1, mesh.close).start()
        return refusal(lambda: mesh.barrier(timeout=20))

    error = run_ranks(work, 2, mode="thread", timeout=10)[0]
    assert isinstance(error, ConfigError)
    assert "closed" in str(error)


def test_many_ranks():
    def work(rank, world_size, uid):
        with join(rank, world_size, uid, timeout=60) as mesh:
            return [m.payload[0] for m in mesh.exchange("rank", bytes([rank]))]

    assert run_ranks(work, 64, mode="thread", timeout=100) == [list(range(64))] * 64


def descriptors_work(rank, world_size, uid):
    before = open_fds()
    mesh = join(rank, world_size, uid)
    mesh.watch(lambda peer: None)
    for _ in range(5):
        for message in mesh.exchange("x", b"", [0, 1]):
            for fd in message.fds:
                os.close(fd)
    mesh = mesh.subset(range(world_size))
    mesh.barrier()
    mesh.close()
    return open_fds() - before


def test_no_descriptor_is_left():
    assert max(run_ranks(descriptors_work, 3, mode="process")) <= 0
