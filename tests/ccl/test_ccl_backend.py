# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Backend "mori" of torch.distributed: every call as gloo answers it, and training programs of torch's own that do not
know which backend they have."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from mori.testing import run_ranks

import mori

pytestmark = pytest.mark.timeout(120)


def with_backend(rank: int, size: int, uid: bytes, backend: str, file: str, work: Callable[..., Any]) -> Any:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    if backend == "mori":
        mori.ccl.register_backend()
        mori.ccl.register_backend()
    dist.init_process_group(backend, init_method=f"file://{file}", rank=rank, world_size=size)
    try:
        return work(rank, size)
    finally:
        dist.destroy_process_group()


def both(work: Callable[..., Any], size: int, folder: Path) -> tuple[list[Any], list[Any]]:
    results = []
    for backend in ("gloo", "mori"):
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
            pass
        Path(file.name).unlink()
        results.append(run_ranks(with_backend, size, backend, file.name, work, timeout=110))
    return results[0], results[1]


def calls(rank: int, size: int) -> dict[str, Any]:
    """What each call leaves, as lists."""
    seen: dict[str, Any] = {}
    base = torch.arange(12.0) + 100 * rank

    for op in (dist.ReduceOp.SUM, dist.ReduceOp.MAX, dist.ReduceOp.MIN, dist.ReduceOp.PRODUCT):
        for dtype in (torch.float32, torch.int64, torch.uint8, torch.bfloat16):
            x = (torch.arange(12) % 3 + rank).to(dtype)
            dist.all_reduce(x, op)
            seen[f"all_reduce {op} {dtype}"] = x.tolist()
    strided = base.clone().view(3, 4).t()
    dist.all_reduce(strided)
    seen["strided"] = strided.tolist()
    x = base.clone()
    dist.reduce(x, 1)
    seen["reduce"] = x.tolist() if rank == 1 else None
    x = base.clone()
    dist.broadcast(x, size - 1)
    seen["broadcast"] = x.tolist()
    parts = [torch.empty(3, 4) for _ in range(size)]
    dist.all_gather(parts, base.view(3, 4))
    seen["all_gather"] = [part.tolist() for part in parts]
    whole = torch.empty(size * 12)
    dist.all_gather_into_tensor(whole, base)
    seen["all_gather_into_tensor"] = whole.tolist()
    out = torch.empty(12 // size)
    dist.reduce_scatter_tensor(out, base.clone())
    seen["reduce_scatter_tensor"] = out.tolist()
    out = torch.empty(2)
    dist.reduce_scatter(out, [base[2 * i : 2 * i + 2] for i in range(size)])
    seen["reduce_scatter"] = out.tolist()
    gathered = [torch.empty(12) for _ in range(size)] if rank == 0 else None
    dist.gather(base, gathered)
    seen["gather"] = [part.tolist() for part in gathered or ()]
    out = torch.empty(3)
    dist.scatter(out, [base[3 * i : 3 * i + 3].clone() for i in range(size)] if rank == 1 else None, src=1)
    seen["scatter"] = out.tolist()
    out = torch.empty(12)
    dist.all_to_all_single(out, base)
    seen["all_to_all_single"] = out.tolist()
    send, receive = [(rank + i) % 2 for i in range(size)], [(rank + i) % 2 for i in range(size)]
    out = torch.empty(sum(receive), 2)
    dist.all_to_all_single(out, torch.full((sum(send), 2), float(rank)), receive, send)
    seen["all_to_all_single unequal"] = out.tolist()
    objects: list[Any] = [None] * size
    dist.all_gather_object(objects, {"rank": rank, "text": "x" * rank})
    seen["all_gather_object"] = objects
    work = dist.all_reduce(base, async_op=True)
    assert work is not None
    work.wait()
    seen["async"] = (work.is_completed(), base.tolist())
    pairs = dist.new_group([0, size - 1])
    if rank in (0, size - 1):
        x = torch.tensor([rank + 1.0])
        dist.all_reduce(x, group=pairs)
        seen["subgroup"] = x.tolist()
    dist.barrier()
    return seen


@pytest.mark.parametrize("size", [2, 3])
def test_every_call_as_gloo(size: int, tmp_path: Path) -> None:
    theirs, ours = both(calls, size, tmp_path)
    for rank in range(size):
        different = {
            name: (theirs[rank][name], ours[rank][name])
            for name in theirs[rank]
            if theirs[rank][name] != ours[rank][name]
        }
        assert not different


def sharded(rank: int, size: int) -> list[float]:
    """FSDP2, as its tutorial has it."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (size,))
    model = torch.nn.Sequential(torch.nn.Linear(16, 33), torch.nn.ReLU(), torch.nn.Linear(33, 5))
    for layer in (model[0], model[2], model):
        fully_shard(layer, mesh=mesh)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for step in range(5):
        x = torch.randn(8, 16, generator=torch.Generator().manual_seed(10 * step + rank))
        loss = model(x).square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def tensor_parallel(rank: int, size: int) -> list[float]:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    mesh = init_device_mesh("cpu", (size,))
    model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 5))
    model = parallelize_module(model, mesh, {"0": ColwiseParallel(), "2": RowwiseParallel()})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for step in range(5):
        x = torch.randn(8, 16, generator=torch.Generator().manual_seed(step))
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize(("program", "size"), [(sharded, 2), (sharded, 4), (tensor_parallel, 2)])
def test_training_has_the_same_losses(program: Callable[..., Any], size: int, tmp_path: Path) -> None:
    theirs, ours = both(program, size, tmp_path)
    for a, b in zip(theirs, ours, strict=True):
        assert a == pytest.approx(b, rel=1e-5)
        assert len(set(a)) == 5  # it learns something


def refused(rank: int, size: int) -> list[str]:
    said = []
    for call in (
        lambda: dist.send(torch.ones(1), 1 - rank),
        lambda: dist.all_reduce(torch.ones(3), dist.ReduceOp.BAND),
        lambda: dist.all_reduce(torch.ones(3, dtype=torch.uint16)),
    ):
        try:
            call()
        except Exception as error:
            said.append(str(error))
    return said


def test_what_there_is_not_is_said(tmp_path: Path) -> None:
    for said in run_ranks(with_backend, 2, "mori", str(tmp_path / "store"), refused, timeout=60):
        assert "collectives only" in said[0]
        assert "has SUM, AVG" in said[1]
        assert "uint16 cannot be reduced" in said[2]
