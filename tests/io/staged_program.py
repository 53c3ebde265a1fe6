# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""GPU memory by backends that move host memory, on real or pretended GPUs: `staged_program.py KIND SCENARIO`.

A process of its own for each scenario, since the pretended driver must be found before anything opens one.
"""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

import numpy as np
from mori.io import EngineDesc, IOEngine, IOEngineConfig, MemoryDesc, MemoryLocationType, StatusCode

from mori import _core

BYTES = 12 << 20


class Place:
    """`BYTES` of host memory, or of a GPU."""

    def __init__(self, kind: str, gpu: int) -> None:
        self.gpu = gpu
        if gpu >= 0:
            count, why = _core.device_count(kind)
            assert count, why
            self.device = _core.open_device(kind, gpu % count, "", 1, 1)
            self.ordinal = gpu % count
            self.address = self.device.allocate(BYTES)
        else:
            self.array = np.zeros(BYTES, np.uint8)
            self.address, self.ordinal = self.array.ctypes.data, -1

    def put(self, data: np.ndarray) -> None:
        if self.gpu >= 0:
            self.device.copy(self.address, data.ctypes.data, data.nbytes)
        else:
            self.array[:] = data

    def get(self) -> np.ndarray:
        if self.gpu < 0:
            return self.array.copy()
        data = np.empty(BYTES, np.uint8)
        self.device.copy(data.ctypes.data, self.address, BYTES)
        return data

    def register(self, engine: IOEngine) -> MemoryDesc:
        where = MemoryLocationType.GPU if self.gpu >= 0 else MemoryLocationType.CPU
        return engine.register_memory(self.address, BYTES, self.ordinal, where)


def engine(key: str, backend: str | None) -> IOEngine:
    made = IOEngine(key, IOEngineConfig(backends=None if backend is None else [], timeout_s=20))
    if backend is not None:
        made.create_backend(backend)
    return made


def end(status: Any) -> StatusCode:
    status.Wait()
    return StatusCode(status.Code())


def layout(rng: np.random.Generator, most: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Blocks of any sizes that do not overlap, in another order on each side."""
    sizes = rng.integers(1, most, 3000)
    sizes = sizes[np.cumsum(sizes + 8) < BYTES]
    sides = []
    for _ in range(2):
        order, starts = rng.permutation(len(sizes)), np.empty(len(sizes), np.int64)
        starts[order] = np.cumsum(np.concatenate([[0], sizes[order][:-1] + 8]))
        sides.append(starts)
    return sides[0], sides[1], sizes


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, BYTES, np.uint8)


def check(session: Any, mine: Place, theirs: Place, seed: int) -> None:
    """Blocks of several sizes, written and read: those bytes and no others."""
    rng = np.random.default_rng(seed)
    for most in (60, 9_000, 3_000_000):
        for op in ("write", "read"):
            a, b = noise(int(rng.integers(1 << 30))), noise(int(rng.integers(1 << 30)))
            mine.put(a), theirs.put(b)
            local, remote, sizes = layout(rng, most)
            post = session.batch_write if op == "write" else session.batch_read
            status = post(local, remote, sizes, session.allocate_transfer_uid())
            assert end(status) == StatusCode.SUCCESS, status.Message()
            for lo, ro, size in zip(local.tolist(), remote.tolist(), sizes.tolist(), strict=True):
                if op == "write":
                    b[ro : ro + size] = a[lo : lo + size]
                else:
                    a[lo : lo + size] = b[ro : ro + size]
            assert np.array_equal(mine.get(), a), f"{op}, blocks below {most}: the initiator's memory"
            assert np.array_equal(theirs.get(), b), f"{op}, blocks below {most}: the owner's memory"


def pair(kind: str, backend: str | None, here: int, there: int) -> tuple[Any, ...]:
    a, b = engine("a", backend), engine("b", backend)
    mine, theirs = Place(kind, here), Place(kind, there)
    local, remote = mine.register(a), MemoryDesc.unpack(theirs.register(b).pack())
    a.register_remote_engine(EngineDesc.unpack(b.get_engine_desc().pack()))
    return a, b, mine, theirs, local, remote, a.create_session(local, remote)


