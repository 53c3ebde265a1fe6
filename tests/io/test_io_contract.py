# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The call sequences of serving frameworks, as they make them: positional arguments, bytes that travel as opaque
text, statuses compared with enum members, and none of the traps of the interface."""

from __future__ import annotations

import gc
import threading
import time

import mori.cpp
import mori.io
import numpy as np
import pytest
from io_engines import random_bytes
from mori.cpp import TransferStatus
from mori.io import (
    BackendType,
    EngineDesc,
    IOEngine,
    IOEngineConfig,
    MemoryDesc,
    MemoryLocationType,
    PollCqMode,
    RdmaBackendConfig,
    StatusCode,
    XgmiBackendConfig,
)

pytestmark = pytest.mark.timeout(60)
LAYERS, PAGES, PAGE = 4, 32, 512


class Worker:
    """A prefill or decode worker: an engine and a KV cache, one array for each layer."""

    def __init__(self, name: str, fill: bool) -> None:
        self.engine = IOEngine(name, IOEngineConfig(host="127.0.0.1", port=0))
        config = RdmaBackendConfig(2, -1, 1, PollCqMode.POLLING, False)
        self.engine.create_backend(BackendType.RDMA, config)
        size = PAGES * PAGE
        self.cache = [random_bytes(size, i) if fill else np.zeros(size, np.uint8) for i in range(LAYERS)]
        self.descs = [
            self.engine.register_memory(layer.ctypes.data, layer.nbytes, -1, MemoryLocationType.CPU)
            for layer in self.cache
        ]
        assert self.engine.get_engine_desc().port > 0


def test_pushing_layer_by_layer() -> None:
    """Prefill pushes pages of each layer, waits in other threads with a time-out, compares codes."""
    prefill, decode = Worker("prefill", True), Worker("decode", False)
    with prefill.engine, decode.engine:
        wire = [decode.engine.get_engine_desc().pack(), *(desc.pack() for desc in decode.descs)]
        prefill.engine.register_remote_engine(EngineDesc.unpack(wire[0]))
        remote = [MemoryDesc.unpack(entry) for entry in wire[1:]]
        rng = np.random.default_rng(5)
        theirs = (rng.permutation(PAGES) * PAGE).tolist()
        mine = (rng.permutation(PAGES) * PAGE).tolist()
        statuses: list[TransferStatus] = []
        for src, dst in zip(prefill.descs, remote, strict=True):
            uid = prefill.engine.allocate_transfer_uid()
            posted = prefill.engine.batch_write([src], [mine], [dst], [theirs], [[PAGE] * PAGES], [uid])
            statuses.extend(posted)
        assert len(statuses) == LAYERS
        results: list[StatusCode] = []

        def waits() -> None:
            while (code := prefill.engine.wait_all(statuses, timeout_ms=1000)) == StatusCode.IN_PROGRESS:
                pass
            results.append(code)

        threads = [threading.Thread(target=waits) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert results == [StatusCode.SUCCESS] * 4
        assert not any(status.Failed() or status.Message() for status in statuses)
        for src, dst in zip(prefill.cache, decode.cache, strict=True):
            for lo, ro in zip(mine, theirs, strict=True):
                assert (src[lo : lo + PAGE] == dst[ro : ro + PAGE]).all()
        # auxiliary data: several pairs in one call
        pairs = prefill.engine.batch_write(
            prefill.descs[:2], [[0], [0]], remote[:2], [[0], [0]], [[8], [8]], [100, 101]
        )
        assert [status.Wait() for status in pairs] == [StatusCode.SUCCESS] * 2


def test_sessions_that_are_polled() -> None:
    """Positional config with a real port, tensors that are views, cached sessions, polling each millisecond."""
    torch = pytest.importorskip("torch")
    probe = IOEngine("probe", IOEngineConfig())
    port = probe.get_engine_desc().port
    probe.close()
    with (
        IOEngine("producer:127.0.0.1:1:tp0:dp0", IOEngineConfig("127.0.0.1", port)) as producer,
        IOEngine("consumer:127.0.0.1:2:tp0:dp0", IOEngineConfig("127.0.0.1", 0)) as consumer,
    ):
        assert producer.get_engine_desc().port == port
        for engine in (producer, consumer):
            engine.create_backend(BackendType.XGMI, XgmiBackendConfig())
        base, target = torch.arange(4096, dtype=torch.int32), torch.zeros(4096, dtype=torch.int32)
        views, targets = base.view(4, 1024), target.view(4, 1024)
        local = [producer.register_torch_tensor(view) for view in views]
        packed = [consumer.register_torch_tensor(view).pack() for view in targets]
        assert MemoryDesc.unpack(local[1].pack()).data == views[1].data_ptr()
        assert MemoryDesc.unpack(local[1].pack()) == local[1]
        producer.register_remote_engine(EngineDesc.unpack(consumer.get_engine_desc().pack()))
        sessions = [
            producer.create_session(mine, MemoryDesc.unpack(theirs)) for mine, theirs in zip(local, packed, strict=True)
        ]
        statuses = [s.batch_write([0, 2048], [2048, 0], [2048, 2048], i) for i, s in enumerate(sessions)]
        statuses.append(sessions[0].write(0, 0, 4, 9))
        deadline = time.monotonic() + 20
        for status in statuses:
            while not status.Succeeded():
                assert not status.Failed(), (status.Message(), status.Code())
                assert time.monotonic() < deadline
                time.sleep(0.001)
        assert (targets[1] == torch.cat([views[1][512:], views[1][:512]])).all()
        back = sessions[2].batch_read([0], [0], [4096], 11)
        assert back.Wait() == StatusCode.SUCCESS
        assert all(session.alive() for session in sessions)
        with pytest.raises(RuntimeError, match="contiguous"):
            producer.register_torch_tensor(views.t())


ENUMS = {
    "BackendType": {"Unknown": 0, "XGMI": 1, "RDMA": 2, "TCP": 3, "FABRIC": 4},
    "MemoryLocationType": {"Unknown": 0, "CPU": 1, "GPU": 2},
    "StatusCode": {
        "SUCCESS": 0,
        "INIT": 1,
        "IN_PROGRESS": 2,
        "ERR_BEGIN": 10,
        "ERR_INVALID_ARGS": 11,
        "ERR_NOT_FOUND": 12,
        "ERR_RDMA_OP": 13,
        "ERR_BAD_STATE": 14,
        "ERR_GPU_OP": 15,
    },
    "PollCqMode": {"POLLING": 0, "EVENT": 1},
}


@pytest.mark.parametrize("name", ENUMS)
def test_enum_values(name: str) -> None:
    kind = getattr(mori.io, name)
    assert getattr(mori.cpp, name) is kind
    for member, value in ENUMS[name].items():
        assert int(getattr(kind, member)) == value
        assert getattr(kind, member) is kind.__members__[member]


def test_cpp_exports_members_too() -> None:
    assert mori.cpp.SUCCESS is StatusCode.SUCCESS
    assert mori.cpp.CPU is MemoryLocationType.CPU
    assert {"MemoryDesc", "SUCCESS"} <= set(dir(mori.cpp))
    with pytest.raises(AttributeError, match="nothing_like_it"):
        _ = mori.cpp.nothing_like_it


def test_config_positions() -> None:
    config = RdmaBackendConfig(4, 8, 2, PollCqMode.EVENT, False, 9, True, 7, 6, 5)
    assert (config.qp_per_transfer, config.post_batch_size, config.num_worker_threads) == (4, 8, 2)
    assert (config.poll_cq_mode, config.enable_notification, config.notif_per_qp) == (PollCqMode.EVENT, False, 9)
    assert (config.enable_transfer_chunking, config.chunk_bytes) == (True, 7)
    assert (config.max_chunks_per_transfer, config.num_nics_per_transfer) == (6, 5)
    default = RdmaBackendConfig()
    assert (default.max_send_wr, default.max_cqe_num, default.max_msg_sge) == (8192, 16384, 4)
    assert (default.chunk_bytes, default.enable_notification) == (65536, True)
    engine = IOEngineConfig()
    engine.host, engine.port = "127.0.0.1", 5
    assert (engine.host, engine.port) == ("127.0.0.1", 5)


def test_a_status_of_ones_own() -> None:
    status = TransferStatus()
    assert status.Init() and not status.InProgress() and not status.Failed() and status.Message() == ""
    assert status.WaitFor(0) == StatusCode.INIT
    status.SetCode(StatusCode.IN_PROGRESS)
    assert status.InProgress() and status.WaitFor(10) == StatusCode.IN_PROGRESS
    status.Update(StatusCode.ERR_RDMA_OP, "broken")
    status.Update(StatusCode.SUCCESS, "mended")  # a failure is sticky
    assert status.Failed() and status.Code() == StatusCode.ERR_RDMA_OP and status.Message() == "broken"
    assert status.Wait() == StatusCode.ERR_RDMA_OP


def test_wait_all_of_nothing_and_of_failures() -> None:
    with IOEngine("alone") as engine:
        assert engine.wait_all([]) == StatusCode.SUCCESS
        good, bad, worse, never = (TransferStatus() for _ in range(4))
        good.Update(StatusCode.SUCCESS, "")
        bad.Update(StatusCode.ERR_GPU_OP, "first")
        worse.Update(StatusCode.ERR_NOT_FOUND, "second")
        assert engine.wait_all([good, bad, worse], 0) == StatusCode.ERR_GPU_OP
        began = time.monotonic()
        assert engine.wait_all([good, never], 50) == StatusCode.IN_PROGRESS
        assert 0.04 < time.monotonic() - began < 5


def test_a_status_dropped_in_flight_is_nobodys_loss() -> None:
    with (
        IOEngine("a", IOEngineConfig(backends=[])) as a,
        IOEngine("b", IOEngineConfig(backends=["loopback"])) as b,
    ):
        a.create_backend("loopback", {"mode": 1, "delay_us": 2000, "chunk_bytes": 1024})
        x, y = random_bytes(16384), np.zeros(16384, np.uint8)
        a.register_remote_engine(b.get_engine_desc())
        session = a.create_session(a.register_buffer(x), b.register_buffer(y))
        for _ in range(3):
            session.write(0, 0, 16384, 1)
        gc.collect()
        last = session.write(0, 0, 1, 1)
        assert last.Wait() == StatusCode.SUCCESS and (x == y).all()


def test_a_backend_made_after_registration_serves_the_memory() -> None:
    with IOEngine("a", IOEngineConfig(backends=[])) as a, IOEngine("b", IOEngineConfig(backends=[])) as b:
        x, y = random_bytes(100), np.zeros(100, np.uint8)
        mine, theirs = a.register_buffer(x), b.register_buffer(y)
        a.register_remote_engine(b.get_engine_desc())
        session = a.create_session(mine, theirs)
        status = session.write(0, 0, 100, 1)
        assert status.Wait() == StatusCode.ERR_TRANSPORT and "the engine has none" in status.Message()
        for engine in (a, b):
            engine.create_backend("loopback")
        assert session.write(0, 0, 100, 2).Wait() == StatusCode.SUCCESS and (x == y).all()


def test_inbound_status_and_uids() -> None:
    with IOEngine("a") as a, IOEngine("b") as b:
        a.create_backend(BackendType.RDMA, RdmaBackendConfig())  # announces transfers
        x, y = random_bytes(64), np.zeros(64, np.uint8)
        mine, theirs = a.register_buffer(x), b.register_buffer(y)
        a.register_remote_engine(b.get_engine_desc())
        uid = a.allocate_transfer_uid()
        assert a.allocate_transfer_uid() != uid
        assert b.pop_inbound_transfer_status("a", uid) is None
        assert a.write(mine, 0, theirs, 0, 64, uid).Wait() == StatusCode.SUCCESS
        deadline = time.monotonic() + 10
        while (status := b.pop_inbound_transfer_status("a", uid)) is None and time.monotonic() < deadline:
            time.sleep(0.005)
        assert status is not None and status.Succeeded()
        assert b.pop_inbound_transfer_status("a", uid) is None, "popped once"
