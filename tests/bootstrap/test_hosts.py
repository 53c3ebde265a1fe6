# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Ranks of several hosts, which a test makes of one: they meet over TCP, prove that they belong together, pass no
descriptors, and agree on who is left by way of the store."""

import os
import signal
import socket
import time

import pytest
from boot_helpers import join, memfd, refusal
from mori.errors import PeerLost, TransportError
from mori.testing import run_ranks

from mori import _greeting, _meet

pytestmark = pytest.mark.timeout(60)


def on_host(name: str) -> None:
    """From now on this process, which is the test's own, counts as of that host."""
    _meet.host_mark = lambda: name.encode().ljust(8)


def meet_work(rank, world_size, uid, hosts):
    on_host(hosts[rank])
    mesh = join(rank, world_size, uid)
    fd = memfd(str(rank))
    messages = mesh.exchange("fds", b"%d" % rank, [fd])
    seen = {}
    for peer, message in enumerate(messages):
        if message.fds:
            seen[peer] = os.pread(message.fds[0], 10, 0)
            os.close(message.fds[0])
    small = mesh.subset([2, 0, 3]) if rank in (0, 2, 3) else None
    if small is not None:
        small.barrier("subset")
    near = None if small is None else small.neighbours
    return [m.payload for m in messages], seen, mesh.neighbours, mesh.remote, bool(mesh.address), near


def test_ranks_of_two_hosts_meet():
    results = run_ranks(meet_work, 5, "ababb")
    for rank, (payloads, seen, neighbours, remote, address, _) in enumerate(results):
        here = {r for r in range(5) if "ababb"[r] == "ababb"[rank]}
        assert payloads == [b"%d" % r for r in range(5)]
        assert seen == {r: b"%d" % r for r in here if r != rank}
        assert neighbours == here
        assert set(remote) == set(range(5)) - here
        assert address
    assert results[0][5] == {0, 1} and results[3][5] == {2}


def big_work(rank, world_size, uid):
    on_host(str(rank))
    mesh = join(rank, world_size, uid)
    messages = mesh.exchange("big", bytes([rank]) * 3_000_000)
    return [len(m.payload) for m in messages], [set(m.payload) for m in messages]


def test_every_rank_on_a_host_of_its_own():
    for lengths, contents in run_ranks(big_work, 3):
        assert lengths == [3_000_000] * 3
        assert contents == [{0}, {1}, {2}]


def loss_work(rank, world_size, uid):
    """A whole host dies; the others agree without it, twice."""
    on_host("ab"[rank % 2])
    mesh = join(rank, world_size, uid)
    mesh.barrier()
    if rank % 2:
        os.kill(os.getpid(), signal.SIGKILL)
    error = refusal(lambda: mesh.barrier("step", timeout=20))
    called = mesh.roll_call(timeout=20)
    ranks = mesh.survivors(timeout=20)
    rest = mesh.subset(ranks)
    rest.barrier("rest")
    return type(error), called, ranks, rest.world_size


def test_a_host_that_dies_is_left_out():
    results = run_ranks(loss_work, 4, expendable=[1, 3])
    for kind, called, ranks, size in results[::2]:
        assert kind in (PeerLost, TransportError)
        assert called == ranks == (0, 2)
        assert size == 2


def stranger_work(rank, world_size, uid):
    """While rank 0 waits for rank 1, somebody without the secret calls its port, or says nothing."""
    on_host(str(rank))
    if rank == 1:
        real = _greeting.prove
        first = []

        def wrong_once(secret, what, *parts):
            if what == b"call" and not first:
                first.append(1)
                return real(b"not the secret", what, *parts)
            return real(secret, what, *parts)

        _meet.prove = wrong_once
        dial = _meet._dial

        def after_a_silent_one(door, *arguments):
            silent = socket.create_connection((door.addresses[0], door.port))
            try:
                return dial(door, *arguments)
            finally:
                silent.close()

        _meet._dial = after_a_silent_one
    mesh = join(rank, world_size, uid)
    mesh.barrier()
    return True


def test_who_does_not_know_the_secret_is_hung_up_on():
    assert run_ranks(stranger_work, 2) == [True, True]


def gone_store_work(rank, world_size, uid):
    """The store's process is this rank 0's; it dies with it, and nobody decides."""
    on_host(str(rank))
    mesh = join(rank, world_size, uid)
    mesh.barrier()
    if rank != 0:
        mesh._ledger._store = None  # as after the end of its server, at once
        start = time.monotonic()
        error = refusal(lambda: mesh.survivors(timeout=5))
        return type(error), time.monotonic() - start < 15
    time.sleep(1)
    return None


def test_without_the_store_nobody_goes_on():
    for result in run_ranks(gone_store_work, 3)[1:]:
        assert result == (TransportError, True)


def test_addresses_of_this_host():
    everything = _greeting.addresses()
    assert everything and everything[-1] == "127.0.0.1"
    assert _greeting.addresses("lo") == ["127.0.0.1"]
    with pytest.raises(Exception, match="MORI_SOCKET_IFNAME='no-such'"):
        _greeting.addresses("no-such")
