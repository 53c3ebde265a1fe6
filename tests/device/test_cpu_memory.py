# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Memory of the CPU device: allocations, and pieces of a heap that several processes map."""

from __future__ import annotations

import ctypes
import fcntl
import multiprocessing
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from mori.errors import ConfigError, MoriError, TransportError

from mori import _core

pytestmark = pytest.mark.timeout(60)
MIB = 1 << 20


@pytest.fixture
def device() -> Any:
    return _core.open_device("cpu")


def view(address: int, bytes_: int) -> np.ndarray:
    return np.ctypeslib.as_array((ctypes.c_uint8 * bytes_).from_address(address))


@pytest.mark.parametrize("bytes_", [1, 255, 257, MIB - 1, MIB, 3 * MIB + 5])
def test_allocations_are_zero_and_aligned(device: Any, bytes_: int) -> None:
    for _ in range(3):  # memory that comes back is cleared too
        address = device.allocate(bytes_)
        assert address % 256 == 0
        assert not view(address, bytes_).any()
        device.fill(address, 0xFF, bytes_)
        assert (view(address, bytes_) == 0xFF).all()
        device.free(address)


def test_copies_may_overlap(device: Any) -> None:
    address = device.allocate(1024)
    view(address, 1024)[:] = np.arange(1024) % 251
    device.copy(address + 16, address, 1008)
    assert (view(address + 16, 1008) == np.arange(1008) % 251).all()
    device.free(address)


def test_a_wrong_free_is_refused(device: Any) -> None:
    address = device.allocate(64)
    with pytest.raises(ConfigError, match=hex(address + 16)):
        device.free(address + 16)
    device.free(address)
    with pytest.raises(ConfigError, match=f"{hex(address)} is not an allocation"):
        device.free(address)


@pytest.mark.parametrize("bytes_", [0, 2**63 + 1])
def test_impossible_sizes_are_refused(device: Any, bytes_: int) -> None:
    with pytest.raises(MoriError, match="bytes="):
        device.allocate(bytes_)


def test_host_memory_is_the_same_memory(device: Any) -> None:
    memory = device.allocate_host(64)
    assert memory.host == memory.device
    assert memory.bytes == 64
    assert not view(memory.host, 64).any()
    device.free_host(memory)