def memories(kind: str, backend: str, here: int, there: int) -> None:
    a, b, mine, theirs, _, _, session = pair(kind, backend, here, there)
    check(session, mine, theirs, 1)
    said = session.explain()
    assert said.chosen == backend, str(said)
    a.close(), b.close()


def two_processes(kind: str, backend: str | None = None) -> None:
    """A GPU's memory and host memory of another process."""
    owner = subprocess.Popen(
        [sys.executable, __file__, kind, "own"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdin and owner.stdout
    words = [bytes.fromhex(owner.stdout.readline()) for _ in range(2)]
    a, mine = engine("a", backend), Place(kind, 0)
    local, remote = mine.register(a), MemoryDesc.unpack(words[1])
    a.register_remote_engine(EngineDesc.unpack(words[0]))
    session = a.create_session(local, remote)
    data = noise(9)
    mine.put(data)
    assert end(session.write(0, 0, BYTES, session.allocate_transfer_uid())) == StatusCode.SUCCESS
    owner.stdin.write("add\n"), owner.stdin.flush()
    owner.stdout.readline()
    assert end(session.read(0, 0, BYTES, session.allocate_transfer_uid())) == StatusCode.SUCCESS
    assert np.array_equal(mine.get(), data + np.uint8(1))
    print(session.explain())
    a.close()
    owner.stdin.close()
    assert owner.wait(20) == 0


def own(kind: str) -> None:
    b, theirs = engine("b", None), Place(kind, -1)
    print(b.get_engine_desc().pack().hex())
    print(theirs.register(b).pack().hex(), flush=True)
    for _ in sys.stdin:
        theirs.put(theirs.get() + np.uint8(1))
        print("done", flush=True)
    b.close()


def direct_first(kind: str) -> None:
    """p2p is preferred where it reaches the memory without a detour."""
    a, b, mine, theirs, local, _, session = pair(kind, None, 0, -1)
    session.open()
    assert local.device_bus_id == mine.device.properties.pci_bus_id.lower() != ""
    assert session.explain().chosen == "p2p", str(session.explain())
    a.close(), b.close()
    del theirs


def cancelled(kind: str, backend: str) -> None:
    """Copies of the GPU are late: what a stopped write did not do stays undone, also later."""
    for take_back in (False, True):
        a, b, mine, theirs, local, _, session = pair(kind, backend, 0, 0)
        mine.put(noise(1)), theirs.put(noise(2))
        session.open()
        status = session.write(0, 0, BYTES, session.allocate_transfer_uid())
        if take_back:
            a.deregister_memory(local)
        else:
            status.cancel()
        code = end(status)
        allowed = {StatusCode.SUCCESS, StatusCode.ERR_NOT_FOUND if take_back else StatusCode.ERR_CANCELLED}
        assert code in allowed, code
        seen = theirs.get()
        time.sleep(0.2)
        assert np.array_equal(theirs.get(), seen), "bytes landed after the end"
        a.close(), b.close()


def broken(kind: str, backend: str) -> None:
    """The GPU refuses a copy (FAKE_HIP_FAIL_COPY=1000), at either end."""
    for here, there in ((0, -1), (-1, 0)):
        a, b, *memory, session = pair(kind, backend, here, there)  # the memories live as long as this
        for post in (session.write, session.read):
            status = post(0, 0, 1000, session.allocate_transfer_uid())
            assert end(status) == StatusCode.ERR_GPU_OP, (status.Code(), status.Message())
            status = post(0, 0, 2000, session.allocate_transfer_uid())
            assert end(status) == StatusCode.SUCCESS, status.Message()
        a.close(), b.close()
        del memory


if __name__ == "__main__":
    kind, scenario, *rest = sys.argv[1:]
    if scenario == "memories":
        memories(kind, rest[0], int(rest[1]), int(rest[2]))
    else:
        {f.__name__: f for f in (own, two_processes, direct_first, cancelled, broken)}[scenario](kind, *rest)
    print(f"{scenario} passed")
