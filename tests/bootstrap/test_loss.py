# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Ranks that are killed or stopped are noticed, and those left over agree on who they are."""

import os
import signal
import threading
import time

import pytest
from boot_helpers import MODES, join, refusal
from mori.errors import ConfigError, PeerLost, TimeoutError, TransportError
from mori.testing import run_ranks

pytestmark = pytest.mark.timeout(60)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def killed_work(rank, world_size, uid):
    mesh = join(rank, world_size, uid)
    mesh.barrier()
    if rank == 1:
        die()
    start = time.monotonic()
    error = refusal(lambda: mesh.barrier("step", timeout=20))
    return type(error), error.peer, time.monotonic() - start, mesh.lost()


def test_a_killed_rank_is_noticed_at_once_and_named():
    results = run_ranks(killed_work, 3, expendable=[1])
    for kind, peer, seconds, lost in (results[0], results[2]):
        assert kind is PeerLost
        assert peer in (0, 1, 2)
        assert seconds < 5
        assert 1 in lost
    assert 1 in (results[0][1], results[2][1])


def dropped_work(rank, world_size, uid):
    """A thread cannot be killed; a mesh dropped or left by an exception is what comes nearest."""
    mesh = join(rank, world_size, uid)
    mesh.barrier()
    if rank == 1:
        mesh.watch(lambda peer: None)
        del mesh
        return None
    if rank == 2:
        with pytest.raises(KeyError), mesh:
            raise KeyError
        return None
    with pytest.raises(PeerLost):
        mesh.barrier(timeout=10)
    while mesh.lost() != {1, 2}:
        time.sleep(0.01)
    return mesh.lost()


@pytest.mark.parametrize("mode", MODES)
def test_a_mesh_that_is_dropped_looks_like_a_crash(mode):
    assert run_ranks(dropped_work, 3, mode=mode)[0] == {1, 2}


def stopped_work(rank, world_size, uid):
    mesh = join(rank, world_size, uid)
    mesh.barrier()
    if rank == 2:
        stop()
    start = time.monotonic()
    error = refusal(lambda: mesh.exchange("step", b"x" * 4_000_000, timeout=3))  # more than the socket takes
    return type(error), error.missing, time.monotonic() - start, mesh.lost()


def test_a_stopped_rank_is_named_at_the_deadline():
    for kind, missing, seconds, lost in run_ranks(stopped_work, 3, expendable=[2])[:2]:
        assert kind is TimeoutError
        assert missing == (2,)
        assert lost == frozenset()
        assert 2.9 < seconds < 8


def watch_work(rank, world_size, uid):
    mesh = join(rank, world_size, uid)
    seen, event = [], threading.Event()

    def note(peer: int) -> None:
        seen.append(peer)
        if len(seen) == 2:
            event.set()
        raise ValueError("a callback that fails must not end the watch")

    if rank in (0, 3):
        mesh.watch(note)
    mesh.barrier()
    if rank == 1:
        die()
    if rank == 2:
        time.sleep(0.2)
        die()
    if rank == 4:
        mesh.close()
        return None
    if rank == 3:
        time.sleep(0.5)
    assert event.wait(10)
    time.sleep(0.1)
    late = []
    mesh.watch(late.append)  # told of those lost before, too
    while len(late) < 2:
        time.sleep(0.01)
    mesh.close()
    return sorted(seen), sorted(late)


def test_watch_tells_of_each_lost_peer_once_and_not_of_farewells():
    results = run_ranks(watch_work, 5, expendable=[1, 2])
    assert results[0] == results[3] == ([1, 2], [1, 2])


def survive(mesh, timeout=10.0):
    """What a context does after an error: agree, go on with the survivors, see that they are connected."""
    alive = mesh.survivors(timeout=timeout)
    part = mesh.subset(alive)
    seen = tuple(int(m.payload) for m in part.exchange("who", b"%d" % mesh.rank, timeout=10))
    assert seen == alive
    part.close()
    return alive


def killed_before_work(rank, world_size, uid, victims):
    mesh = join(rank, world_size, uid)
    mesh.barrier()
    if rank in victims:
        die()
    refusal(lambda: mesh.barrier("step"))
    return survive(mesh)


@pytest.mark.parametrize("victims", [(1,), (0,), (0, 3), (1, 2, 3)], ids=lambda v: "-".join(map(str, v)))
def test_survivors_after_kills(victims):
    results = run_ranks(killed_before_work, 5, victims, expendable=victims)
    rest = tuple(r for r in range(5) if r not in victims)
    assert [results[r] for r in rest] == [rest] * len(rest)


def killed_during_work(rank, world_size, uid):
    mesh = join(rank, world_size, uid)
    mesh.barrier()
    if rank == 2:
        threading.Timer(0.3, die).start()
    if rank == 3:
        time.sleep(0.8)  # so that the others still wait when rank 2 dies
    return survive(mesh)


