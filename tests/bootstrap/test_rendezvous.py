# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Ranks meet over a unique id; who is missing, double or of another opinion is named before the deadline."""

import os
import signal
import time

import pytest
from boot_helpers import MODES, join, refusal
from mori._store import StoreRendezvous
from mori.bootstrap import rendezvous
from mori.errors import ConfigError, TimeoutError, TransportError
from mori.mesh import Mesh
from mori.testing import run_ranks
from mori.uid import UID_BYTES, UniqueId, unique_id

from mori import bootstrap
from mori import uid as ids

pytestmark = pytest.mark.timeout(60)


def test_an_id_says_what_was_packed():
    parsed = UniqueId("10.1.2.3", 65535, bytes(range(16)), b"12345678")
    assert UniqueId.parse(parsed.pack()) == parsed
    assert len(parsed.pack()) == UID_BYTES == 128


def test_ids_differ_and_share_one_server():
    first, second = UniqueId.parse(unique_id()), UniqueId.parse(unique_id())
    assert first.token != second.token
    assert first.port == second.port
    assert first.host == "127.0.0.1"


@pytest.mark.parametrize(
    ("uid", "words"),
    [
        pytest.param(b"", "0 bytes", id="empty"),
        pytest.param(b"x" * 127, "127 bytes", id="short"),
        pytest.param(b"\0" * 128, "checksum", id="zeros"),
        pytest.param("x" * 128, "str", id="text"),
        pytest.param(7, "int", id="number"),
    ],
)
def test_what_is_no_id_is_refused(uid, words):
    with pytest.raises(ConfigError, match=words):
        rendezvous(uid=uid, rank=0, world_size=2, timeout=1)


@pytest.mark.parametrize("at", [0, 6, 40, 127])
def test_a_damaged_id_is_refused(at):
    damaged = bytearray(unique_id())
    damaged[at] ^= 0x10
    with pytest.raises(ConfigError, match="checksum"):
        UniqueId.parse(bytes(damaged))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"rank": 0}, "uid"),
        ({"uid": b"", "rank": 0}, "world_size"),
        ({"uid": b"", "comm": 1}, "uid"),
        ({"group": 1, "comm": 1}, "group and comm"),
        ({"comm": "COMM_WORLD"}, "mpi4py"),
        ({"group": "world"}, "group='world'"),
        ({"uid": "id", "rank": 2, "world_size": 2}, r"rank=2 is outside 0\.\.1"),
        ({"uid": "id", "rank": -1, "world_size": 2}, "rank=-1"),
        ({"uid": "id", "rank": 0, "world_size": 0}, "world_size=0"),
        ({"uid": "id", "rank": 0.0, "world_size": 2}, "rank=0.0"),
        ({"uid": "id", "rank": True, "world_size": 2}, "rank=True"),
        ({"timeout": -1}, "timeout=-1"),
        ({"timeout": "1"}, "timeout='1'"),
    ],
    ids=lambda v: str(v)[:40],
)
def test_bad_arguments_are_named(given, words):
    if given.get("uid") == "id":
        given = {**given, "uid": unique_id()}
    with pytest.raises(ConfigError, match=words):
        rendezvous(**{"timeout": 1, **given})


@pytest.mark.parametrize(("port", "host"), [(70000, None), (-1, None), (0, "no.such.host.invalid"), (0, "x" * 200)])
def test_bad_addresses_are_named(port, host):
    with pytest.raises(ConfigError, match=r"port|host"):
        unique_id(host, port)


def test_nothing_given_and_no_launcher_is_a_world_of_one(monkeypatch):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    with rendezvous(timeout=1) as alone, Mesh.connect(alone, timeout=1) as mesh:
        assert (mesh.rank, mesh.world_size) == (0, 1)
        assert [m.payload for m in mesh.exchange("x", b"y")] == [b"y"]
        assert mesh.survivors(timeout=1) == (0,)
        assert mesh.subset([0]).world_size == 1