def child(fd: int, bytes_: int, value: int) -> None:
    device = _core.open_device("cpu")
    memory = device.import_shareable(fd, b"", bytes_)
    window = device.reserve(bytes_)
    device.map(window, memory)
    device.release(memory)
    seen = view(window, bytes_)
    assert seen[0] == 1
    assert seen[-1] == 2
    seen[bytes_ // 2] = value


def test_another_process_maps_the_same_memory(device: Any) -> None:
    bytes_ = 2 * device.share_granularity
    memory = device.create_shareable(bytes_)
    window = device.reserve(4 * bytes_)
    device.map(window + bytes_, memory)
    mine = view(window + bytes_, bytes_)
    assert not mine.any()
    mine[0], mine[-1] = 1, 2
    process = multiprocessing.get_context("fork").Process(target=child, args=(memory.fd, bytes_, 77))
    process.start()
    process.join(30)
    assert process.exitcode == 0
    assert mine[bytes_ // 2] == 77
    device.release(memory)
    assert memory.fd == -1
    assert mine[bytes_ // 2] == 77, "mappings outlive the descriptor"
    device.unmap(window + bytes_, bytes_)
    device.unreserve(window, 4 * bytes_)


def test_one_piece_at_two_addresses(device: Any) -> None:
    bytes_ = device.share_granularity
    memory = device.create_shareable(bytes_)
    window = device.reserve(2 * bytes_)
    device.map(window, memory)
    device.map(window + bytes_, memory)
    view(window, 8)[3] = 9
    assert view(window + bytes_, 8)[3] == 9
    # An imported descriptor is a duplicate: releasing it leaves the original open.
    again = device.import_shareable(memory.fd, b"", bytes_)
    assert again.fd != memory.fd
    device.release(again)
    os.fstat(memory.fd)
    device.release(memory)
    device.unreserve(window, 2 * bytes_)


def test_terabytes_of_addresses_cost_nothing(device: Any) -> None:
    window = device.reserve(1 << 40)
    piece = device.create_shareable(device.share_granularity)
    far = window + (1 << 39) + (1 << 33)
    device.map(far, piece)
    view(far, 16)[:] = 5
    device.unmap(far, piece.bytes)
    device.release(piece)
    device.unreserve(window, 1 << 40)


@pytest.mark.parametrize("state", ["reserved", "unmapped"])
def test_addresses_without_memory_fault(state: str) -> None:
    code = f"""
import ctypes
from mori import _core
d = _core.open_device("cpu")
w = d.reserve(d.share_granularity)
if {state!r} == "unmapped":
    m = d.create_shareable(d.share_granularity)
    d.map(w, m)
    ctypes.memset(w, 1, 1)
    d.unmap(w, m.bytes)
print("here", flush=True)
ctypes.memset(w, 1, 1)
print("survived", flush=True)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=False)
    assert (done.stdout, done.returncode) == ("here\n", -11), done.stderr


def test_a_peer_cannot_truncate_what_others_have_mapped(device: Any) -> None:
    memory = device.create_shareable(device.share_granularity)
    for size in (0, 4 * device.share_granularity):
        with pytest.raises(PermissionError):
            os.ftruncate(memory.fd, size)
    with pytest.raises(PermissionError):
        fcntl.fcntl(memory.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    device.release(memory)


def test_descriptors_that_are_something_else_are_refused(device: Any) -> None:
    granule = device.share_granularity
    with pytest.raises(TransportError, match="fd=-1"):
        device.import_shareable(-1, b"", granule)
    small = device.create_shareable(granule)
    with pytest.raises(TransportError, match=f"has {granule} bytes, expected {2 * granule}"):
        device.import_shareable(small.fd, b"", 2 * granule)
    plain = os.memfd_create("plain")
    os.ftruncate(plain, granule)
    with pytest.raises(TransportError, match="not sealed"):
        device.import_shareable(plain, b"", granule)
    with pytest.raises(ConfigError, match="ipc"):
        device.import_shareable(small.fd, b"handle", granule)
    os.close(plain)
    device.release(small)


def test_mapping_elsewhere_is_refused(device: Any) -> None:
    granule = device.share_granularity
    memory = device.create_shareable(granule)
    window = device.reserve(2 * granule)
    victim = device.allocate(4 * MIB)
    for address in (0, victim, window - granule, window + 4096, window + 2 * granule, 2**64 - granule):
        with pytest.raises(ConfigError, match="not an aligned part of a reserved range"):
            device.map(address, memory)
        with pytest.raises(ConfigError, match="not an aligned part of a reserved range"):
            device.unmap(address, granule)
    with pytest.raises(ConfigError, match="reserved range"):
        device.unmap(window + granule, 2 * granule)
    with pytest.raises(ConfigError, match="reserved range"):
        device.unreserve(window, granule)
    device.release(memory)
    device.unreserve(window, 2 * granule)
    with pytest.raises(ConfigError, match="reserved range"):
        device.unreserve(window, 2 * granule)


@pytest.mark.parametrize("bytes_", [0, 1, 4096, 2 * MIB + 1])
def test_sizes_follow_the_granularity(device: Any, bytes_: int) -> None:
    with pytest.raises(ConfigError, match=f"bytes={bytes_} "):
        device.create_shareable(bytes_)
    with pytest.raises(ConfigError, match=f"bytes={bytes_} "):
        device.reserve(bytes_)


def test_ipc_handles_do_not_exist(device: Any) -> None:
    memory = device.create_shareable(device.share_granularity)
    assert device.can_map
    assert memory.ipc == b""
    with pytest.raises(ConfigError, match="ipc"):
        device.open_ipc(memory)
    device.release(memory)
