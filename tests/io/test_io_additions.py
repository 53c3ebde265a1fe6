# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""What goes beyond the names that frameworks know: prepared transfers, strides, notifications, await, traces."""

from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest
from io_engines import Pair, assert_moved, blocks, engine, engines, introduce, random_bytes
from mori.io import StatusCode, Strided

import mori

pytestmark = pytest.mark.timeout(60)
SLOW = ("loopback", {"mode": 1, "delay_us": 1000, "chunk_bytes": 4096})


def test_a_prepared_transfer_is_posted_again() -> None:
    with engines() as pair:
        local, remote = blocks(100, 512, 1000)
        prepared = pair.session.prepare("write", local, remote, 512)
        assert prepared.bytes == 51200 and 0 < prepared.segments <= 100
        for round_ in range(3):
            pair.x[:] = random_bytes(pair.x.size, round_)
            prepared.post(round_).wait(5)
            assert_moved(pair, local, remote, 512)
        back = pair.session.prepare("read", local, remote, 512)
        pair.x[:] = 0
        statuses = [back.post(i) for i in range(4)]  # several at a time
        assert pair.a.wait_all(statuses, 5000) == StatusCode.SUCCESS


def test_strides_move_every_nth_block() -> None:
    with engines() as pair:
        pair.session.batch_write(Strided(0, 4096, 16), Strided(512, 2048, 16), 512).wait(5)
        assert_moved(pair, np.arange(16) * 4096, np.arange(16) * 2048 + 512, 512)
        assert (Strided(1, 2, 3).start, Strided(1, 2, 3).stride, Strided(1, 2, 3).count) == (1, 2, 3)


def pop(owner: object, count: int) -> list[object]:
    deadline, popped = time.monotonic() + 10, []
    while len(popped) < count and time.monotonic() < deadline:
        popped += owner.pop_notifications()  # type: ignore[attr-defined]
        time.sleep(0.002)
    return popped


def test_a_notification_comes_after_the_bytes() -> None:
    with engines() as pair:
        for i in range(20):
            pair.x[:8] = i + 1
            pair.session.write(0, 0, 8, i, notify=b"block %d" % i)
            (note,) = pop(pair.b, 1)
            assert note == ("a", i, b"block %d" % i)
            assert (pair.y[:8] == i + 1).all()
        pair.session.read(0, 0, 8, 99, notify=b"read").wait(5)
        assert pop(pair.b, 1) == [("a", 99, b"read")]


def test_messages_keep_their_order_both_ways() -> None:
    with engines() as pair:
        introduce(pair.b, pair.a)
        for i in range(200):
            pair.a.send_notification("b", b"a%d" % i)
            pair.b.send_notification("a", b"b%d" % i, uid=i)
        assert [n.message for n in pop(pair.b, 200)] == [b"a%d" % i for i in range(200)]
        assert [n.transfer_uid for n in pop(pair.a, 200)] == list(range(200))


def test_a_failed_transfer_notifies_nobody() -> None:
    with engines(("loopback", {"lose_jobs": 1})) as pair:
        pair.session.write(0, 0, 8, 1, notify=b"lost").Wait()
        pair.session.write(0, 0, 8, 2, notify=b"kept").Wait()
        assert [n.message for n in pop(pair.b, 1)] == [b"kept"]


def test_await_gives_the_loop_away() -> None:
    async def main(pair: Pair) -> int:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0.001)

        ticking = asyncio.ensure_future(tick())
        await asyncio.gather(*(wait_for(pair.session.write(i * 4096, i * 4096, 4096, i)) for i in range(20)))
        await pair.session.write(0, 0, 1)
        ticking.cancel()
        return ticks

    async def wait_for(status: object) -> None:
        await status  # type: ignore[misc]

    with engines(SLOW) as pair:
        assert asyncio.run(main(pair)) > 3
        assert (pair.x[:81920] == pair.y[:81920]).all()


def test_await_raises_what_went_wrong() -> None:
    async def main(pair: Pair) -> None:
        with pytest.raises(mori.ConfigError, match="leave the local memory"):
            await pair.session.write(1 << 30, 0, 1)
        with pytest.raises(mori.TimeoutError, match="deadline"):
            await pair.session.write(0, 0, 1 << 20, 1, deadline_s=0.02)

    with engines(SLOW) as pair:
        asyncio.run(main(pair))


def test_cancelling_the_task_cancels_the_transfer_and_stays_until_it_is_quiet() -> None:
    async def main(pair: Pair) -> None:
        status = pair.session.write(0, 0, 1 << 20)

        async def wait_for() -> None:
            await status

        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(wait_for(), 0.02)
        assert status.Code() == StatusCode.ERR_CANCELLED
        pair.y[:] = 0xCA
        await asyncio.sleep(0.05)
        assert (pair.y == 0xCA).all()

    with engines(SLOW) as pair:
        asyncio.run(main(pair))


def test_metrics_count() -> None:
    with engines() as pair:
        pair.session.batch_write([0, 8192], [0, 8192], 4096).wait(5)
        pair.session.read(0, 0, 100).wait(5)
        pair.session.write(1 << 30, 0, 1)
        counted = pair.a.metrics()
        engine_ = counted["engine"]
        assert (engine_["write_transfers"], engine_["write_segments"], engine_["write_bytes"]) == (1, 2, 8192)
        assert (engine_["read_transfers"], engine_["read_bytes"], engine_["in_flight"]) == (1, 100, 0)
        assert engine_["ended"] == {"success": 2, "err_invalid_args": 1}
        assert sum(engine_["duration_us"].values()) == 2
        assert counted["backends"]["loopback"]["bytes"] == 8292


def test_the_trace_tells_a_transfers_story() -> None:
    failing = ("loopback", {"fail_jobs": 1, "chunk_bytes": 10})
    with engines(failing, "loopback2", trace_events=100) as pair:
        status = pair.session.write(0, 0, 100)
        status.wait(5)
        events = pair.a.take_trace()
        assert [(e.kind, e.backend) for e in events] == [
            ("started", ""),
            ("carried", "loopback"),
            ("attempt_ended", "loopback"),
            ("carried", "loopback2"),
            ("attempt_ended", "loopback2"),
            ("ended", ""),
        ]
        assert {e.transfer for e in events} == {status.id} and {e.op for e in events} == {"write"}
        assert [e.ns for e in events] == sorted(e.ns for e in events)
        assert events[2].code == "err_transport" and events[3].bytes < 100
        for i in range(100):
            pair.session.write(0, 0, 100, i).wait(5)
        assert len(pair.a.take_trace()) == 100 and pair.a.take_trace() == []


def test_bytes_like_things_can_be_registered() -> None:
    with engine("a") as a, engine("b") as b:
        x, y = bytearray(b"abcdef"), bytearray(6)
        introduce(a, b)
        a.create_session(a.register_buffer(x), b.register_buffer(y)).write(0, 0, 6).wait(5)
        assert y == x


def test_importing_and_using_needs_no_torch() -> None:
    import subprocess
    import sys

    code = (
        "import sys, numpy; sys.modules['torch'] = None; import mori.io as io, mori.cpp;"
        "a = io.IOEngine('a'); m = a.register_buffer(numpy.zeros(9, 'u1')); "
        "a.create_session(m, m).write(0, 0, 9).wait(5)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr


def test_names_are_loaded_when_they_are_used() -> None:
    import subprocess
    import sys

    code = (
        "import sys, mori; assert 'mori.io' not in sys.modules; mori.io.IOEngine; mori.cpp.MemoryDesc;"
        "assert mori.cpp.MemoryDesc is mori.io.MemoryDesc and 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr
