# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Other engines on the same blocks in the same run, through their public Python interfaces, as serving frameworks
call them: NIXL with descriptor lists prepared once and a request made from indices for each transfer, Mooncake with
its batched synchronous calls."""

from __future__ import annotations

import importlib
import socket
import time
from typing import Any

import msgspec
import numpy as np

from ..config import environment, set_environment
from .io_contenders import Absent, Contender, Step, failed, require_backend
from .io_memory import Memory
from .io_settings import Blocks, IoSettings

__all__ = ["Mooncake", "Nixl"]


class Nixl(Contender):
    """Agent API over UCX. The progress threads that a target needs spin, so pairs are stopped out of turn."""

    name = "nixl"

    def __init__(self, settings: IoSettings, *, target: bool, gpu: int = 0) -> None:
        super().__init__(settings, target=target, gpu=gpu)
        require_backend("nixl", ("auto", "shm", "vm", "tcp", "rdma", "p2p"), settings)
        if settings.backend == "tcp" or (settings.backend == "auto" and settings.host):
            # read when the agent starts; this process has nothing else of UCX
            set_environment(environment() | {"UCX_TLS": "tcp"})
        self.path = "UCX tcp" if environment().get("UCX_TLS") == "tcp" else "UCX"
        set_environment({"NIXL_LOG_LEVEL": "ERROR"} | environment())
        self._api = _first("nixl._api", "nixl_cu13._api", "nixl_cu12._api")
        if self._api is None:
            raise Absent("nixl skipped: it is not installed (pip install nixl)")
        # The initiator polls its requests, which makes progress; a thread beside it would only take its core.
        config = self._api.nixl_agent_config(enable_prog_thread=target, backends=["UCX"])
        self._agent = self._api.nixl_agent("target" if target else "initiator", config)

    def _register(self, memory: Memory) -> None:
        self._kind, self._device = ("VRAM", memory.device) if memory.device >= 0 else ("DRAM", 0)
        self._memory = memory
        place = [(memory.address, memory.nbytes, self._device, "")]
        self._registration = self._agent.register_memory(place, self._kind)

    def serve(self, memory: Memory) -> bytes:
        self._register(memory)
        place = (memory.address, self._kind, self._device)
        return msgspec.msgpack.encode((self._agent.get_agent_metadata(), place))

    def connect(self, memory: Memory, words: bytes) -> bytes:
        self._register(memory)
        metadata, self._place = msgspec.msgpack.decode(words)
        self._peer = self._agent.add_remote_agent(metadata)
        self._lists: dict[int, tuple[Any, Any]] = {}
        return bytes(self._agent.get_agent_metadata())

    def accept(self, words: bytes) -> None:
        self._agent.add_remote_agent(words)

    def _prepared(self, size: int) -> tuple[Any, Any]:
        """Descriptors of all blocks of a size, at both ends: made once, as frameworks do for their pages."""
        if size not in self._lists:
            starts = np.arange(0, self._memory.nbytes // size * size, size, dtype=np.uint64)
            there, kind, device = self._place

            def table(base: int, gpu: int) -> Any:
                return np.stack([starts + np.uint64(base), np.full_like(starts, size), np.full_like(starts, gpu)], 1)

            mine = self._agent.get_xfer_descs(table(self._memory.address, self._device), self._kind)
            theirs = self._agent.get_xfer_descs(table(there, device), kind)
            self._lists[size] = (
                self._agent.prep_xfer_dlist("NIXL_INIT_AGENT", mine),
                self._agent.prep_xfer_dlist(self._peer, theirs),
            )
        return self._lists[size]

    def prepare(self, op: str, blocks: Blocks) -> Step:
        size = int(blocks.sizes[0])
        local, remote = self._prepared(size)
        mine = (blocks.local // np.uint64(size)).astype(np.int32)
        theirs = (blocks.remote // np.uint64(size)).astype(np.int32)
        agent, word = self._agent, op.upper()

        def step() -> None:
            handle = agent.make_prepped_xfer(word, local, mine, remote, theirs)
            state = agent.transfer(handle)
            deadline = time.monotonic() + 60
            while state == "PROC":
                state = agent.check_xfer_state(handle)
                if time.monotonic() > deadline:
                    raise failed("nixl", "a transfer did not end within 60 s")
            agent.release_xfer_handle(handle)
            if state != "DONE":
                raise failed("nixl", f"a transfer ended as {state}")

        return step


class Mooncake(Contender):
    """TransferEngine with its own handshake, over tcp or rdma."""

    name = "mooncake"

    def __init__(self, settings: IoSettings, *, target: bool, gpu: int = 0) -> None:
        super().__init__(settings, target=target, gpu=gpu)
        require_backend("mooncake", ("auto", "shm", "vm", "tcp", "rdma"), settings)
        set_environment({"GLOG_minloglevel": "2", "MC_LOG_LEVEL": "ERROR"} | environment())
        module = _first("mooncake.engine")
        if module is None:
            raise Absent("mooncake skipped: it is not installed (pip install mooncake-transfer-engine-non-cuda)")
        self.path = "rdma" if settings.backend == "rdma" else "tcp"
        self._engine = module.TransferEngine()
        address = _own_address(settings)
        if self._engine.initialize(address, "P2PHANDSHAKE", self.path, ""):
            raise Absent(f"mooncake skipped: its engine does not start over {self.path} here")
        self._session = f"{address}:{self._engine.get_rpc_port()}"

    def serve(self, memory: Memory) -> bytes:
        self._register(memory)
        return msgspec.msgpack.encode((self._session, memory.address))

    def connect(self, memory: Memory, words: bytes) -> bytes:
        self._register(memory)
        self._peer, self._there = msgspec.msgpack.decode(words)
        return b""

    def _register(self, memory: Memory) -> None:
        self._memory = memory
        if self._engine.register_memory(memory.address, memory.nbytes):
            raise failed("mooncake", "register_memory failed")

    def prepare(self, op: str, blocks: Blocks) -> Step:
        mine = (blocks.local + np.uint64(self._memory.address)).tolist()
        theirs = (blocks.remote + np.uint64(self._there)).tolist()
        sizes = blocks.sizes.tolist()
        move = getattr(self._engine, f"batch_transfer_sync_{op}")
        peer = self._peer

        def step() -> None:
            if move(peer, mine, theirs, sizes):
                raise failed("mooncake", f"batch_transfer_sync_{op} failed")

        return step


def _own_address(settings: IoSettings) -> str:
    """The address by which the other machine reaches this one."""
    if not settings.host:
        return "127.0.0.1"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        host, _, port = settings.host.rpartition(":")
        probe.connect((host, int(port)))
        return str(probe.getsockname()[0])


def _first(*names: str) -> Any:
    for name in names:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None
