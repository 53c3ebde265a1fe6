# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""all_reduce + residual + RMSNorm (+ fp8) in one launch. docs/ccl_fused.md."""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, Any

from mori import _core
from mori.ccl._kinds import Op, Reduction, norm_types
from mori.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from mori.ccl._communicator import Communicator

__all__ = ["all_reduce_rms_norm"]

_MORE = struct.Struct("<5QfI")  # mori::CclNormArgs behind its CclArgs: residual .. codes
_ALIKE = struct.Struct("<7sIIB2Qf")
_SHARED_BYTES = 16 + 256  # a flag, and mori::ccl::WarpResults
_UNIT = 8  # mori::ccl::kUnit
_SCALE_BLOCK = 128
#: mori::CclCodes
_CODES = {None: 0, "fp8": 1, "fp8_block": 2}


def all_reduce_rms_norm(
    comm: Communicator,
    x: torch.Tensor,
    residual: torch.Tensor | None,
    weight: torch.Tensor,
    eps: float,
    quantize: str | None,
    algorithm: str,
    out: torch.Tensor | None,
    residual_out: torch.Tensor | None,
) -> tuple[Any, torch.Tensor]:
    import torch

    comm._check_operand("x", x)
    if x.dtype not in norm_types():
        raise ConfigError(f"x is {x.dtype}; allowed: bfloat16, float16, float32")
    if x.dim() == 0 or x.shape[-1] % _UNIT or x.shape[-1] == 0:
        raise ConfigError(f"x has shape {tuple(x.shape)}; its last dimension must be a multiple of {_UNIT}, not 0")
    hidden = int(x.shape[-1])
    rows = x.numel() // hidden
    comm._check_operand("weight", weight, (hidden,), x.dtype)
    for name, tensor in (("residual", residual), ("residual_out", residual_out)):
        if tensor is not None:
            comm._check_operand(name, tensor, x.shape, x.dtype)
    if not (math.isfinite(eps) and eps >= 0):
        raise ConfigError(f"eps={eps} must be a finite number, not negative")
    if quantize not in _CODES:
        raise ConfigError(f"quantize={quantize!r}: allowed are None, 'fp8', 'fp8_block'")
    least = hidden * x.element_size()
    if comm._chunk_bytes < least:
        raise ConfigError(f"a row of {hidden} elements needs chunk_bytes of {least}; there are {comm._chunk_bytes}")
    chosen = comm._choose_shots(algorithm, x)

    kept = torch.empty_like(x) if residual_out is None else residual_out
    dtype = x.dtype if quantize is None else torch.float8_e4m3fn
    if out is None:
        out = torch.empty_like(x, dtype=dtype)
    else:
        comm._check_operand("out", out, x.shape, dtype)
    for name, other in (("residual_out", kept), ("residual", residual), ("weight", weight)):
        if other is not None and _overlap(out, other):
            raise ConfigError(f"out overlaps {name}; they must be apart")
    scales = None
    if quantize is not None:
        per_row = 1 if quantize == "fp8" else -(-hidden // _SCALE_BLOCK)
        scales = x.new_empty((*x.shape[:-1], per_row), dtype=torch.float32)

    codes = _CODES[quantize]
    alike = _ALIKE.pack(b"rmsnorm", chosen, list(norm_types()).index(x.dtype), codes, rows, hidden, eps)
    launcher = comm._launcher
    args = launcher.args(
        launcher.tail(alike, Op.all_reduce, Reduction.sum, chosen), x.data_ptr(), out.data_ptr(), rows
    ) + _MORE.pack(
        0 if residual is None else residual.data_ptr(),
        kept.data_ptr(),
        weight.data_ptr(),
        0 if scales is None else scales.data_ptr(),
        hidden,
        eps,
        codes,
    )
    blocks = max(1, min(launcher.blocks, rows))
    launcher.launch(launcher.norms[x.dtype], _core.LaunchShape(blocks, launcher.full_warps, _SHARED_BYTES), args)
    return (out if scales is None else (out, scales)), kept


def _overlap(a: torch.Tensor, b: torch.Tensor) -> bool:
    a_end, b_end = (t.data_ptr() + t.numel() * t.element_size() for t in (a, b))
    return a.numel() > 0 and b.numel() > 0 and a.data_ptr() < b_end and b.data_ptr() < a_end
