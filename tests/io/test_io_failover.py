# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""A route that fails hands back what it did not confirm, and that, and only that, goes another way.

The backends add the source to a zeroed destination instead of copying, so a byte that is sent twice shows.
"""

from __future__ import annotations

import numpy as np
import pytest
from io_engines import assert_moved, blocks, engine, engines, introduce, random_bytes
from mori.io import StatusCode

pytestmark = pytest.mark.timeout(60)
FAULTY = {"add": 1, "chunk_bytes": 100, "fault_permille": 150}


@pytest.mark.parametrize("mode", [0, 1], ids=["inline", "threaded"])
@pytest.mark.parametrize("op", ["write", "read"])
def test_every_byte_arrives_once_in_spite_of_faults(mode: int, op: str) -> None:
    first, second = ("loopback", FAULTY | {"mode": mode, "seed": 3}), ("loopback2", FAULTY | {"mode": mode, "seed": 4})
    with engines(first, second, size=1 << 16, retries=10_000) as pair:
        source, target = (pair.x, pair.y) if op == "write" else (pair.y, pair.x)
        source[:] = random_bytes(source.size, 7)
        for _ in range(5):
            target[:] = 0
            local, remote = blocks(100, 640, 100)
            status = getattr(pair.session, f"batch_{op}")(local, remote, 640)
            status.wait(30)
            for lo, ro in zip(local.tolist(), remote.tolist(), strict=True):
                assert (pair.x[lo : lo + 640] == pair.y[ro : ro + 640]).all(), "lost, or sent twice"
        counted = pair.a.metrics()["engine"]
        assert counted["reroutes"] > 5 and counted["backend_faults"] == 0
        assert counted["resent_bytes"] > 0
        assert counted["ended"] == {"success": 5}


def test_a_failed_route_is_left_to_another_backend() -> None:
    with engines(("loopback", {"fail_jobs": 1, "add": 1, "chunk_bytes": 64}), ("loopback2", {"add": 1})) as pair:
        local, remote = blocks(50, 256, 100)
        status = pair.session.batch_write(local, remote, 256)
        status.wait(10)
        assert status.route == "loopback2"
        assert_moved(pair, local, remote, 256)
        again = pair.session.write(0, 0, 0x100)
        again.wait(10)
        assert again.route == "loopback2", "a route that failed stands behind for a while"
        explained = {route.backend: route for route in pair.session.explain().routes}
        assert explained["loopback"].failures == 1


def test_the_only_backend_is_prepared_again() -> None:
    with engines(("loopback", {"fail_jobs": 2, "add": 1, "chunk_bytes": 64})) as pair:
        pair.session.write(0, 0, 4096).wait(10)
        assert (pair.y[:4096] == pair.x[:4096]).all()
        assert pair.a.metrics()["engine"]["reroutes"] == 2


def test_the_budget_ends_and_nothing_is_called_success() -> None:
    with engines(("loopback", {"fault_permille": 1000}), retries=3) as pair:
        status = pair.session.write(0, 0, 4096)
        assert status.Wait() == StatusCode.ERR_TRANSPORT
        assert "gave up after 4 failed routes" in status.Message() and "fault as ordered" in status.Message()
        assert status.bytes_done < status.bytes_total


def test_what_is_no_fault_of_the_route_is_not_sent_again() -> None:
    with engines(("loopback", {"lose_jobs": 1}), ("loopback2", {})) as pair:
        status = pair.session.write(0, 0, 4096)
        assert status.Wait() == StatusCode.ERR_PEER_LOST and "peer lost as ordered" in status.Message()
        assert not pair.y.any()
        assert pair.session.write(0, 0, 4096).Wait() == StatusCode.SUCCESS


def test_a_backend_that_refuses_says_why() -> None:
    with engines(("loopback", {"refuse": 1})) as pair:
        status = pair.session.write(0, 0, 4096)
        assert status.Wait() == StatusCode.ERR_TRANSPORT and "loopback: told to refuse" in status.Message()
        explained = pair.session.explain()
        assert explained.chosen == "" and "told to refuse" in str(explained)
    with engines(("loopback", {"refuse": 1}), "loopback2") as pair:
        assert pair.a.explain(pair.mine, pair.theirs).chosen == "loopback2"


def test_removing_a_backend_moves_its_transfers_elsewhere() -> None:
    with engines("loopback", "loopback2") as pair:
        first = pair.session.write(0, 0, 64)
        first.wait(5)
        pair.a.remove_backend("loopback")
        second = pair.session.write(64, 64, 64)
        second.wait(5)
        assert (first.route, second.route) == ("loopback", "loopback2")
        pair.a.create_backend("loopback")
        pair.session.write(128, 128, 64).wait(5)
        assert (pair.x[:192] == pair.y[:192]).all()


def test_views_of_one_allocation_share_a_route_and_keep_their_bounds() -> None:
    with engine("a") as a, engine("b") as b:
        x, y = random_bytes(4096), np.zeros(4096, np.uint8)
        whole, part = b.register_buffer(y), b.register_buffer(y[1024:2048])
        inner = b.register_buffer(y[1536:1600])
        mine, half = a.register_buffer(x), a.register_buffer(x[2048:])
        introduce(a, b)
        a.create_session(half, part).write(0, 8, 100).wait(5)
        a.create_session(half, inner).write(200, 0, 64).wait(5)
        expected = np.zeros_like(y)
        expected[1032:1132], expected[1536:1600] = x[2048:2148], x[2248:2312]
        assert (y == expected).all()
        outside = a.create_session(half, part).write(0, 1000, 100)
        assert outside.Wait() == StatusCode.ERR_INVALID_ARGS and "remote memory of 1024 bytes" in outside.Message()
        b.deregister_memory(whole)
        a.create_session(mine, part).write(0, 0, 1024).wait(5)
        assert (y[1024:2048] == x[:1024]).all()
        b.deregister_memory(part)
        assert a.create_session(mine, part).write(0, 0, 8).Wait() == StatusCode.ERR_NOT_FOUND
        a.create_session(mine, inner).write(0, 0, 64).wait(5)


def test_an_engine_reaches_its_own_memory() -> None:
    with engine("a") as a:
        x, y = random_bytes(512), np.zeros(512, np.uint8)
        session = a.create_session(a.register_buffer(x), a.register_buffer(y))
        session.write(0, 0, 512).wait(5)
        assert (x == y).all() and session.alive() and a.alive("a")
