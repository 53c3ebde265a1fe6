# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""mori.ccl as a backend of torch.distributed: docs/ccl_guide.md, "As a backend".

    mori.ccl.register_backend()
    torch.distributed.init_process_group("mori")

Every process group is a context of its own, made when it is first used for a kind of device. Work is queued on the
current stream, so that a work object is complete, in stream order, when the call returns.
"""

from __future__ import annotations

import datetime
import functools
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import mori
from mori.ccl._communicator import Communicator
from mori.ccl._kinds import element_types
from mori.errors import ConfigError

if TYPE_CHECKING:
    import torch

__all__ = ["register_backend"]

_NAME = "mori"
_lock = threading.Lock()
_registered = False


def register_backend() -> None:
    """Makes "mori" a backend of torch.distributed, for cpu and cuda devices. Twice is once."""
    global _registered
    import torch.distributed as dist

    with _lock:
        if not _registered:
            dist.Backend.register_backend(_NAME, _make, devices=["cpu", "cuda"])
            _registered = True


def _make(store: Any, rank: int, size: int, timeout: datetime.timedelta) -> Any:
    return _group_class()(store, rank, size, timeout.total_seconds())


class _Comms:
    """The communicators of a process group, by kind of device."""

    def __init__(self, store: Any, rank: int, size: int, timeout: float) -> None:
        self._store, self._rank, self._size, self._timeout = store, rank, size, timeout
        self._by_kind: dict[str, Communicator] = {}

    def of(self, tensor: torch.Tensor) -> Communicator:
        """Collective, the first time that a kind of device is used."""
        kind = tensor.device.type
        found = self._by_kind.get(kind)
        if found is None:
            key = f"mori.ccl/{kind}"
            if self._rank == 0:
                self._store.set(key, mori.unique_id())
            ctx = mori.init(
                uid=self._store.get(key),
                rank=self._rank,
                world_size=self._size,
                device=str(tensor.device),
                timeout=self._timeout,
            )
            found = self._by_kind[kind] = Communicator(ctx)
        return found

    def close(self) -> None:
        while self._by_kind:
            self._by_kind.popitem()[1].ctx.close()


def _done(results: Any) -> Any:
    """A work object that is complete."""
    import torch
    from torch._C import _distributed_c10d

    c10d: Any = _distributed_c10d
    future: Any = torch.futures.Future()
    future.set_result(results)
    return c10d._create_work_from_future(future)


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().view(-1)


def _back(tensor: torch.Tensor, result: torch.Tensor) -> None:
    """Into a tensor that the call could not write, not being contiguous, or of another dtype."""
    if tensor.data_ptr() != result.data_ptr() or tensor.dtype != result.dtype:
        tensor.copy_(result.view(tensor.shape))


def _op(opts: Any) -> str:
    import torch.distributed as dist

    wanted = getattr(opts, "reduceOp", opts)
    names = {"SUM": "sum", "AVG": "avg", "MIN": "min", "MAX": "max", "PRODUCT": "prod"}
    for name, ours in names.items():
        if wanted == getattr(dist.ReduceOp, name):
            return ours
    raise ConfigError(f"reduce op {wanted}: backend 'mori' has {', '.join(names)}")


def _summable(tensor: torch.Tensor, op: str) -> tuple[torch.Tensor, str]:
    """A contiguous tensor that kernels can sum: small integers and bools as int32."""
    import torch

    if tensor.dtype in element_types():
        return tensor.contiguous(), op
    if tensor.dtype in (torch.bool, torch.uint8, torch.int8, torch.int16):
        truth = {"sum": "max", "prod": "min"} if tensor.dtype is torch.bool else {}
        return tensor.to(torch.int32), truth.get(op, op)
    raise ConfigError(f"a tensor of {tensor.dtype} cannot be reduced by backend 'mori'")


def _one(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    if len(tensors) != 1:
        raise ConfigError(f"{len(tensors)} tensors in one call; backend 'mori' takes one for each rank")
    return tensors[0]


@functools.cache
def _group_class() -> Any:
    """A class, made once torch.distributed is there."""
    import torch
    import torch.distributed as dist

    base: Any = dist.ProcessGroup  # as far as its stubs go, overrides would be wrong

    class ProcessGroup(base):  # type: ignore[misc]
        def __init__(self, store: Any, rank: int, size: int, timeout: float) -> None:
            super().__init__(rank, size)
            self._comms, self._n, self._me = _Comms(store, rank, size, timeout), size, rank
            self._description = ""

        def getBackendName(self) -> str:
            return _NAME

        # A group made in Python holds no backends, from which torch would know these.
        @property
        def group_name(self) -> str:
            from torch.distributed import distributed_c10d

            return str(distributed_c10d._world.pg_names[self])

        @property
        def group_desc(self) -> str:
            return self._description

        def _set_group_desc(self, description: str) -> None:
            self._description = description

        def shutdown(self) -> None:
            self._comms.close()

        abort = shutdown

        def __del__(self) -> None:
            self._comms.close()

        # Sums.

        def allreduce(self, tensors: Sequence[torch.Tensor], opts: Any = None) -> Any:
            tensor = _one(tensors)
            x, op = _summable(tensor, _op(opts) if opts is not None else "sum")
            _back(tensor, self._comms.of(tensor).all_reduce(x, op=op, out=x))
            return _done(list(tensors))

        def allreduce_coalesced(self, tensors: Sequence[torch.Tensor], opts: Any = None) -> Any:
            for tensor in tensors:
                self.allreduce([tensor], opts)
            return _done(list(tensors))

        def reduce(self, tensors: Sequence[torch.Tensor], opts: Any) -> Any:
            tensor = _one(tensors)
            x, op = _summable(tensor, _op(opts))
            result = self._comms.of(tensor).reduce(x, opts.rootRank, op=op, out=x)
            if result is not None:
                _back(tensor, result)
            return _done(list(tensors))

        def _reduce_scatter_base(self, out: torch.Tensor, x: torch.Tensor, opts: Any = None) -> Any:
            flat, op = _summable(x, _op(opts) if opts is not None else "sum")
            _back(out, self._comms.of(x).reduce_scatter(flat.view(-1), op=op))
            return _done(out)

        def reduce_scatter(self, outs: Sequence[torch.Tensor], ins: Any, opts: Any = None) -> Any:
            out, parts = _one(outs), ins[0]
            return self._reduce_scatter_base(out, torch.cat([_flat(part) for part in parts]), opts)

        def reduce_scatter_tensor_coalesced(
            self, outs: Sequence[torch.Tensor], ins: Sequence[torch.Tensor], opts: Any = None
        ) -> Any:
            for out, x in zip(outs, ins, strict=True):
                self._reduce_scatter_base(out, x, opts)
            return _done(list(outs))

        # Moves.

        def _allgather_base(self, out: torch.Tensor, x: torch.Tensor, opts: Any = None) -> Any:
            target = out if out.is_contiguous() else torch.empty_like(out, memory_format=torch.contiguous_format)
            self._comms.of(x).all_gather(_flat(x), out=target.view(-1))
            _back(out, target)
            return _done(out)

        def allgather(self, outs: Any, ins: Sequence[torch.Tensor], opts: Any = None) -> Any:
            x = _one(ins)
            sizes = [part.numel() for part in outs[0]]
            if any(size != x.numel() for size in sizes):
                raise ConfigError(f"all_gather of {x.numel()} elements into tensors of {sizes}; they must be equal")
            whole = self._comms.of(x).all_gather(_flat(x))
            for part, got in zip(outs[0], whole.view(self._n, -1), strict=True):
                part.copy_(got.view(part.shape))
            return _done(outs)

        def allgather_coalesced(self, outs: Any, ins: Sequence[torch.Tensor], opts: Any = None) -> Any:
            for i, x in enumerate(ins):
                self.allgather([[row[i] for row in outs]], [x], opts)
            return _done(outs)

        def allgather_into_tensor_coalesced(
            self, outs: Sequence[torch.Tensor], ins: Sequence[torch.Tensor], opts: Any = None
        ) -> Any:
            for out, x in zip(outs, ins, strict=True):
                self._allgather_base(out, x, opts)
            return _done(list(outs))

        def broadcast(self, tensors: Sequence[torch.Tensor], opts: Any) -> Any:
            tensor = _one(tensors)
            x = tensor.contiguous()
            _back(tensor, self._comms.of(x).broadcast(x, opts.rootRank))
            return _done(list(tensors))

        def gather(self, outs: Any, ins: Sequence[torch.Tensor], opts: Any) -> Any:
            x = _one(ins)
            whole = self._comms.of(x).gather(_flat(x), opts.rootRank)
            if whole is not None:
                for part, got in zip(outs[0], whole.view(self._n, -1), strict=True):
                    part.copy_(got.view(part.shape))
            return _done(outs)

        def scatter(self, outs: Sequence[torch.Tensor], ins: Any, opts: Any) -> Any:
            out = _one(outs)
            x = torch.cat([_flat(part) for part in ins[0]]) if self._me == opts.rootRank else None
            flat = torch.empty_like(out, memory_format=torch.contiguous_format).view(-1)
            _back(out, self._comms.of(out).scatter(x, flat, opts.rootRank))
            return _done(list(outs))

        def alltoall_base(
            self, out: torch.Tensor, x: torch.Tensor, receive: Sequence[int], send: Sequence[int], opts: Any = None
        ) -> Any:
            comm, source = self._comms.of(x), x.contiguous()
            if not receive and not send:
                _back(out, comm.all_to_all(source.view(self._n, -1)))
            else:
                send = list(send) or [x.shape[0] // self._n] * self._n
                receive = list(receive) or [out.shape[0] // self._n] * self._n
                _back(out, comm.all_to_all(source, send=send, receive=receive))
            return _done(out)

        def alltoall(self, outs: Sequence[torch.Tensor], ins: Sequence[torch.Tensor], opts: Any = None) -> Any:
            x = torch.cat([_flat(part) for part in ins])
            send, receive = [part.numel() for part in ins], [part.numel() for part in outs]
            got = self._comms.of(x).all_to_all(x, send=send, receive=receive)
            for part, mine in zip(outs, torch.split(got, receive), strict=True):
                part.copy_(mine.view(part.shape))
            return _done(list(outs))

        def barrier(self, opts: Any = None) -> Any:
            kinds = list(self._comms._by_kind) or ["cpu"]
            where = torch.device(kinds[0], torch.cuda.current_device()) if kinds[0] == "cuda" else torch.device("cpu")
            comm = self._comms.of(torch.empty(0, device=where))
            comm.barrier()
            comm.ctx.synchronize()
            return _done([])

        def send(self, tensors: Sequence[torch.Tensor], peer: int, tag: int) -> Any:
            raise ConfigError("send: backend 'mori' has collectives only; use mori.shmem or mori.io")

        def recv(self, tensors: Sequence[torch.Tensor], peer: int, tag: int) -> Any:
            raise ConfigError("recv: backend 'mori' has collectives only; use mori.shmem or mori.io")

        # The names that newer versions of torch call.
        all_gather_single = _allgather_base
        reduce_scatter_single = _reduce_scatter_base
        all_to_all_single = alltoall_base

    return ProcessGroup
