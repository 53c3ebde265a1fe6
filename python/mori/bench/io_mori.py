# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""MoRI's own place in `mori bench io`: the public calls of `mori.io`, as a framework makes them."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from .io_contenders import Contender, Step, failed
from .io_memory import Memory
from .io_serve import secret
from .io_settings import Blocks, IoSettings
from .io_tools import depth_of

__all__ = ["Mori"]

# The engine's name of a backend of the bench; none: what the engine chooses.
_ENGINE = {"shm": "shm", "vm": "shm", "tcp": "tcp", "rdma": "rdma", "p2p": "p2p", "file": "file"}
_TRACE_EVENTS = 1 << 20


class Mori(Contender):
    """A session for each pair; each transfer is posted with arrays of offsets and waited for."""

    name = "mori"

    def __init__(self, settings: IoSettings, *, target: bool, gpu: int = 0) -> None:
        super().__init__(settings, target=target, gpu=gpu)
        from .. import io

        self._io = io
        only = _ENGINE.get(settings.backend)
        if settings.backend == "rdma" and not os.path.isdir("/sys/class/infiniband"):
            raise failed("mori", "this machine has no RDMA device")
        far: dict[str, Any] = {"host": _own_host(settings, target), "secret": secret()} if settings.host else {}
        events = _TRACE_EVENTS if settings.trace and not target else 0
        config = io.IOEngineConfig(fallback=only is None, timeout_s=60.0, trace_events=events, **far)
        self._engine = io.IOEngine(f"{'target' if target else 'initiator'}-{os.getpid()}", config)
        if only is not None:
            depth = {"depth": max(depth_of(case) for case in settings.cases())}
            self._engine.create_backend(only, depth if only == "file" else None)
        self._file: Any = None

    def allocate(self, nbytes: int) -> Memory:
        where = self.settings.memories[1 if self.target else 0]
        if self.settings.backend == "file" and self.target:
            return self._open_file(nbytes)
        if where == "host" and self.settings.backend in ("shm", "auto"):
            array = self._io.empty((nbytes,), np.uint8)
            array.fill(0)
            return Memory(array, array)
        return super().allocate(nbytes)

    def _open_file(self, nbytes: int) -> Memory:
        folder = self.settings.folder or tempfile.gettempdir()
        with tempfile.NamedTemporaryFile(dir=folder, prefix="mori-bench-", delete=False) as file:
            self._file = Path(file.name)
            os.truncate(file.fileno(), nbytes)
        view = np.memmap(self._file, np.uint8, "r+")
        view.fill(0x5A)  # no holes: they would be read from no disk
        view.flush()
        return Memory(np.asarray(view), view)

    def _register(self, memory: Memory) -> Any:
        io = self._io
        if self._file is not None:
            return self._engine.register_file(str(self._file))
        gpu = memory.device >= 0
        place = io.MemoryLocationType.GPU if gpu else io.MemoryLocationType.CPU
        return self._engine.register_memory(memory.address, memory.nbytes, memory.device, place)

    def serve(self, memory: Memory) -> bytes:
        desc = self._register(memory)
        return msgspec.msgpack.encode((self._engine.get_engine_desc().pack(), desc.pack()))

    def connect(self, memory: Memory, words: bytes) -> bytes:
        engine, theirs = msgspec.msgpack.decode(words)
        mine = self._register(memory)
        self._engine.register_remote_engine(self._io.EngineDesc.unpack(engine))
        remote = self._io.MemoryDesc.unpack(theirs)
        self._session = self._engine.create_session(mine, remote)
        self._session.open(30.0)
        said = self._session.explain(30.0)
        if not said.chosen:
            raise failed("mori", str(said))
        self.path = said.chosen
        return b""

    def prepare(self, op: str, blocks: Blocks) -> Step:
        session = self._session
        post = session.batch_write if op == "write" else session.batch_read
        local, remote = blocks.local.astype(np.int64), blocks.remote.astype(np.int64)
        sizes = blocks.sizes.astype(np.int64)

        def step() -> None:
            status = post(local, remote, sizes, session.allocate_transfer_uid())
            status.Wait()
            if not status.Succeeded():
                raise failed("mori", f"{status.Code().name}: {status.Message()}")

        return step

    def close(self) -> None:
        if self.settings.trace and not self.target:
            self._io.write_trace(self.settings.trace, {"initiator": self._engine.take_trace()})
        self._engine.close()
        if self._file is not None:
            self._file.unlink(missing_ok=True)


def _own_host(settings: IoSettings, target: bool) -> str:
    if target:
        return settings.host.rpartition(":")[0]
    from .io_peers import _own_address

    return _own_address(settings)