def test_an_incomplete_launcher_is_refused(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    for name in ("WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="WORLD_SIZE"):
        rendezvous(timeout=1)


def missing_work(rank, world_size, uid, absent):
    if rank in absent:
        return None
    error = refusal(lambda: join(rank, world_size, uid, timeout=2 if rank == 0 else 40))
    return type(error), error.missing, str(error)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("absent", [(1,), (1, 3)], ids=["one", "two"])
def test_missing_ranks_are_named_to_all_when_the_first_gives_up(absent, mode):
    start = time.monotonic()
    results = run_ranks(missing_work, 4, absent, mode=mode)
    assert time.monotonic() - start < 30
    for kind, missing, text in (r for r in results if r):
        assert kind is TimeoutError
        assert missing == absent
        assert ", ".join(map(str, absent)) in text


def double_work(rank, world_size, uid):
    claimed = min(rank, 1)
    error = refusal(lambda: join(claimed, world_size, uid, timeout=10))
    return type(error), str(error)


def test_two_callers_of_one_rank_are_refused():
    start = time.monotonic()
    for kind, text in run_ranks(double_work, 3, mode="thread"):
        assert kind is ConfigError
        assert "rank=1 is taken" in text
    assert time.monotonic() - start < 9


def opinion_work(rank, world_size, uid):
    error = refusal(lambda: join(rank, world_size + (rank == 1), uid, timeout=10))
    return type(error), str(error)


def test_different_world_sizes_are_refused():
    start = time.monotonic()
    for kind, text in run_ranks(opinion_work, 3, mode="thread"):
        assert kind is ConfigError
        assert "world_size differs" in text
        assert "3" in text
        assert "4" in text
    assert time.monotonic() - start < 9


def forever_work(rank, world_size, uid):
    with join(rank, world_size, uid, timeout=0) as mesh:
        mesh.barrier()
        return mesh.survivors(timeout=0)


def test_a_timeout_of_zero_waits_for_ever():
    assert run_ranks(forever_work, 3, mode="thread") == [(0, 1, 2)] * 3


def test_an_id_is_good_for_one_context():
    def work(rank, world_size, uid):
        join(rank, world_size, uid).close()
        return type(refusal(lambda: join(rank, world_size, uid, timeout=2)))

    # The store is left clean, so a second use may find nothing of the first; all ranks meet again then.
    assert set(run_ranks(work, 2, mode="thread")) <= {ConfigError, type(None)}


def test_an_id_whose_maker_ended_is_refused_at_once():
    parsed = UniqueId.parse(unique_id())
    gone = UniqueId(parsed.host, 1, parsed.token, parsed.host_mark).pack()
    start = time.monotonic()
    with pytest.raises(TransportError, match=r"127\.0\.0\.1:1.*ended"):
        rendezvous(uid=gone, rank=0, world_size=2, timeout=10)
    assert time.monotonic() - start < 5


def test_an_unreachable_id_of_another_host_says_what_to_do():
    parsed = UniqueId.parse(unique_id())
    foreign = UniqueId(parsed.host, 1, parsed.token, b"elsewhr.").pack()
    with pytest.raises(TransportError, match="MORI_BOOTSTRAP_HOST"):
        rendezvous(uid=foreign, rank=0, world_size=2, timeout=10)


def server(pipe):
    pipe.send(unique_id())
    signal.pause()


def test_a_stopped_store_does_not_hang_us():
    import multiprocessing

    context = multiprocessing.get_context("forkserver")
    mine, theirs = context.Pipe()
    process = context.Process(target=server, args=(theirs,), daemon=True)
    process.start()
    uid = mine.recv()
    found = rendezvous(uid=uid, rank=0, world_size=2, timeout=5)
    os.kill(process.pid, signal.SIGSTOP)
    try:
        start = time.monotonic()
        with pytest.raises(TimeoutError, match="does not answer"):
            found.exchange("x", b"", timeout=0.3)
        with pytest.raises((TimeoutError, TransportError)):
            rendezvous(uid=uid, rank=1, world_size=2, timeout=0.3)
        found.close()
        assert time.monotonic() - start < 9
    finally:
        process.kill()
        process.join()


class Recorder(dict):
    """A store in memory that shows what is left in it."""

    def set(self, key, value):
        self[key] = value if isinstance(value, bytes) else value.encode()

    def check(self, keys):
        return all(key in self for key in keys)

    def multi_get(self, keys):
        return [self[key] for key in keys]

    def add(self, key, value):
        self[key] = str(int(self.get(key, b"0")) + value).encode()
        return int(self[key])

    def compare_set(self, key, expected, desired):
        return self.setdefault(key, desired.encode())

    def delete_key(self, key):
        return self.pop(key, None) is not None


def test_the_store_is_left_clean(monkeypatch):
    store = Recorder()
    monkeypatch.setattr(bootstrap, "connect", lambda uid, deadline: store)
    run_ranks(lambda rank, size, uid: join(rank, size, uid).close(), 3, mode="thread")
    assert store == {}


def test_ranks_at_different_tags_are_named(monkeypatch):
    def work(rank, world_size, uid):
        with rendezvous(uid=uid, rank=rank, world_size=world_size, timeout=5) as found:
            assert isinstance(found, StoreRendezvous)
            return str(refusal(lambda: found.exchange(f"tag {rank}", b"", timeout=5)))

    for text in run_ranks(work, 2, mode="thread"):
        assert "'tag 0'" in text
        assert "'tag 1'" in text


def test_a_forked_child_ends_and_makes_ids_of_its_own():
    parent = UniqueId.parse(unique_id())
    pid = os.fork()
    if pid == 0:
        signal.alarm(10)
        own = UniqueId.parse(ids.unique_id())
        os._exit(0 if own.port != parent.port else 1)
    assert os.waitpid(pid, 0)[1] == 0
