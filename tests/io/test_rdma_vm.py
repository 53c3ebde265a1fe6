# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The rdma backend over real verbs, with the kernel's SoftRoCE NICs in a small virtual machine:

    python tests/io/rdma_program.py     # outside: the machine is too slow for a compiler
    python tools/rxe_vm/rxe_vm.py run --nics 4 --timeout 240 -- .venv/bin/python -m pytest -m rdma -p no:cacheprovider

rxe0 <-> rxe1 and rxe2 <-> rxe3 are two networks. Figures from there compare cost per message, not bandwidth.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import time
from collections.abc import Iterator

import numpy as np
import pytest
from mori._core import io as core_io
from rdma_owner import Owner, digest_of, engine
from rdma_program import vm_program

from mori import io

pytestmark = [
    pytest.mark.rdma,
    pytest.mark.timeout(100),
    pytest.mark.skipif(os.environ.get("RXE_VM") != "1", reason="no SoftRoCE NICs: run it by tools/rxe_vm"),
]
SIZE = 8 << 20
PORTS = itertools.count(18515)
CODE = io.StatusCode


def program(scenario: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([vm_program(), scenario], capture_output=True, text=True, timeout=90, check=False)


@pytest.mark.parametrize(
    "scenario", ["bytes", "saturation", "rails", "failover", "broken", "denied", "garbage", "cancel"]
)
def test_scenario(scenario: str) -> None:
    done = program(scenario)
    assert done.returncode == 0 and "passed" in done.stdout, done.stdout + done.stderr


def perftest(tool: str) -> float:
    """MB/s (2**20) of 64 KiB messages. In a machine this slow its two ends may miss each other; the server gives up
    after one client, and a port that was used a moment ago cannot be bound again."""
    for _ in range(5):
        common = [tool, "-x", "1", "-s", "65536", "-n", "500", "-p", str(next(PORTS))]
        server = subprocess.Popen([*common, "-d", "rxe1"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            time.sleep(1.5)  # until it listens
            client = [*common, "-d", "rxe0", "10.8.0.2"]
            done = subprocess.run(client, capture_output=True, text=True, timeout=60, check=False)
        finally:
            server.kill()
            said = server.communicate()[0]
        rows = [line.split() for line in done.stdout.splitlines() if line.split()[:2] == ["65536", "500"]]
        if rows:
            return float(rows[0][3])
    raise AssertionError(f"{done.stdout}{done.stderr}\nthe server: {said}")


@pytest.mark.parametrize("op", ["write", "read"])
def test_messages_of_64_kib_as_fast_as_perftest(op: str) -> None:
    tool = f"ib_{op}_bw"
    if shutil.which(tool) is None:
        pytest.skip(f"no {tool} (apt-get install perftest)")
    ours, theirs = [], []
    for _ in range(4):  # a virtual machine's speed wanders: the best of each, after two rounds at least
        ours.append(float(program(f"speed-{op}").stdout.split()[0]))
        theirs.append(perftest(tool))
        if max(ours) >= 0.9 * max(theirs) and len(ours) > 1:
            break
    print(f"{op} 64 KiB: {max(ours):.1f} MB/s, {tool} {max(theirs):.1f} MB/s, ratio {max(ours) / max(theirs):.2f}")
    assert max(ours) >= 0.9 * max(theirs), (ours, theirs)


# ---- engines and processes -----------------------------------------------------------------------------


@pytest.fixture
def source() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, SIZE, np.uint8)


@pytest.fixture
def mine(source: np.ndarray) -> Iterator[tuple[io.IOEngine, io.MemoryDesc]]:
    with engine("initiator", "initiator") as made:
        yield made, made.register_buffer(source)


def session_to(mine: tuple[io.IOEngine, io.MemoryDesc], owner: Owner) -> io.IOEngineSession:
    mine[0].register_remote_engine(owner.engine_desc)
    return mine[0].create_session(mine[1], owner.memory_desc)


def break_path(cut: bool) -> None:
    """Both networks drop everything; ports stay up."""
    for interface in ("v1", "v3"):
        if cut:
            subprocess.run(["tc", "qdisc", "add", "dev", interface, "root", "netem", "loss", "100%"], check=True)
        else:
            subprocess.run(["tc", "qdisc", "del", "dev", interface, "root"], check=True)


def test_devices_are_examined() -> None:
    reports, reason = core_io.rdma_examine()
    assert reason == "" and [r["name"] for r in reports] == ["rxe0", "rxe1", "rxe2", "rxe3"]
    assert all(r["address"].startswith("10.8.") and r["mtu"] == 4096 and not r["problem"] for r in reports)


def test_write_and_read_between_processes(mine: tuple[io.IOEngine, io.MemoryDesc], source: np.ndarray) -> None:
    with Owner(SIZE) as owner:
        session = session_to(mine, owner)
        assert "carried by rdma" in str(session.explain())
        status = session.write(0, 0, SIZE, 0)
        assert status.WaitFor(30_000) == CODE.SUCCESS, status.Message()
        assert owner.digest() == digest_of(source)
        wanted = source.copy()
        source[:] = 0
        blocks = np.random.default_rng(2).permutation(SIZE >> 12).astype(np.int64) << 12
        status = session.batch_read(blocks, blocks, np.full(len(blocks), 4096), 0)
        assert status.WaitFor(30_000) == CODE.SUCCESS, status.Message()
        assert (source == wanted).all()


def test_killed_peer(mine: tuple[io.IOEngine, io.MemoryDesc]) -> None:
    with Owner(SIZE) as owner:
        session = session_to(mine, owner)
        assert session.write(0, 0, 4096, 0).WaitFor(30_000) == CODE.SUCCESS
        status = session.write(0, 0, SIZE, 0)
        owner.kill()
        start = time.monotonic()
        code = status.WaitFor(20_000)
        assert status.Failed() and code in (CODE.ERR_PEER_LOST, CODE.ERR_DENIED, CODE.ERR_RDMA_OP), status.Message()
        assert time.monotonic() - start < 5
    with Owner(SIZE, key="owner") as restarted:  # the same name, another incarnation
        stale = session.write(0, 0, 4096, 0)
        stale.WaitFor(20_000)
        assert stale.Failed()
        again = session_to(mine, restarted)
        status = again.write(0, 0, SIZE, 0)
        assert status.WaitFor(30_000) == CODE.SUCCESS, status.Message()


def test_stopped_peer(mine: tuple[io.IOEngine, io.MemoryDesc], source: np.ndarray) -> None:
    with Owner(SIZE) as owner:
        session = session_to(mine, owner)
        assert session.write(0, 0, 4096, 0).WaitFor(30_000) == CODE.SUCCESS
        owner.stop()
        status = session.write(0, 0, SIZE, 0)  # its NIC needs no CPU of the process
        assert status.WaitFor(30_000) == CODE.SUCCESS, status.Message()
        owner.go_on()
        assert owner.digest() == digest_of(source)
        owner.stop()
        break_path(True)  # and now nobody can say that the old queue pairs are gone
        try:
            start = time.monotonic()
            status = session.write(0, 0, SIZE, 0, deadline_s=1.0)
            code = status.WaitFor(20_000)
            seconds = time.monotonic() - start
        finally:
            break_path(False)
            owner.go_on()
        assert status.Failed() and code in (CODE.ERR_TIMEOUT, CODE.ERR_PEER_LOST), (code, status.Message())
        assert seconds < 6


def test_another_backend_carries_the_rest(source: np.ndarray) -> None:
    with engine("initiator", "initiator") as made, Owner(SIZE, tcp=True) as owner:
        made.register_remote_engine(owner.engine_desc)
        session = made.create_session(made.register_buffer(source), owner.memory_desc)
        assert session.write(0, 0, 4096, 0).WaitFor(30_000) == CODE.SUCCESS
        status = session.write(0, 0, SIZE, 0)
        break_path(True)
        try:
            made.create_backend("tcp")
            code = status.WaitFor(30_000)
            again = session.write(0, 0, SIZE, 0).WaitFor(30_000)
        finally:
            break_path(False)
        assert code == CODE.SUCCESS, status.Message()
        assert again == CODE.SUCCESS
        assert owner.digest() == digest_of(source)
