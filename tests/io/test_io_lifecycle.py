# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Engines come, go, restart and fork; descriptors outlive them and are refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from io_engines import engine, engines, introduce, random_bytes
from mori.io import EngineDesc, IOEngine, IOEngineConfig, MemoryDesc, StatusCode

import mori

pytestmark = pytest.mark.timeout(90)


def test_a_restarted_peer_is_another_one() -> None:
    with engine("a") as a:
        x, y = random_bytes(256), np.zeros(256, np.uint8)
        mine = a.register_buffer(x)
        first = engine("b")
        old = first.register_buffer(y)
        introduce(a, first)
        session = a.create_session(mine, old)
        session.write(0, 0, 256).wait(5)
        first.close()
        assert not a.alive("b")
        assert session.write(0, 0, 1).Wait() == StatusCode.ERR_PEER_LOST
        with engine("b") as second:
            introduce(a, second)
            assert a.alive("b")
            stale = session.write(0, 0, 1)
            assert stale.Wait() == StatusCode.ERR_BAD_STATE and "exchange descriptors again" in stale.Message()
            with pytest.raises(mori.TransportError, match="another run") as refusal:
                a.create_session(mine, old)
            assert refusal.value.code == StatusCode.ERR_BAD_STATE
            (posted,) = a.batch_write([mine], [[0]], [old], [[0]], [[1]], [1])
            assert posted.Code() == StatusCode.ERR_BAD_STATE
            y[:] = 0
            a.create_session(mine, second.register_buffer(y)).write(0, 0, 256).wait(5)
            assert (x == y).all()


def test_another_run_behind_the_same_address_is_noticed() -> None:
    with engine("a") as a:
        mine = a.register_buffer(random_bytes(64))
        first = engine("b")
        desc = first.get_engine_desc()
        old = first.register_buffer(np.zeros(64, np.uint8))
        first.close()
        with IOEngine("b", IOEngineConfig(port=desc.port, backends=["loopback"])):
            a.register_remote_engine(desc)
            status = a.create_session(mine, old).write(0, 0, 1)
            assert status.Wait() == StatusCode.ERR_BAD_STATE, status.Message()


def test_a_connection_that_broke_is_made_again() -> None:
    with engines() as pair:
        pair.session.write(0, 0, 64).wait(5)
        introduce(pair.b, pair.a)
        pair.b.deregister_remote_engine(pair.a.get_engine_desc())  # closes the connection
        deadline = time.monotonic() + 5
        while (status := pair.session.write(64, 64, 64)).Wait() != StatusCode.SUCCESS:
            assert time.monotonic() < deadline, status.Message()
            time.sleep(0.01)
        assert (pair.x[:128] == pair.y[:128]).all()


def test_wrong_keys_and_forged_descriptors_are_denied() -> None:
    import dataclasses

    with engines() as pair:
        forged = dataclasses.replace(pair.theirs, region_key=bytes(16))
        status = pair.a.create_session(pair.mine, forged).write(0, 0, 1)
        assert status.Wait() == StatusCode.ERR_DENIED and "wrong key" in status.Message()
        longer = dataclasses.replace(pair.theirs, size=pair.theirs.size + 4096)
        status = pair.a.create_session(pair.mine, longer).write(0, pair.theirs.size, 1)
        assert status.Wait() == StatusCode.ERR_INVALID_ARGS and "the owner registered" in status.Message()
        unknown = dataclasses.replace(pair.theirs, id=999)
        assert pair.a.create_session(pair.mine, unknown).write(0, 0, 1).Wait() == StatusCode.ERR_NOT_FOUND
        assert pair.session.write(0, 0, 1).Wait() == StatusCode.SUCCESS
        assert pair.y[1:].sum() == 0


