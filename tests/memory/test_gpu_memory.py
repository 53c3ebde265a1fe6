# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The GPU device and the symmetric heap on real GPUs, one being enough: ranks are threads or processes that
share it. Launching (also into a graph), properties beside torch's, mapped and IPC heaps, and registering
torch's own memory."""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from heap_ranks import MIB, TIMEOUT_S
from mori.bootstrap import rendezvous, unique_id
from mori.errors import CapacityError, ConfigError
from mori.heap import Heap
from mori.mesh import Mesh
from mori.testing import run_ranks

from mori import _core

KIND = "hip" if torch.version.hip else "cuda"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(120),
    pytest.mark.skipif(
        not torch.cuda.is_available() or _core.device_count(KIND)[0] == 0, reason=_core.device_count(KIND)[1]
    ),
]
modes = pytest.mark.parametrize("mode", ["spawn", "thread"])
shares = pytest.mark.parametrize("share", ["auto", "ipc"])


@pytest.fixture
def device() -> _core.Device:
    return _core.open_device(KIND, 0)


@contextlib.contextmanager
def gpu_heap(rank: int, world_size: int, uid: bytes, **options: Any) -> Iterator[Heap]:
    torch.cuda.set_device(0)
    options = {"heap_bytes": 4 * MIB, "debug": True, "timeout": TIMEOUT_S} | options
    meeting = rendezvous(uid=uid, rank=rank, world_size=world_size, timeout=TIMEOUT_S)
    with (
        Mesh.connect(meeting, timeout=TIMEOUT_S) as mesh,
        Heap(_core.open_device(KIND, 0), mesh, **options) as heap,
    ):
        yield heap


def arguments(*, out: int = 0, source: int = 0, count: int = 0, value: int = 0) -> bytes:
    """SelfTestArgs (src/core/device/selftest.hpp) without a world."""
    return struct.pack("<QQQIIQQQQQ", 0, 0, 0, 0, 1, 0, out, source, count, value)


def test_properties_agree_with_torch(device: _core.Device) -> None:
    ours, theirs = device.properties, torch.cuda.get_device_properties(0)
    assert ours.name == theirs.name
    assert ours.processors == theirs.multi_processor_count
    assert ours.memory_bytes == theirs.total_memory
    assert ours.warp_size == theirs.warp_size
    if KIND == "cuda":
        assert ours.arch == f"sm_{theirs.major}{theirs.minor}"
        assert ours.clock_hz == 1_000_000_000
    assert len(ours.pci_bus_id.split(":")) == 3
    assert ours.pci_bus_id == ours.pci_bus_id.lower()


def test_device_is_shared_and_ordinals_checked(device: _core.Device) -> None:
    assert _core.open_device(KIND, 0) is device
    count = _core.device_count(KIND)[0]
    with pytest.raises(ConfigError, match=f"GPU {count} does not exist"):
        _core.open_device(KIND, count)
    assert _core.peer_attributes(KIND, 0, 0).access


def test_memory(device: _core.Device) -> None:
    address, other = device.allocate(1 << 20), device.allocate(1 << 20)
    host = torch.empty(1 << 20, dtype=torch.uint8)
    device.copy(host.data_ptr(), address, 1 << 20)
    assert not host.any(), "fresh memory is zero"
    device.fill(address, 0xAB, 1000)
    device.copy(other, address, 1 << 20)
    device.copy(host.data_ptr(), other, 1 << 20)
    assert (host[:1000] == 0xAB).all()
    assert not host[1000:].any()
    device.free(address)
    device.free(other)
    with pytest.raises(CapacityError, match="out of memory"):
        device.allocate(1 << 45)
    torch.zeros(4, device="cuda").add_(1).cpu()  # torch goes on after our failure