def test_survivors_while_one_is_killed():
    results = run_ranks(killed_during_work, 4, expendable=[2])
    assert [results[r] for r in (0, 1, 3)] == [(0, 1, 3)] * 3


def stopped_during_work(rank, world_size, uid):
    mesh = join(rank, world_size, uid)
    mesh.barrier()
    if rank == 1:
        stop()
    start = time.monotonic()
    alive = survive(mesh, timeout=3)
    return alive, time.monotonic() - start


def test_survivors_without_a_stopped_one():
    results = run_ranks(stopped_during_work, 4, expendable=[1])
    for alive, seconds in (results[r] for r in (0, 2, 3)):
        assert alive == (0, 2, 3)
        assert seconds < 20


def resumed_work(rank, world_size, uid):
    mesh = join(rank, world_size, uid)
    mesh.barrier()
    if rank == 1:
        pid = os.getpid()
        if os.fork() == 0:
            time.sleep(7)
            os.kill(pid, signal.SIGCONT)
            os._exit(0)
        stop()
        error = refusal(lambda: mesh.survivors(timeout=5))
        return type(error), str(error)
    return survive(mesh, timeout=2)


def test_a_rank_that_wakes_too_late_is_told_so():
    results = run_ranks(resumed_work, 3)
    assert results[0] == results[2] == (0, 2)
    assert results[1][0] is PeerLost
    assert "[0, 2] went on without rank 1" in results[1][1]


def one_recovers_first_work(rank, world_size, uid):
    mesh = join(rank, world_size, uid)
    mesh.barrier()
    if rank == 0:
        with pytest.raises(TimeoutError):
            mesh.barrier("step", timeout=0.1)
        return survive(mesh)
    if rank == 2:  # finds the parts of both others, who gave up long ago
        time.sleep(0.5)
        return survive(mesh)
    error = refusal(lambda: mesh.barrier("step", timeout=30))
    assert isinstance(error, TransportError)
    assert "survivors" in str(error)
    return survive(mesh)


@pytest.mark.parametrize("mode", MODES)
def test_ranks_waiting_elsewhere_are_called_to_the_agreement(mode):
    assert run_ranks(one_recovers_first_work, 3, mode=mode) == [(0, 1, 2)] * 3


def twice_work(rank, world_size, uid):
    mesh = join(rank, world_size, uid)
    mesh.barrier()
    if rank == 4:
        die()
    mesh = mesh.subset(mesh.survivors(timeout=10))
    if rank == 0:
        die()
    refusal(mesh.barrier)
    mesh = mesh.subset(mesh.survivors(timeout=10))
    return [int(m.payload) for m in mesh.exchange("who", b"%d" % rank)]


def test_survivors_may_lose_more():
    assert run_ranks(twice_work, 5, expendable=[0, 4])[1:4] == [[1, 2, 3]] * 3


def chaos_work(rank, world_size, uid, seed):
    """Everyone comes at a random moment with a short timeout; one is killed and one stopped, at random."""
    import random

    mesh = join(rank, world_size, uid)
    mesh.barrier()
    mine = random.Random(seed * 100 + rank)
    if rank in (1, 3):
        threading.Timer(mine.random() * 0.4, die if rank == 1 else stop).start()
    time.sleep(mine.random() * 0.4)
    try:
        return mesh.survivors(timeout=0.2)
    except PeerLost:
        return "out"


@pytest.mark.parametrize("seed", range(6), ids=lambda seed: f"seed{seed}")
def test_whoever_returns_agrees(seed):
    results = run_ranks(chaos_work, 6, seed, expendable=[1, 3])
    answers = {answer for answer in results if isinstance(answer, tuple)}
    assert len(answers) == 1, results
    (alive,) = answers
    assert all(isinstance(results[rank], tuple) for rank in alive if rank not in (1, 3)), results


def fork_work(rank, world_size, uid):
    """A child of a rank (a data loader, say) must neither hide its death nor use its mesh."""
    mesh = join(rank, world_size, uid)
    mesh.barrier()
    if rank == 1:
        if os.fork() == 0:
            time.sleep(15)
            os._exit(0)
        die()
    refused_in_child = None
    if rank == 0:
        pid = os.fork()
        if pid == 0:
            os._exit(0 if isinstance(refusal(mesh.barrier), ConfigError) else 1)
        refused_in_child = os.waitpid(pid, 0)[1] == 0
    start = time.monotonic()
    error = refusal(lambda: mesh.barrier("step", timeout=20))
    return type(error), time.monotonic() - start < 10, refused_in_child


def test_a_forked_child_does_not_hide_a_death():
    assert run_ranks(fork_work, 2, expendable=[1])[0] == (PeerLost, True, True)
