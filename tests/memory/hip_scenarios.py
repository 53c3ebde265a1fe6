# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""What test_hip_driver.py runs in a process that finds a libamdhip64: scenarios on the pretended GPUs of
fake_hip.c, whose memory the test may read with ctypes. `python hip_scenarios.py NAME FOLDER`."""

from __future__ import annotations

import ctypes
import struct
import sys

import pytest
from mori.bootstrap import rendezvous
from mori.errors import CapacityError, ConfigError
from mori.heap import Heap
from mori.mesh import Mesh
from mori.testing import run_ranks

from mori import _core

MIB = 1 << 20


def fake() -> ctypes.CDLL:
    library = ctypes.CDLL("libamdhip64.so.7")
    library.fake_report.restype = ctypes.c_char_p
    return library


def report() -> str:
    return fake().fake_report().decode()


def word(address: int) -> ctypes.c_uint64:
    return ctypes.c_uint64.from_address(address)


def properties(folder: str) -> None:
    assert _core.device_count("hip") == (2, "")
    found = _core.open_device("hip", 1).properties
    assert (found.name, found.arch, found.pci_bus_id) == ("Fake MI300X 1", "gfx942", "0000:ac:00.0")
    assert (found.processors, found.warp_size, found.max_warps) == (304, 64, 16)
    assert (found.shared_bytes, found.memory_bytes, found.clock_hz) == (65536, 192 << 30, 100_000_000)
    link = _core.peer_attributes("hip", 0, 1)
    assert (link.access, link.native_atomics, link.performance_rank) == (True, True, 3)
    assert _core.open_device("hip", 1) is not None
    with pytest.raises(ConfigError, match="GPU 2 does not exist: this process sees 2 hip devices"):
        _core.open_device("hip", 2)


def launch(folder: str) -> None:
    device = _core.open_device("hip", 1, kernel_dir=folder)
    total = device.allocate(8)
    add = device.function("unit", "fake_add", 16)
    stream = device.create_stream()
    device.launch(add, _core.LaunchShape(blocks=3, warps=2), stream, struct.pack("QQ", total, 5))
    device.synchronize(stream)
    device.destroy_stream(stream)
    assert word(total).value == 5 * 3 * 128
    assert device.max_resident_blocks(add, 4) == 8 * 304
    assert "launch device=1 stream=1" in report()
    assert fake().fake_current_device() == 0, "the caller's device must not change"
    with pytest.raises(ConfigError, match="argument block of 16 bytes, the host has one of 24"):
        device.function("unit", "fake_add", 24)
    with pytest.raises(ConfigError, match="unit 'unit' has no kernel 'other'"):
        device.function("unit", "other", 16)
    with pytest.raises(ConfigError, match=r"broken\.gfx942\.hsaco \(3 bytes\) on this gfx942 GPU"):
        device.function("broken", "x", 16)
    with pytest.raises(ConfigError, match=r"absent\.gfx942\.hsaco.*there are .*unit\.gfx942\.hsaco"):
        device.function("absent", "x", 16)
    assert fake().fake_last_error() == 0, "failures must not stay behind as the thread's last error"


def memory(folder: str) -> None:
    device = _core.open_device("hip")
    address = device.allocate(1000)
    assert bytes((ctypes.c_char * 1000).from_address(address)) == bytes(1000)
    device.fill(address, 7, 10)
    other = device.allocate(1000)
    device.copy(other, address, 1000)
    assert bytes((ctypes.c_char * 12).from_address(other)) == b"\7" * 10 + b"\0\0"
    pinned = device.allocate_host(64)
    assert word(pinned.host).value == 0
    device.free_host(pinned)
    assert "host-flags=40000003" in report()
    with pytest.raises(CapacityError, match="allocating 1099511627776 bytes failed: out of memory"):
        device.allocate(1 << 40)
    assert fake().fake_last_error() == 0
    ipc, offset, nbytes = _core.export_memory(device, address + 100)
    assert (offset, nbytes) == (100, 1000)
    assert _core.PeerMemory(device, ipc, nbytes).address == address  # of this process: not opened
    device.free(address)
    device.free(other)


def ring(rank: int, world_size: int, uid: bytes, share: str) -> int:
    meeting = rendezvous(uid=uid, rank=rank, world_size=world_size, timeout=20)
    device = _core.open_device("hip", rank % 2)
    fake().fake_set_current(0)
    with Mesh.connect(meeting, timeout=20) as mesh:
        heap = Heap(device, mesh, heap_bytes=2 * MIB, timeout=20, debug=True)
        assert device.can_map == (share == "map")
        first = heap.allocate(4096, fill=0)
        word(first.address((rank + 1) % world_size)).value = 10 + rank
        heap.barrier("first")
        assert word(first.address()).value == 10 + (rank - 1) % world_size
        if share == "map":
            second = heap.allocate(5 * MIB)
            far = second.offset + 5 * MIB - 8
            word(heap.core.address((rank + 1) % world_size, far)).value = 20 + rank
            heap.barrier("second")
            assert word(heap.core.address(rank, far)).value == 20 + (rank - 1) % world_size
        else:
            with pytest.raises(CapacityError, match="shares memory by IPC handles only"):
                heap.allocate(5 * MIB)
        heap.barrier("end")
        assert fake().fake_current_device() == 0
        capacity = heap.statistics.capacity_bytes
        heap.close()
        return capacity


def heap_mapped(folder: str) -> None:
    assert run_ranks(ring, 3, "map", mode="thread") == [2 * MIB + 6 * MIB] * 3
    assert "malloc-flags" not in report()


def clean(folder: str) -> None:
    device = _core.open_device("hip")
    chunk = device.create_shareable(2 * MIB)
    window = device.reserve(4 * MIB)
    device.map(window + 2 * MIB, chunk)
    assert word(window + 2 * MIB).value == 0, "fresh memory must be cleared"
    device.release(chunk)
    word(window + 2 * MIB).value = 1
    device.unmap(window + 2 * MIB, 2 * MIB)
    device.unreserve(window, 4 * MIB)


def heap_ipc(folder: str) -> None:
    assert run_ranks(ring, 2, "ipc", mode="thread") == [2 * MIB] * 2
    assert "malloc-flags=3" in report()


def fine_grained(folder: str) -> None:
    assert run_ranks(ring, 2, "ipc", mode="thread") == [2 * MIB] * 2
    assert "malloc-flags=3;malloc-flags=1" in report()
    assert fake().fake_last_error() == 0


def ipc_is_opened_once(folder: str) -> None:
    device = _core.open_device("hip")
    chunk = device.create_shareable(2 * MIB)
    theirs = device.import_shareable(-1, chunk.ipc, 2 * MIB)
    first, second = device.open_ipc(theirs), device.open_ipc(theirs)
    assert first == second == chunk.native
    device.close_ipc(first)
    device.close_ipc(second)
    assert report().count("ipc-open") == report().count("ipc-close") == 1
    with pytest.raises(ConfigError, match="no peer's memory is open"):
        device.close_ipc(first)
    with pytest.raises(ConfigError, match="64 bytes, this one 3"):
        device.open_ipc(device.import_shareable(-1, b"abc", 2 * MIB))


if __name__ == "__main__":
    globals()[sys.argv[1]](sys.argv[2])
    print("passed")