def test_launch_on_torchs_stream_and_into_a_graph(device: _core.Device) -> None:
    copy = device.function("selftest", "selftest_copy", 72)
    blocks, warps, row = 8, 4, 4096
    source = torch.randint(0, 255, (blocks * warps, row), dtype=torch.uint8, device="cuda")
    out = torch.zeros_like(source)
    args = arguments(out=out.data_ptr(), source=source.data_ptr(), count=row)
    shape = _core.LaunchShape(blocks=blocks, warps=warps)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        device.launch(copy, shape, stream.cuda_stream, args)
    stream.synchronize()
    assert torch.equal(out, source)

    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        device.launch(copy, shape, torch.cuda.current_stream().cuda_stream, args)
    for seed in range(3):
        source.fill_(seed + 1)
        graph.replay()
        torch.cuda.synchronize()
        assert (out == seed + 1).all()


def test_own_streams_and_host_memory(device: _core.Device) -> None:
    copy = device.function("selftest", "selftest_copy", 72)
    pinned = device.allocate_host(4096)
    source = torch.arange(512, dtype=torch.int64, device="cuda")
    torch.cuda.synchronize()
    stream = device.create_stream()
    device.launch(
        copy,
        _core.LaunchShape(),
        stream,
        arguments(out=pinned.device, source=source.data_ptr(), count=4096),
    )
    device.synchronize(stream)
    device.destroy_stream(stream)
    seen = torch.empty(512, dtype=torch.int64)
    device.copy(seen.data_ptr(), pinned.host, 4096)
    assert torch.equal(seen, torch.arange(512))
    device.free_host(pinned)


def test_functions_are_checked_and_cached(device: _core.Device) -> None:
    function = device.function("selftest", "selftest_shared", 72)
    assert device.function("selftest", "selftest_shared", 72).name == function.name
    with pytest.raises(ConfigError, match="argument block of 72 bytes, the host has one of 80"):
        device.function("selftest", "selftest_shared", 80)
    with pytest.raises(ConfigError, match="no kernel 'absent'"):
        device.function("selftest", "absent", 64)
    with pytest.raises(ConfigError, match=r"no code object .*absent"):
        device.function("absent", "absent", 64)
    assert device.max_resident_blocks(function, 32) >= device.properties.processors


def test_more_shared_memory_than_the_default(device: _core.Device) -> None:
    if KIND != "cuda":
        pytest.skip("only CUDA has shared memory to opt in to")
    function = device.function("selftest", "selftest_shared", 72)
    lanes = 2 * device.properties.warp_size
    out = torch.zeros(lanes + 2, dtype=torch.int64, device="cuda")
    torch.cuda.synchronize()
    large = _core.LaunchShape(blocks=1, warps=2, shared_bytes=64 << 10)
    device.launch(function, large, 0, arguments(out=out.data_ptr(), value=1))
    device.synchronize(0)
    assert out[:lanes].tolist() == [1000 + lanes - 1 - lane for lane in range(lanes)]


def test_a_wrong_launch_is_refused(device: _core.Device) -> None:
    nop = device.function("selftest", "selftest_nop", 72)
    with pytest.raises(Exception, match="launching 'selftest_nop' with 1 blocks of 100 warps"):
        device.launch(nop, _core.LaunchShape(blocks=1, warps=100), 0, arguments())
    device.launch(nop, _core.LaunchShape(), 0, arguments())
    device.synchronize(0)


def heap_ring(rank: int, world_size: int, uid: bytes, share: str) -> tuple[bool, list[int]]:
    with gpu_heap(rank, world_size, uid, share=share, heap_bytes=64 * MIB) as heap:
        left, right = (rank - 1) % world_size, (rank + 1) % world_size
        inbox = heap.empty((world_size, 1000), torch.bfloat16, fill=0)
        assert inbox.is_cuda
        heap.peer_tensor(inbox, right)[rank] = rank + 1
        torch.cuda.synchronize()
        heap.barrier("written")
        assert (inbox[left] == left + 1).all()
        mapped = bool(heap.core.growable)
        if mapped:
            large = heap.empty((100 * MIB,), torch.uint8, fill=0)
            heap.peer_tensor(large, right)[-5:] = 50 + rank
            torch.cuda.synchronize()
            heap.barrier("grown")
            assert (large[-5:] == 50 + left).all()
            assert int(large.count_nonzero()) == 5
            del large
            heap.collect()
        bases = torch.empty(world_size, dtype=torch.int64)
        heap.device.copy(bases.data_ptr(), heap.bases_address, 8 * world_size)
        assert bases.tolist() == [heap.core.address(peer, 0) for peer in range(world_size)]
        heap.check_canaries()
        torch.cuda.synchronize()
        heap.barrier("end")
        return mapped, [heap.offset(inbox)]


