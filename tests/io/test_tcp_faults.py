# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The tcp backend when something goes wrong: every transfer ends, with the status of docs/io_failures.md, and
nothing is written after its end. Engines are built with ThreadSanitizer; a proxy stands for a bad network."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from net_programs import Failed, build, compiler
from proxy import Proxy
from tcp_crew import Engine, Memory, blocks, copied

pytestmark = pytest.mark.timeout(400)
BLOCK, COUNT = 64 << 10, 3000
SIZE = BLOCK * COUNT  # some 200 MB: longer under way than a test takes to interfere
SUCCESS, BAD_STATE, NOT_FOUND, TIMEOUT, CANCELLED, PEER_LOST, TRANSPORT = 0, 14, 12, 16, 17, 18, 19

Start = Callable[..., Engine]


@pytest.fixture(scope="module")
def program() -> Path:
    if compiler() is None:
        pytest.skip("no g++ to build the test programs with")
    return build("tcp_main", "thread")


@pytest.fixture
def start(program: Path, tmp_path: Path) -> Iterator[Start]:
    made: list[Engine] = []

    def one(key: str, **options: object) -> Engine:
        made.append(Engine(program, key, tmp_path, **options))  # type: ignore[arg-type]
        return made[-1]

    yield one
    for engine in made:
        assert "WARNING" not in engine.close()


def long_transfer(a: Engine, b: Engine, op: str, timeout_ms: int) -> tuple[Memory, Memory, str]:
    here, there = a.memory(SIZE), b.memory(SIZE)
    (here if op == "write" else there).bytes[:] = 1
    session = a.session(here, there)
    assert a.wait(a.go(session, op, np.array([[0, 0, 1]])))[0] == SUCCESS
    return here, there, a.go(session, op, blocks(COUNT, BLOCK, COUNT, 1), timeout_ms)