def test_alive_asks_the_peer() -> None:
    code = (
        "import sys; from mori.io import *; b = IOEngine('b', IOEngineConfig(backends=[]));"
        "sys.stdout.buffer.write(b.get_engine_desc().pack()); sys.stdout.flush(); sys.stdin.read()"
    )
    with (
        engine("a") as a,
        subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child,
    ):
        try:
            assert child.stdout is not None
            a.register_remote_engine(EngineDesc.unpack(os.read(child.stdout.fileno(), 4096)))
            assert a.alive("b")
            os.kill(child.pid, signal.SIGSTOP)
            while ") T" not in Path(f"/proc/{child.pid}/stat").read_text():
                time.sleep(0.001)
            began = time.monotonic()
            assert not a.alive("b", timeout_s=0.3)
            assert time.monotonic() - began < 10
            os.kill(child.pid, signal.SIGCONT)
            assert a.alive("b", timeout_s=10)
        finally:
            child.kill()
        child.wait(10)
        deadline = time.monotonic() + 10
        while a.alive("b", timeout_s=0.5):
            assert time.monotonic() < deadline


@pytest.mark.skipif(sys.version_info < (3, 10), reason="needs os.fork with threads")
def test_a_forked_child_is_told() -> None:
    with engines(("loopback", {"mode": 1, "delay_us": 2000, "chunk_bytes": 4096})) as pair:
        status = pair.session.write(0, 0, 1 << 20)
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:  # the child: each use must fail at once, none may hang
            said = []
            for use in (
                lambda: pair.session.write(0, 0, 1),
                lambda: pair.a.register_buffer(pair.x),
                status.Wait,
                pair.a.close,
                pair.session.alive,
                status.cancel,
            ):
                try:
                    use()
                    said.append("worked")
                except mori.TransportError as error:
                    said.append("refused" if "fork" in str(error) else str(error))
                except BaseException as error:
                    said.append(repr(error))
            os.write(writer, ",".join(said).encode())
            os._exit(0)
        os.close(writer)
        assert os.read(reader, 4096).decode() == ",".join(["refused"] * 6)
        os.close(reader)
        os.waitpid(pid, 0)
        status.cancel()
        status.WaitFor(5000)
        pair.session.write(0, 0, 4096).wait(20)  # the parent goes on


def test_engines_dropped_without_close_leave_no_threads_and_descriptors() -> None:
    def leave(count: int) -> tuple[int, int]:
        for _ in range(count):
            one, other = engine("a"), engine("b")
            mine, theirs = one.register_buffer(random_bytes(64)), other.register_buffer(np.zeros(64, np.uint8))
            introduce(one, other)
            one.create_session(mine, theirs).write(0, 0, 64).wait(5)
            del one, other
        return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))

    before = leave(1)
    assert leave(5) <= before


def test_an_idle_engine_uses_no_cpu() -> None:
    with engines() as pair:
        pair.session.write(0, 0, 64).wait(5)
        time.sleep(0.1)
        before = time.process_time()
        time.sleep(0.5)
        assert time.process_time() - before < 0.02


def test_the_same_memory_registered_from_many_threads() -> None:
    with engine("a") as a:
        x = random_bytes(1 << 16)
        ids: list[int] = []

        def register() -> None:
            for i in range(50):
                desc = a.register_buffer(x[i * 64 : (i + 1) * 64])
                ids.append(desc.id)
                if i % 2:
                    a.deregister_memory(desc)

        threads = [threading.Thread(target=register) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert len(set(ids)) == 200, "an id is never given twice"


def test_descriptors_keep_their_fields_and_hide_their_key() -> None:
    with engines() as pair:
        assert MemoryDesc.unpack(pair.theirs.pack()) == pair.theirs
        assert EngineDesc.unpack(pair.b.get_engine_desc().pack()) == pair.b.get_engine_desc()
        assert pair.theirs.region_key.hex() not in repr(pair.theirs)
        assert MemoryDesc() == MemoryDesc.unpack(MemoryDesc().pack())
        assert len({pair.theirs, MemoryDesc.unpack(pair.theirs.pack())}) == 1