@modes
@shares
@pytest.mark.parametrize("world_size", [1, 2, 3], ids=lambda n: f"{n}ranks")
def test_heap(mode: str, share: str, world_size: int) -> None:
    results = run_ranks(heap_ring, world_size, share, mode=mode, timeout=100)
    assert results == [results[0]] * world_size
    if share == "ipc":
        assert not results[0][0]


def far_offsets(rank: int, world_size: int, uid: bytes) -> None:
    with gpu_heap(rank, world_size, uid, share="map", heap_bytes=5 << 30, debug=False) as heap:
        big = heap.empty((5 << 30,), torch.uint8)
        heap.peer_tensor(big, (rank + 1) % world_size)[(4 << 30) + 123] = 7 + rank
        torch.cuda.synchronize()
        heap.barrier("written")
        assert int(big[(4 << 30) + 123]) == 7 + (rank - 1) % world_size


def test_offsets_beyond_4_gib(device: _core.Device) -> None:
    if not device.can_map or device.properties.memory_bytes < 20 << 30:
        pytest.skip("needs mapping and 20 GiB")
    run_ranks(far_offsets, 2, mode="thread", timeout=100)


def register_torch(rank: int, world_size: int, uid: bytes) -> bool:
    with gpu_heap(rank, world_size, uid) as heap:
        block = torch.zeros(1 << 20, dtype=torch.int32, device="cuda")
        tensor = block[1000 * (rank + 1) :][:5000]  # inside an allocation, elsewhere on every rank
        tensor.copy_(torch.arange(5000, device="cuda") + 10000 * rank)
        reg = heap.register(tensor)
        reg.publish()
        torch.cuda.synchronize()
        heap.barrier("published")
        for peer in range(world_size):
            assert torch.equal(reg.peer_tensor(peer).cpu(), torch.arange(5000, dtype=torch.int32) + 10000 * peer)
        torch.cuda.synchronize()
        heap.barrier("read")
        reg.peer_tensor((rank + 1) % world_size)[17] = -1 - rank
        torch.cuda.synchronize()
        heap.barrier("written")
        reg.fetch()
        assert int(tensor[17]) == -1 - (rank - 1) % world_size
        assert int((block == 0).sum()) >= block.numel() - 5001
        staged = reg.staged
        reg.close()
        return staged


@modes
def test_register_a_part_of_torchs_memory(mode: str) -> None:
    assert run_ranks(register_torch, 2, mode=mode, timeout=100) == [False, False]


EXPANDABLE = """
import sys
sys.path.insert(0, sys.argv[1])
from test_gpu_memory import register_torch, run_ranks
if __name__ == "__main__":
    print(run_ranks(register_torch, 2, mode="thread", timeout=90))
"""


def test_expandable_segments_are_staged() -> None:
    done = subprocess.run(
        [sys.executable, "-c", EXPANDABLE, str(Path(__file__).parent)],
        env=os.environ | {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    assert "[True, True]" in done.stdout


def test_cpu_memory_beside_a_gpu_heap() -> None:
    with gpu_heap(0, 1, unique_id()) as heap:
        tensor = torch.arange(100)
        reg = heap.register(tensor)
        assert reg.staged
        reg.publish()
        assert reg.peer_tensor(0).is_cuda
        assert torch.equal(reg.peer_tensor(0).cpu(), tensor)
        reg.peer_tensor(0).mul_(2)
        reg.fetch()
        torch.cuda.synchronize()
        assert torch.equal(tensor, torch.arange(100) * 2)
        reg.close()


def test_overrun_is_named_on_the_gpu() -> None:
    with gpu_heap(0, 1, unique_id()) as heap:
        tensor = heap.empty((10,), torch.int32, purpose="counters")
        heap.device.fill(heap.address(tensor) + 41, 0, 1)
        with pytest.raises(Exception, match=r"'counters' \(40 bytes at offset 0 .* byte 41"):
            heap.check_canaries()
