# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Cancelling, deadlines and closing: terminal only once nothing can be written any more. Canary pages are filled the
moment the status is terminal; a late write would spoil them."""

from __future__ import annotations

import threading
import time

import pytest
from io_engines import engines
from mori.io import StatusCode

import mori

pytestmark = pytest.mark.timeout(60)
SLOW = ("loopback", {"mode": 1, "delay_us": 3000, "chunk_bytes": 4096})
BYTES = 1 << 20  # some 0.8 s of it


def canary(pair: object) -> None:
    pair.y[:] = 0xCA  # type: ignore[attr-defined]
    time.sleep(0.05)
    assert (pair.y == 0xCA).all(), "written after the status was terminal"  # type: ignore[attr-defined]


@pytest.mark.parametrize("after_s", [0, 0.001, 0.05])
def test_cancel_is_terminal_when_quiet(after_s: float) -> None:
    with engines(SLOW) as pair:
        status = pair.session.write(0, 0, BYTES)
        time.sleep(after_s)
        assert status.cancel()
        assert status.WaitFor(5000) == StatusCode.ERR_CANCELLED
        canary(pair)
        assert "not confirmed" in status.Message()
        assert not status.cancel(), "it is over"
        with pytest.raises(mori.TransportError, match="cancelled") as error:
            status.raise_()
        assert error.value.code == StatusCode.ERR_CANCELLED


def test_cancel_of_a_queued_transfer() -> None:
    with engines(SLOW) as pair:
        first, second = pair.session.write(0, 0, BYTES), pair.session.write(0, 0, BYTES)
        second.cancel()
        first.cancel()
        assert second.WaitFor(5000) == first.WaitFor(5000) == StatusCode.ERR_CANCELLED
        canary(pair)


def test_a_complete_transfer_cannot_be_cancelled() -> None:
    with engines() as pair:
        status = pair.session.write(0, 0, 4096)
        assert not status.cancel() and status.Succeeded()


def test_the_deadline_ends_a_transfer_nobody_waits_for() -> None:
    with engines(SLOW) as pair:
        began = time.monotonic()
        status = pair.session.write(0, 0, BYTES, 1, deadline_s=0.05)
        while not status.done():
            time.sleep(0.002)
        assert 0.04 < time.monotonic() - began < 20
        canary(pair)
        assert status.Code() == StatusCode.ERR_TIMEOUT
        with pytest.raises(mori.TimeoutError, match="deadline passed"):
            status.raise_()


def test_the_default_deadline_is_the_engines() -> None:
    with engines(SLOW, timeout_s=0.05) as pair:
        assert pair.session.write(0, 0, BYTES).WaitFor(5000) == StatusCode.ERR_TIMEOUT
        forever = pair.session.write(0, 0, 40960, 1, deadline_s=0)
        assert forever.WaitFor(5000) == StatusCode.SUCCESS


def test_many_deadlines_in_any_order() -> None:
    with engines(SLOW) as pair:
        after = [0.4, 0.05, 0.2, 0.1, 0.3, 0.15]
        statuses = [pair.session.write(0, 0, BYTES, i, deadline_s=s) for i, s in enumerate(after)]
        assert pair.a.wait_all(statuses, 5000) == StatusCode.ERR_TIMEOUT
        assert [s.Code() for s in statuses] == [StatusCode.ERR_TIMEOUT] * len(after)


def test_a_wait_that_times_out_leaves_the_transfer_alone() -> None:
    with engines(SLOW) as pair:
        status = pair.session.write(0, 0, 81920)
        assert status.WaitFor(0) == StatusCode.IN_PROGRESS
        assert status.WaitFor(5) == StatusCode.IN_PROGRESS
        with pytest.raises(mori.TimeoutError, match="it goes on"):
            status.wait(0.005)
        status.wait(5)
        assert (pair.y[:81920] == pair.x[:81920]).all()


def test_progress_is_told() -> None:
    with engines(SLOW) as pair:
        seen: list[tuple[int, int]] = []
        pair.session.write(0, 0, 81920).wait(
            10, progress=lambda done, total: seen.append((done, total)), interval_s=0.01
        )
        assert seen[-1] == (81920, 81920) and len(seen) > 2
        assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_closing_ends_transfers_and_refuses_more() -> None:
    with engines(SLOW) as pair:
        status = pair.session.write(0, 0, BYTES)
        pair.a.close()
        assert status.Code() == StatusCode.ERR_BAD_STATE and "closed" in status.Message()
        canary(pair)
        late = pair.session.write(0, 0, 1)
        assert late.Code() == StatusCode.ERR_BAD_STATE
        with pytest.raises(mori.TransportError, match="closed"):
            pair.a.register_buffer(pair.x)
        pair.a.close()


def test_threads_that_wait_see_the_close() -> None:
    with engines(SLOW) as pair:
        status = pair.session.write(0, 0, BYTES)
        codes: list[StatusCode] = []
        threads = [threading.Thread(target=lambda: codes.append(status.Wait())) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.02)
        pair.a.close()
        for thread in threads:
            thread.join(5)
        assert codes == [StatusCode.ERR_BAD_STATE] * 4


@pytest.mark.parametrize("side", ["local", "remote"])
def test_deregistration_ends_what_uses_the_memory(side: str) -> None:
    with engines(SLOW) as pair:
        status = pair.session.write(0, 0, BYTES)
        time.sleep(0.02)
        if side == "local":
            pair.a.deregister_memory(pair.mine)
        else:
            pair.b.deregister_memory(pair.theirs)
        assert status.done(), "it ended before the memory was given back"
        canary(pair)
        assert status.Code() == StatusCode.ERR_NOT_FOUND and "deregistered" in status.Message()
        assert pair.session.write(0, 0, 1).Wait() == StatusCode.ERR_NOT_FOUND
        assert pair.a.metrics()["engine"]["in_flight"] == 0


def test_forgetting_an_engine_ends_its_transfers() -> None:
    with engines(SLOW) as pair:
        status = pair.session.write(0, 0, BYTES)
        pair.a.deregister_remote_engine(pair.b.get_engine_desc())
        assert status.Code() == StatusCode.ERR_BAD_STATE
        canary(pair)
        with pytest.raises(mori.TransportError, match="not known here"):
            pair.a.create_session(pair.mine, pair.theirs)
        pair.a.register_remote_engine(pair.b.get_engine_desc())
        pair.a.create_session(pair.mine, pair.theirs).write(0, 0, 4096).wait(5)
