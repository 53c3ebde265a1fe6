# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""torch.ops.mori.ccl_*: collectives as operators that torch.compile can trace, with fake kernels and gradients.

    mori.ccl.register_ops()
    total = torch.ops.mori.ccl_all_reduce(x, comm.number)

A communicator is named by its `number` and must outlive the compiled code. docs/ccl_torch.md has the table.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mori._numbered import Numbered
from mori.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from mori.ccl._communicator import Communicator

__all__ = ["enlist", "register_ops"]

_communicators: Numbered[Communicator] = Numbered("communicator")
_lock = threading.Lock()
_registered: list[Any] = []

#: A number by which operators find a communicator.
enlist = _communicators.enlist
_found = _communicators.find
_BACKWARD = ("all_reduce", "identity")


def register_ops() -> None:
    """Defines the operators. Twice is once. Needs torch >= 2.4."""
    with _lock:
        if not _registered:
            _registered.extend([*_moves(), *_sums(), *_norms()])


def _define(name: str, schema: str, function: Any, fake: Any, keep: Any = None, back: Any = None) -> Any:
    import torch

    op: Any = torch.library.custom_op(f"mori::{name}", function, mutates_args=(), schema=schema)
    op.register_fake(fake)
    if back is not None:
        op.register_autograd(back, setup_context=keep)
    return op


