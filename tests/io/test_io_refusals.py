# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Wrong calls: each is refused with words that name the argument, its value and what is allowed, and moves nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from io_engines import Pair, engines
from mori.io import (
    BackendType,
    EngineDesc,
    IOEngine,
    IOEngineConfig,
    MemoryDesc,
    MemoryLocationType,
    StatusCode,
    Strided,
)

import mori

pytestmark = pytest.mark.timeout(60)
CPU, GPU = MemoryLocationType.CPU, MemoryLocationType.GPU
SIZE = 1 << 16

RAISED: dict[str, tuple[Callable[[Pair], Any], str]] = {
    "register-ptr-zero": (lambda p: p.a.register_memory(0, 8, -1, CPU), "ptr=0"),
    "register-ptr-negative": (lambda p: p.a.register_memory(-8, 8, -1, CPU), "ptr=-8"),
    "register-ptr-text": (lambda p: p.a.register_memory("8", 8, -1, CPU), "ptr='8'"),
    "register-size-zero": (lambda p: p.a.register_memory(8, 0, -1, CPU), "size=0"),
    "register-size-negative": (lambda p: p.a.register_memory(8, -1, -1, CPU), "size=-1"),
    "register-beyond-the-end": (lambda p: p.a.register_memory((1 << 64) - 8, 16, -1, CPU), "end of the address space"),
    "register-cpu-with-device": (lambda p: p.a.register_memory(8, 8, 0, CPU), "device_id=0"),
    "register-gpu-without-device": (lambda p: p.a.register_memory(8, 8, -1, GPU), "device_id=-1"),
    "register-unknown-location": (lambda p: p.a.register_memory(8, 8, -1, MemoryLocationType.Unknown), "mem_loc="),
    "register-readonly-buffer": (lambda p: p.a.register_buffer(b"constant"), "writable"),
    "register-strided-buffer": (lambda p: p.a.register_buffer(p.x[::2]), "contiguous"),
    "deregister-a-remote-one": (lambda p: p.a.deregister_memory(p.theirs), "of engine 'b'"),
    "deregister-unknown": (lambda p: p.a.deregister_memory(dataclasses.replace(p.mine, id=77)), "memory 77"),
    "deregister-nonsense": (lambda p: p.a.deregister_memory("mine"), "no MemoryDesc"),
    "session-local-is-remote": (lambda p: p.a.create_session(p.theirs, p.theirs), "not of this one"),
    "session-remote-without-key": (lambda p: p.a.create_session(p.mine, MemoryDesc()), "no key"),
    "session-remote-nonsense": (lambda p: p.a.create_session(p.mine, None), "no MemoryDesc"),
    "session-unregistered": (lambda p: p.a.create_session(dataclasses.replace(p.mine, id=9), p.theirs), "memory 9"),
    "remote-engine-nonsense": (lambda p: p.a.register_remote_engine(b"desc"), "no EngineDesc"),
    "remote-engine-without-port": (
        lambda p: p.a.register_remote_engine(dataclasses.replace(p.b.get_engine_desc(), port=0)),
        "port=0",
    ),
    "remote-engine-own-key": (
        lambda p: p.a.register_remote_engine(dataclasses.replace(p.b.get_engine_desc(), key="a")),
        "keys must differ",
    ),
    "alive-unknown": (lambda p: p.a.alive("nobody"), "'nobody' is not known"),
    "alive-no-time": (lambda p: p.a.alive("b", timeout_s=0), "timeout_s=0"),
    "backend-unknown-name": (lambda p: p.a.create_backend("pigeon"), "backend='pigeon'"),
    "backend-unknown-type": (lambda p: p.a.create_backend(BackendType.Unknown), "cannot be created"),
    "backend-twice": (lambda p: p.a.create_backend("loopback"), "is there already"),
    "backend-bad-option": (lambda p: p.a.create_backend("loopback2", {"mode": 7}), "mode=7"),
    "backend-option-of-bad-type": (lambda p: p.a.create_backend("loopback2", {"mode": 0.5}), "mode=0.5"),
    "backend-config-nonsense": (lambda p: p.a.create_backend("loopback2", 7), "config=7"),
    "backend-not-there": (lambda p: p.a.remove_backend("loopback2"), "'loopback2' is not one"),
    "batch-offsets-float": (lambda p: p.session.batch_write([0.5], [0], [1], 1), "local_offsets got float 0.5"),
    "batch-offsets-float-array": (lambda p: p.session.batch_write(np.zeros(1), [0], [1], 1), "format 'd'"),
    "batch-offsets-matrix": (
        lambda p: p.session.batch_write([0], np.zeros((1, 1), np.int64), [1], 1),
        "remote_offsets got an array of 2 dimensions",
    ),
    "batch-sizes-none": (lambda p: p.session.batch_read([0], [0], None, 1), "sizes got NoneType"),
    "batch-offset-beyond-64-bits": (lambda p: p.session.batch_read([1 << 70], [0], [1], 1), "local_offsets got int"),
    "batch-uint64-beyond-63-bits": (
        lambda p: p.session.batch_read(np.array([1 << 63], np.uint64), [0], [1], 1),
        "the value 9223372036854775808",
    ),
    "batch-lists-differ": (
        lambda p: p.a.batch_write([p.mine], [[0]], [p.theirs], [[0]], [[1]], []),
        "one for each pair",
    ),
    "deadline-negative": (lambda p: p.session.write(0, 0, 1, 1, deadline_s=-1), "deadline_s=-1"),
    "prepare-bad-op": (lambda p: p.session.prepare("push", [0], [0], 1), "op='push'"),
    "prepare-out-of-range": (lambda p: p.session.prepare("write", [0], [SIZE], 1), f"remote_offsets[0]={SIZE}"),
    "strided-negative": (lambda p: Strided(0, 1, -1), "count=-1"),
    "wait-negative": (lambda p: p.session.write(0, 0, 1).wait(-1), "timeout_s=-1"),
    "descriptor-garbage": (lambda p: MemoryDesc.unpack(b"\xff\x00garbage"), "no packed MemoryDesc"),
    "descriptor-truncated": (lambda p: MemoryDesc.unpack(p.theirs.pack()[:-3]), "no packed MemoryDesc"),
    "descriptor-of-another-kind": (lambda p: EngineDesc.unpack(p.theirs.pack()), "no packed EngineDesc"),
    "descriptor-too-long": (lambda p: EngineDesc.unpack(bytes(2 << 20)), "no packed EngineDesc"),
    "engine-key-empty": (lambda p: IOEngine(""), "key=''"),
    "engine-key-long": (lambda p: IOEngine("k" * 256), "1 to 255 bytes"),
    "engine-port": (lambda p: IOEngine("c", IOEngineConfig(port=70000)), "port=70000"),
    "engine-timeout": (lambda p: IOEngine("c", IOEngineConfig(timeout_s=-1.0)), "timeout_s=-1.0"),
    "engine-short-secret": (lambda p: IOEngine("c", IOEngineConfig(secret="short")), "at least 16"),
    "engine-open-to-all-without-secret": (lambda p: IOEngine("c", IOEngineConfig(host="0.0.0.0")), "secret"),
    "notify-too-long": (lambda p: p.a.send_notification("b", bytes((1 << 20) + 1)), "at most 1048576"),
    "notify-too-long-with-a-transfer": (
        lambda p: p.session.write(0, 0, 1, 1, notify=bytes((1 << 20) + 1)),
        "at most 1048576",
    ),
}

