# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Shared memory and files through the engine: mori.io.empty, IOEngine.allocate and register_file, between processes."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest

import mori
from mori import io

pytestmark = pytest.mark.timeout(90)
SIZE = 1 << 20


def _peer(pipe: Connection, kind: str, path: str) -> None:
    """Registers one memory filled with 5 and tells its CRC when asked."""
    import zlib

    with io.IOEngine("owner") as engine:
        if kind == "file":
            array = np.memmap(path, np.uint8, "r+")
            memory = engine.register_file(path)
        else:
            array = io.empty(SIZE) if kind == "shared" else np.zeros(SIZE, np.uint8)
            memory = engine.register_buffer(array)
        array[:] = 5
        pipe.send((engine.get_engine_desc().pack(), memory.pack()))
        while pipe.recv() == "crc":
            pipe.send(zlib.crc32(array))


class Peer:
    def __init__(self, kind: str, path: str = "") -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_peer, args=(theirs, kind, path), daemon=True)
        self._process.start()
        engine, memory = self._pipe.recv()
        self.engine, self.memory = io.EngineDesc.unpack(engine), io.MemoryDesc.unpack(memory)

    def crc(self) -> int:
        self._pipe.send("crc")
        return int(self._pipe.recv())

    def close(self) -> None:
        self._pipe.send("end")
        self._process.join(20)
        self._process.kill()


@pytest.fixture
def engine() -> Iterator[io.IOEngine]:
    with io.IOEngine("here") as made:
        yield made


def check_both_ways(engine: io.IOEngine, peer: Peer) -> io.IOEngineSession:
    import zlib

    local = np.zeros(SIZE, np.uint8)
    engine.register_remote_engine(peer.engine)
    session = engine.create_session(engine.register_buffer(local), peer.memory)
    read = session.batch_read([10, 50_000], [0, 400_000], [1000, 100_001], 1)
    assert read.WaitFor(20_000) == io.StatusCode.SUCCESS, read.Message()
    assert local[10:1010].min() == local[50_000:150_001].min() == 5 and local.sum() == 5 * 101_001
    image = np.full(SIZE, 5, np.uint8)
    local[:] = np.random.default_rng(1).integers(0, 256, SIZE, np.uint8)
    image[77:90_077], image[200_000:200_001] = local[:90_000], local[-1:]
    written = session.batch_write([0, SIZE - 1], [77, 200_000], [90_000, 1], 2)
    assert written.WaitFor(20_000) == io.StatusCode.SUCCESS, written.Message()
    assert peer.crc() == zlib.crc32(image)
    return session


@pytest.mark.parametrize(("kind", "way"), [("shared", "mapped"), ("private", "vm")])
def test_host_memory_of_another_process(engine: io.IOEngine, kind: str, way: str) -> None:
    peer = Peer(kind)
    session = check_both_ways(engine, peer)
    assert session.explain().chosen == "shm"
    counters = engine.metrics()["backends"]["shm"]
    assert counters[f"jobs_{way}"] == 2 and counters[f"bytes_{way}"] == 101_001 + 90_001
    peer.close()


def test_a_file_of_another_process(engine: io.IOEngine, tmp_path: Path) -> None:
    (tmp_path / "store").write_bytes(bytes(SIZE))
    peer = Peer("file", str(tmp_path / "store"))
    assert peer.memory.loc == io.MemoryLocationType.FILE and str(tmp_path) not in str(peer.memory)
    assert check_both_ways(engine, peer).explain().chosen == "file"
    peer.close()


def test_a_file_of_this_engine(engine: io.IOEngine, tmp_path: Path) -> None:
    store = engine.register_file(tmp_path / "store", 3 << 20)
    assert store.size == 3 << 20
    cache = io.empty((3, 1 << 20))
    cache[:] = np.arange(3, dtype=np.uint8)[:, None] + 1
    session = engine.create_session(engine.register_buffer(cache), store)
    blocks = np.arange(3) << 20
    assert session.batch_write(blocks, blocks[::-1].copy(), 1 << 20, 1).WaitFor(20_000) == io.StatusCode.SUCCESS
    stored = np.fromfile(tmp_path / "store", np.uint8).reshape(3, -1)
    assert [int(row.min()) for row in stored] == [int(row.max()) for row in stored] == [3, 2, 1]
    cache[:] = 0
    assert session.batch_read(blocks, blocks, 1 << 20, 2).WaitFor(20_000) == io.StatusCode.SUCCESS
    np.testing.assert_array_equal(cache, stored)
    refused = session.write(0, (3 << 20) - 10, 11, 3)
    assert refused.WaitFor(1000) == io.StatusCode.ERR_INVALID_ARGS