def _moves() -> list[Any]:
    import torch

    ops = torch.ops.mori

    def gather(x: torch.Tensor, communicator: int) -> torch.Tensor:
        return _found(communicator).all_gather(x.contiguous())

    def fake_gather(x: Any, communicator: int) -> Any:
        size = _found(communicator).size
        return x.new_empty((size * x.shape[0], *x.shape[1:]) if x.dim() else (size,))

    def keep_gather(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.communicator, ctx.scalar = inputs[1], inputs[0].dim() == 0

    def gather_back(ctx: Any, grad: Any) -> Any:
        mine = ops.ccl_reduce_scatter(grad, ctx.communicator, "sum")
        return mine.squeeze(0) if ctx.scalar else mine, None

    def exchange(
        x: torch.Tensor,
        communicator: int,
        send: Sequence[int] | None = None,
        receive: Sequence[int] | None = None,
    ) -> torch.Tensor:
        return _found(communicator).all_to_all(x.contiguous(), send=send, receive=receive)

    def fake_exchange(x: Any, communicator: int, send: Any = None, receive: Any = None) -> Any:
        return x.new_empty(x.shape if receive is None else (sum(receive), *x.shape[1:]))

    def keep_exchange(ctx: Any, inputs: Any, output: Any) -> None:
        _, ctx.communicator, ctx.send, ctx.receive = inputs

    def exchange_back(ctx: Any, grad: Any) -> Any:
        return ops.ccl_all_to_all(grad, ctx.communicator, ctx.receive, ctx.send), None, None, None

    splits = "SymInt[]? send=None, SymInt[]? receive=None"
    return [
        _define(
            "ccl_all_gather", "(Tensor x, int communicator) -> Tensor", gather, fake_gather, keep_gather, gather_back
        ),
        _define(
            "ccl_all_to_all",
            f"(Tensor x, int communicator, {splits}) -> Tensor",
            exchange,
            fake_exchange,
            keep_exchange,
            exchange_back,
        ),
    ]


def _sums() -> list[Any]:
    import torch

    ops = torch.ops.mori

    def total(
        x: torch.Tensor, communicator: int, op: str = "sum", wire: str | None = None, backward: str = "all_reduce"
    ) -> torch.Tensor:
        _check_backward(backward)
        return _found(communicator).all_reduce(x.contiguous(), op=op, wire=wire)

    def fake_total(x: Any, communicator: int, op: str = "sum", wire: Any = None, backward: str = "") -> Any:
        return torch.empty_like(x, memory_format=torch.contiguous_format)

    def keep_total(ctx: Any, inputs: Any, output: Any) -> None:
        _, ctx.communicator, ctx.op, ctx.wire, ctx.backward = inputs

    def total_back(ctx: Any, grad: Any) -> Any:
        _check_linear("ccl_all_reduce", ctx.op)
        if ctx.backward == "all_reduce":
            grad = ops.ccl_all_reduce(grad, ctx.communicator, ctx.op, ctx.wire, ctx.backward)
        elif ctx.op == "avg":
            grad = grad / _found(ctx.communicator).size
        return grad, None, None, None, None

    def replicate(x: torch.Tensor, communicator: int) -> torch.Tensor:
        _found(communicator)
        return x.clone(memory_format=torch.contiguous_format)

    def fake_replicate(x: Any, communicator: int) -> Any:
        return torch.empty_like(x, memory_format=torch.contiguous_format)

    def keep_replicate(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.communicator = inputs[1]

    def replicate_back(ctx: Any, grad: Any) -> Any:
        return ops.ccl_all_reduce(grad, ctx.communicator), None

    def scatter(x: torch.Tensor, communicator: int, op: str = "sum") -> torch.Tensor:
        return _found(communicator).reduce_scatter(x.contiguous(), op=op)

    def fake_scatter(x: Any, communicator: int, op: str = "sum") -> Any:
        return x.new_empty((x.shape[0] // _found(communicator).size, *x.shape[1:]))

    def keep_scatter(ctx: Any, inputs: Any, output: Any) -> None:
        _, ctx.communicator, ctx.op = inputs

    def scatter_back(ctx: Any, grad: Any) -> Any:
        _check_linear("ccl_reduce_scatter", ctx.op)
        whole = ops.ccl_all_gather(grad, ctx.communicator)
        return whole / _found(ctx.communicator).size if ctx.op == "avg" else whole, None, None

    return [
        _define(
            "ccl_all_reduce",
            '(Tensor x, int communicator, str op="sum", str? wire=None, str backward="all_reduce") -> Tensor',
            total,
            fake_total,
            keep_total,
            total_back,
        ),
        _define(
            "ccl_replicate",
            "(Tensor x, int communicator) -> Tensor",
            replicate,
            fake_replicate,
            keep_replicate,
            replicate_back,
        ),
        _define(
            "ccl_reduce_scatter",
            '(Tensor x, int communicator, str op="sum") -> Tensor',
            scatter,
            fake_scatter,
            keep_scatter,
            scatter_back,
        ),
    ]


def _norms() -> list[Any]:
    import torch

    ops = torch.ops.mori

    def norm(
        x: torch.Tensor,
        residual: torch.Tensor | None,
        weight: torch.Tensor,
        communicator: int,
        eps: float = 1e-6,
        backward: str = "all_reduce",
    ) -> tuple[torch.Tensor, torch.Tensor]:
        _check_backward(backward)
        before = None if residual is None else residual.contiguous()
        return _found(communicator).all_reduce_rms_norm(x.contiguous(), before, weight, eps=eps)

    def fake_norm(x: Any, residual: Any, weight: Any, communicator: int, eps: float = 1e-6, backward: str = "") -> Any:
        return fake_total(x), fake_total(x)

    def fake_total(x: Any, dtype: Any = None) -> Any:
        return torch.empty_like(x, dtype=dtype, memory_format=torch.contiguous_format)

    def keep_norm(ctx: Any, inputs: Any, output: Any) -> None:
        _, residual, weight, ctx.communicator, ctx.eps, ctx.backward = inputs
        ctx.has_residual = residual is not None
        ctx.save_for_backward(weight, output[1])

    def norm_back(ctx: Any, grad_normed: Any, grad_kept: Any) -> Any:
        weight, kept = ctx.saved_tensors
        # of normed = kept * s * weight, s = 1 / sqrt(mean(kept ^ 2) + eps), in fp32
        wide, toward = kept.float(), grad_normed.float()
        s = torch.rsqrt(wide.square().mean(-1, keepdim=True) + ctx.eps)
        unit, scaled = wide * s, toward * weight.float()
        grad = s * (scaled - unit * (scaled * unit).mean(-1, keepdim=True)) + grad_kept.float()
        grad_weight = (toward * unit).reshape(-1, weight.shape[0]).sum(0).to(weight.dtype)
        grad = grad.to(kept.dtype)
        grad_x = ops.ccl_all_reduce(grad, ctx.communicator) if ctx.backward == "all_reduce" else grad
        return grad_x, grad if ctx.has_residual else None, grad_weight, None, None, None

    def norm_fp8(
        x: torch.Tensor,
        residual: torch.Tensor | None,
        weight: torch.Tensor,
        communicator: int,
        eps: float = 1e-6,
        quantize: str = "fp8",
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        before = None if residual is None else residual.contiguous()
        (codes, scales), kept = _found(communicator).all_reduce_rms_norm(
            x.contiguous(), before, weight, eps=eps, quantize=quantize
        )
        return codes, scales, kept

    def fake_norm_fp8(
        x: Any, residual: Any, weight: Any, communicator: int, eps: float = 1e-6, quantize: str = "fp8"
    ) -> Any:
        per_row = 1 if quantize == "fp8" else -(-x.shape[-1] // 128)
        scales = x.new_empty((*x.shape[:-1], per_row), dtype=torch.float32)
        return fake_total(x, torch.float8_e4m3fn), scales, fake_total(x)

    head = "Tensor x, Tensor? residual, Tensor weight, int communicator, float eps=1e-6"
    return [
        _define(
            "ccl_all_reduce_rms_norm",
            f'({head}, str backward="all_reduce") -> (Tensor, Tensor)',
            norm,
            fake_norm,
            keep_norm,
            norm_back,
        ),
        _define(
            "ccl_all_reduce_rms_norm_fp8",
            f'({head}, str quantize="fp8") -> (Tensor, Tensor, Tensor)',
            norm_fp8,
            fake_norm_fp8,
        ),
    ]


def _check_backward(backward: str) -> None:
    if backward not in _BACKWARD:
        raise ConfigError(f"backward={backward!r}: allowed are {', '.join(_BACKWARD)}")


def _check_linear(name: str, op: str) -> None:
    if op not in ("sum", "avg"):
        raise ConfigError(f"{name}: gradients are for op='sum' and 'avg', not {op!r}")