FAILED: dict[str, tuple[Callable[[Pair], Any], str]] = {
    "write-beyond-local": (lambda p: p.session.write(SIZE, 0, 1, 1), "leave the local memory"),
    "write-beyond-remote": (lambda p: p.session.write(0, SIZE - 3, 4, 1), "leave the remote memory"),
    "read-negative-offset": (lambda p: p.session.read(-1, 0, 1, 1), "local_offsets[0]=-1"),
    "read-negative-size": (lambda p: p.session.read(0, 0, -5, 1), "sizes[0]=-5"),
    "batch-one-of-many": (lambda p: p.session.batch_write([0, 8, SIZE], [0, 8, 16], 8, 1), "local_offsets[2]"),
    "batch-unequal": (lambda p: p.session.batch_write([0, 8], [0], 8, 1), "remote_offsets has 1"),
    "batch-sizes-unequal": (lambda p: p.session.batch_write([0, 8, 16], [0, 8, 16], [8, 8], 1), "sizes has 2"),
    "batch-overflowing": (lambda p: p.session.batch_read([0], [(1 << 63) - 1], [1 << 62], 1), "leave the"),
    "strided-beyond": (
        lambda p: p.session.batch_write(Strided(0, SIZE // 4, 5), Strided(0, 8, 5), 8),
        "leave the local",
    ),
    "engine-write-unknown-peer": (
        lambda p: p.a.write(p.mine, 0, dataclasses.replace(p.theirs, engine_key="x"), 0, 1, 1),
        "'x' is not known here",
    ),
    "engine-write-not-mine": (lambda p: p.b.write(p.mine, 0, p.theirs, 0, 1, 1), "of engine 'a'"),
}


@pytest.mark.parametrize("case", RAISED)
def test_refused_by_an_exception(case: str) -> None:
    call, words = RAISED[case]
    with engines(size=SIZE) as pair:
        with pytest.raises(mori.MoriError) as refusal:
            call(pair)
        assert words in str(refusal.value)
        assert isinstance(refusal.value, (ValueError, mori.TransportError))
        if not case.startswith("wait"):
            assert not pair.y.any()
        assert pair.session.write(0, 0, 16).Wait() == StatusCode.SUCCESS, "the engine works on"


@pytest.mark.parametrize("case", FAILED)
def test_refused_by_the_status(case: str) -> None:
    call, words = FAILED[case]
    with engines(size=SIZE) as pair:
        status = call(pair)
        assert status.Failed() and status.done() and words in status.Message()
        with pytest.raises(mori.MoriError) as refusal:
            status.raise_()
        assert refusal.value.code == status.Code()
        assert not pair.y.any()
        assert status.WaitFor(0) == status.Code()


def test_a_status_of_a_transfer_is_not_the_users_to_change() -> None:
    with engines(size=SIZE) as pair:
        status = pair.session.write(0, 0, 1)
        with pytest.raises(mori.ConfigError, match="only its engine ends it"):
            status.SetCode(status.Code())


@pytest.mark.parametrize("size", [0, 1, 7, 4095, 4096, 4097, SIZE])
@pytest.mark.parametrize("op", ["read", "write"])
def test_odd_sizes_are_fine(op: str, size: int) -> None:
    with engines(size=SIZE) as pair:
        source, target = (pair.x, pair.y) if op == "write" else (pair.y, pair.x)
        source[:] = 5
        target[:] = 0
        getattr(pair.session, op)(0, 0, size, 1).wait(5)
        assert target.sum() == 5 * size


def test_nothing_is_a_transfer_too() -> None:
    with engines(size=SIZE) as pair:
        for status in (pair.session.batch_write([], [], [], 1), pair.session.batch_read(np.zeros(0, int), [], 5)):
            assert status.Wait() == StatusCode.SUCCESS and status.bytes_total == 0
        assert pair.a.batch_write([], [], [], [], [], []) == []