def test_a_deregistered_file_is_closed(engine: io.IOEngine, tmp_path: Path) -> None:
    array = np.zeros(4096, np.uint8)
    local = engine.register_buffer(array)
    store = engine.register_file(tmp_path / "store", 4096)
    session = engine.create_session(local, store)
    assert session.write(0, 0, 4096, 1).WaitFor(20_000) == io.StatusCode.SUCCESS
    engine.deregister_memory(store)
    assert session.write(0, 0, 4096, 2).WaitFor(20_000) == io.StatusCode.ERR_NOT_FOUND
    del session
    assert not open_to(tmp_path / "store")


def open_to(path: Path) -> list[str]:
    """Descriptors of this process that lead to the file."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:  # closed meanwhile
            continue
        if target == str(path):
            found.append(name)
    return found


def test_other_hosts_have_no_route_to_a_file(tmp_path: Path) -> None:
    (tmp_path / "store").write_bytes(bytes(SIZE))
    peer = Peer("file", str(tmp_path / "store"))
    with io.IOEngine("far", io.IOEngineConfig(same_host=False, backends=["file"])) as engine:
        engine.register_remote_engine(peer.engine)
        local = np.zeros(4096, np.uint8)
        session = engine.create_session(engine.register_buffer(local), peer.memory)
        status = session.read(0, 0, 4096, 1)
        status.WaitFor(20_000)
        assert status.Failed() and "not on this host" in str(session.explain())
    peer.close()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [({"bytes": 0}, "bytes=0"), ({"bytes": -1}, "bytes=-1"), ({"bytes": True}, "bytes=True"), ({}, "No such file")],
    ids=lambda value: str(value),
)
def test_files_are_refused_before_anything_is_registered(
    engine: io.IOEngine, tmp_path: Path, arguments: dict[str, int], words: str
) -> None:
    with pytest.raises(mori.ConfigError, match=words):
        engine.register_file(tmp_path / "none", **arguments)


@pytest.mark.parametrize("dtype", ["uint8", "float16", np.float64, "i4"], ids=str)
@pytest.mark.parametrize("shape", [7, (3, 5), (2, 0, 4), ()], ids=str)
def test_arrays_in_shared_memory(shape: int | tuple[int, ...], dtype: object) -> None:
    array = io.empty(shape, dtype, prefault=True)
    like = np.zeros(shape, dtype)  # type: ignore[call-overload]
    np.testing.assert_array_equal(array, like)
    assert array.dtype == like.dtype and array.flags.writeable
    array[...] = 1
    assert array.sum() == like.size


def test_tensors_in_shared_memory() -> None:
    torch = pytest.importorskip("torch")
    tensor = io.empty((3, 4), torch.bfloat16)
    assert tensor.shape == (3, 4) and tensor.dtype == torch.bfloat16 and float(tensor.sum()) == 0
    view = tensor[1]
    del tensor
    view[:] = 2
    assert float(view.sum()) == 8
    assert io.empty((0, 4), torch.float32).numel() == 0


@pytest.mark.parametrize(
    ("shape", "dtype"), [((-1,), "uint8"), (("a",), "uint8"), ((2.5,), "uint8"), (4, object), (1 << 63, "uint8")]
)
def test_arrays_that_make_no_sense_are_refused(shape: object, dtype: object) -> None:
    with pytest.raises((mori.ConfigError, TypeError)):
        io.empty(shape, dtype)  # type: ignore[arg-type]


def test_memory_lives_as_long_as_its_views() -> None:
    def mapped() -> int:
        return Path("/proc/self/maps").read_text().count("memfd:mori-io")

    before = mapped()
    array = io.empty((4, 4096))
    row = array[2]
    del array
    assert mapped() == before + 1
    row[:] = 9
    del row
    assert mapped() == before


def test_allocate_gives_a_buffer(engine: io.IOEngine) -> None:
    memory = engine.allocate(5000)
    desc = engine.register_buffer(memory)
    assert (desc.data, desc.size, len(memory)) == (memory.address, 5000, 5000)
    assert memoryview(memory).nbytes == 5000 and not os.get_inheritable(memory.fileno())