def wait_until_moving(target: Memory) -> None:
    deadline = time.monotonic() + 20
    while int(target.bytes[:: BLOCK // 4].sum()) < COUNT // 20:
        assert time.monotonic() < deadline, "no bytes arrive"


def nothing_lands_any_more(target: Memory, what: Callable[[], None]) -> None:
    """After `what`, which lets everybody go on, a canary in the whole memory stays."""
    target.bytes[:] = 0xEE
    what()
    time.sleep(0.3)
    assert (target.bytes == 0xEE).all(), "a late write"


@pytest.mark.parametrize("op", ["write", "read"])
def test_a_killed_peer_is_lost_at_once(start: Start, op: str) -> None:
    a, b = start("A"), start("B")
    a.introduce(b)
    here, there, status = long_transfer(a, b, op, 60000)
    wait_until_moving(there if op == "write" else here)
    b.kill()
    began = time.monotonic()
    code, _, words = a.wait(status)
    assert (code, time.monotonic() - began < 20) == (PEER_LOST, True), words
    assert "'B'" in words


@pytest.mark.parametrize("op", ["write", "read"])
@pytest.mark.parametrize("turn", range(3))
def test_a_stopped_peer_ends_in_a_time_out_and_writes_nothing_later(start: Start, op: str, turn: int) -> None:
    a, b = start("A"), start("B")
    a.introduce(b)
    here, there, status = long_transfer(a, b, op, 400)
    wait_until_moving(there if op == "write" else here)
    time.sleep(0.003 * turn)
    b.stop()
    code, us, words = a.wait(status)
    if code == SUCCESS:
        pytest.skip("it was over before the peer was stopped")
    assert code == TIMEOUT, words
    assert us < 5_000_000
    nothing_lands_any_more(there if op == "write" else here, b.go_on)


@pytest.mark.parametrize("op", ["write", "read"])
def test_a_cancelled_transfer_writes_nothing_later(start: Start, op: str) -> None:
    a, b = start("A"), start("B")
    a.introduce(b)
    here, there, status = long_transfer(a, b, op, 60000)
    wait_until_moving(there if op == "write" else here)
    a("cancel", status)
    code, _, words = a.wait(status)
    assert code in (CANCELLED, SUCCESS), words
    nothing_lands_any_more(there if op == "write" else here, lambda: None)


def test_after_a_cancellation_the_streams_go_on(start: Start) -> None:
    a, b = start("A"), start("B")
    a.introduce(b)
    here, there, status = long_transfer(a, b, "read", 60000)
    a("cancel", status)
    a.wait(status)
    there.bytes[:] = np.random.default_rng(3).integers(0, 256, SIZE, dtype=np.uint8)
    here.bytes[:] = 0
    triples = blocks(500, 4096, 1000, 4)
    assert a.wait(a.go("0", "read", triples))[0] == SUCCESS
    assert np.array_equal(here.bytes, copied(there.bytes, np.zeros(SIZE, np.uint8), triples, "read"))


@pytest.mark.parametrize("op", ["write", "read"])
def test_a_deregistration_ends_transfers_and_writes(start: Start, op: str) -> None:
    a, b = start("A"), start("B")
    a.introduce(b)
    here, there, status = long_transfer(a, b, op, 60000)
    wait_until_moving(there if op == "write" else here)
    b("deregister", there.id)
    if op == "write":
        nothing_lands_any_more(there, lambda: None)
    code, _, words = a.wait(status)
    assert code in (NOT_FOUND, SUCCESS), words


def test_a_restarted_peer_is_told_from_the_old_one(start: Start) -> None:
    a, b = start("A"), start("B")
    a.introduce(b)
    here, there = a.memory(4096), b.memory(4096)
    session, port = a.session(here, there), b.port
    block = np.array([[0, 0, 4096]])
    assert a.wait(a.go(session, "write", block))[0] == SUCCESS
    b.kill()
    again = start("B", port=port)
    code, _, words = a.wait(a.go(session, "write", block))
    assert code in (BAD_STATE, PEER_LOST), words
    a.introduce(again)
    assert a.wait(a.go(session, "write", block))[0] == BAD_STATE
    with pytest.raises(Failed, match="another run of that engine") as error:
        a.session(here, there)
    assert error.value.kind == f"Refused {BAD_STATE}"
    fresh = again.memory(4096)
    here.bytes[:] = 5
    assert a.wait(a.go(a.session(here, fresh), "write", block))[0] == SUCCESS
    assert (fresh.bytes == 5).all()


@pytest.mark.parametrize("op", ["write", "read"])
def test_streams_reset_by_the_network_are_rebuilt_and_only_the_rest_is_sent(start: Start, op: str) -> None:
    a, b = start("A", same_host=False), start("B", same_host=False)
    with Proxy(b.port) as proxy:
        proxy.cut_after, proxy.cuts_left = 9_000_000, 4
        a.introduce(b, port=proxy.port)
        size = 40 << 20
        here, there = a.memory(size), b.memory(size)
        source, target = (here, there) if op == "write" else (there, here)
        source.bytes[:] = np.random.default_rng(5).integers(0, 256, size, dtype=np.uint8)
        code, _, words = a.wait(a.go(a.session(here, there), op, blocks(600, BLOCK, 640, 6), 60000), 60000)
        assert code == SUCCESS, words
        assert np.array_equal(
            target.bytes, copied(source.bytes, np.zeros(size, np.uint8), blocks(600, BLOCK, 640, 6), op)
        )
        assert proxy.cuts_left == 0
        assert a.counter("tcp_streams_broken") >= 4
        assert a.counter("tcp_frames_again") >= 1
        assert a.counter("tcp_frames_sent") < 100  # about 40 MB in frames of 1 to 4 MiB, some of them twice


def test_streams_that_always_break_are_given_up(start: Start) -> None:
    a, b = start("A", same_host=False, retries=2), start("B", same_host=False)
    with Proxy(b.port) as proxy:
        proxy.cut_after = 400_000
        a.introduce(b, port=proxy.port)
        here, there = a.memory(SIZE), b.memory(SIZE)
        code, _, words = a.wait(a.go(a.session(here, there), "write", blocks(100, 1 << 20, 180, 6), 30000), 30000)
        assert code in (TRANSPORT, PEER_LOST), words


def test_a_slow_link_is_only_slow(start: Start) -> None:
    a, b = start("A", same_host=False), start("B", same_host=False)
    with Proxy(b.port) as proxy:
        a.introduce(b, port=proxy.port)
        here, there = a.memory(1 << 20), b.memory(1 << 20)
        here.bytes[:] = np.random.default_rng(5).integers(0, 256, 1 << 20, dtype=np.uint8)
        session = a.session(here, there)
        assert a.wait(a.go(session, "write", np.array([[0, 0, 1]])))[0] == SUCCESS
        proxy.delay_s = 0.02
        code, us, words = a.wait(a.go(session, "write", np.array([[0, 0, 1 << 20]])))
        assert code == SUCCESS and us > 20_000, words
        assert np.array_equal(here.bytes, there.bytes)


def test_a_request_changed_on_its_way_is_noticed(start: Start) -> None:
    a, b = start("A", same_host=False, streams=1), start("B", same_host=False)
    with Proxy(b.port) as proxy:
        a.introduce(b, port=proxy.port)
        here, there = a.memory(1 << 20), b.memory(1 << 20)
        here.bytes[:] = 9
        proxy.flip_at = 12 + 2 + 2 + 8 + 32 + 2 + 8 + 10 + 2 + 4 + 44 + 85  # in the first request's table
        code, _, words = a.wait(a.go(a.session(here, there), "write", np.array([[0, 0, 100]])))
        assert code == SUCCESS, words  # after another try
        assert proxy.flip_at is None
        assert b.counter("tcp_malformed") == 1
        assert (there.bytes[:100] == 9).all() and (there.bytes[100:] == 0).all()


def test_a_peer_that_nobody_reaches_any_more_times_out(start: Start) -> None:
    a, b = start("A", same_host=False), start("B", same_host=False)
    with Proxy(b.port) as proxy:
        a.introduce(b, port=proxy.port)
        _here, _there, status = long_transfer(a, b, "read", 500)
        proxy.hold = True
        code, us, words = a.wait(status)
        assert code in (TIMEOUT, SUCCESS), words
        assert us < 5_000_000
        proxy.hold = False
