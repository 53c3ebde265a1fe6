# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""What dispatch and combine must produce, recomputed densely from the seeds of all ranks, and compared bit
for bit.

Dispatch: every (source rank, token) that visits an expert of this rank arrives exactly once, with its
payload, its scales, and the ids and weights of the experts that are here. Combine: for each token the rows
that the visited ranks return are added in float32 in ascending order of rank, then rounded once to the row's
format.

The "expert" of the bench multiplies by a factor of its rank, so that a row returned by the wrong rank is
noticed. It exists twice: in numpy for the reference, in torch for the device. Both round exactly alike.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import MoriError
from .settings import EpSettings, Format
from .workload import Workload, payload, scales

__all__ = [
    "Mismatch",
    "Received",
    "check_combine",
    "check_dispatch",
    "expert",
    "expert_torch",
    "factor",
    "packed",
    "wire_rows",
]

Bytes = NDArray[np.uint8]


class Mismatch(MoriError):
    """A result differs from the reference. The message names the first differing element."""


@dataclasses.dataclass(frozen=True)
class Received:
    """A dispatch's result on the host, trimmed to the rows that arrived."""

    x: Bytes  # [rows, payload bytes]
    scales: Bytes  # [rows, scale bytes]
    topk_ids: NDArray[np.int64]  # [rows, topk]: -1 where the expert is on another rank
    topk_weights: NDArray[np.float32]
    src: NDArray[np.int64]  # [rows]: source rank << 32 | token
    counts: NDArray[np.int64]  # [ranks]


def factor(rank: int) -> float:
    """What the expert of a rank multiplies by: a short fraction, so the product is exact in float32."""
    return (rank % 7 + 1) * (-0.25 if rank % 2 else 0.25)


@functools.lru_cache(maxsize=8)
def wire_rows(settings: EpSettings, rank: int) -> tuple[Bytes, Bytes]:
    """Payload and scales of a rank's tokens as they travel: from the seed, narrowed where dispatch does that."""
    sizes = (settings.hidden, settings.tokens, rank, settings.seed)
    raw = payload(settings.format, *sizes)
    if not settings.quantize:
        return raw, scales(settings.format, *sizes)
    import torch

    from ..ep import RECIPES, reference

    x = torch.from_numpy(raw).view(getattr(torch, settings.format.torch_dtype))
    rows, factors = reference.quantize(x, RECIPES[settings.quantize])
    return rows.view(torch.uint8).numpy(), factors.view(torch.uint8).numpy()


def _decode(form: Format, raw: Bytes) -> NDArray[np.float32]:
    if form.name == "bf16":
        words = raw.view(np.uint16).astype(np.uint32)
        return np.left_shift(words, 16, out=words).view(np.float32)
    if form.name == "fp16":
        return raw.view(np.float16).astype(np.float32)
    if form.name == "fp32":
        return raw.view(np.float32)
    # The narrow formats are taken as integers: their true value is no business of the transport.
    middle = np.float32(127.5 if form.name == "fp8" else 7.5)
    whole = raw if form.name == "fp8" else np.stack([raw & 15, raw >> 4], axis=-1).reshape(len(raw), -1)
    return np.asarray(whole - middle, dtype=np.float32)


def _encode(form: Format, values: NDArray[np.float32]) -> Bytes:
    if form.name == "bf16":
        bits = np.ascontiguousarray(values).view(np.uint32)
        nearest_even = (bits + np.uint32(0x7FFF) + (bits >> 16 & 1)) >> 16
        return np.asarray(nearest_even, dtype=np.uint16).view(np.uint8)
    if form.name == "fp16":
        return values.astype(np.float16).view(np.uint8)
    return np.ascontiguousarray(values).view(np.uint8)


def expert(settings: EpSettings, raw: Bytes, rank: int) -> Bytes:
    """What the expert of `rank` makes of received rows [n, payload bytes], in the combine format."""
    return _encode(settings.combine_format, _decode(settings.wire, raw) * np.float32(factor(rank)))


def values_torch(form: Format, x: Any) -> Any:
    """What `_decode` gives, for a tensor [..., payload bytes] of uint8."""
    import torch

    if form.name == "fp8":
        return x.float() - 127.5
    if form.name == "fp4":
        return torch.stack([x & 15, x >> 4], dim=-1).flatten(-2).float() - 7.5
    return x.view(getattr(torch, form.torch_dtype)).float()


def expert_torch(settings: EpSettings, x: Any, by: Any, out: Any) -> None:
    """The same with tensors: x [..., payload bytes] uint8 into out [..., hidden] of the combine format, times `by`: a
    number, or a tensor that fits."""
    out.copy_(values_torch(settings.wire, x) * by)


def check_dispatch(settings: EpSettings, workload: Workload, rank: int, got: Received) -> None:
    """Raises Mismatch at the first element of `got` that is not what `rank` must receive."""
    visits = workload.visits()[:, :, rank]
    expected = visits.sum(axis=1)
    where = f"dispatch on rank {rank}"
    if not np.array_equal(got.counts, expected):
        peer = int(np.flatnonzero(np.asarray(got.counts) != expected)[0])
        raise Mismatch(f"{where}: {got.counts[peer]} rows counted from rank {peer}, expected {expected[peer]}")
    source, token = got.src >> 32, got.src & 0xFFFFFFFF
    wanted = np.flatnonzero(visits.ravel())
    flat = source * settings.tokens + token
    order = np.argsort(flat, kind="stable")
    if not np.array_equal(flat[order], wanted):
        raise Mismatch(f"{where}: {_set_difference(flat, wanted, settings.tokens)}")
    for peer in range(settings.ranks):
        rows = np.flatnonzero(source == peer)
        tokens = token[rows]
        ids = workload.ids[peer, tokens]
        here = (ids >= 0) & (workload.owner[ids] == rank)
        form, (want, want_scales) = settings.wire, wire_rows(settings, peer)
        label = _Label(where, rows, peer, tokens)
        label.compare("topk_ids", got.topk_ids[rows].astype(np.int64), np.where(here, ids, -1).astype(np.int64))
        weights = np.where(here, workload.weights[peer, tokens], 0)
        label.compare("topk_weights", np.where(here, got.topk_weights[rows], 0).astype(np.float32), weights)
        label.compare("x", *_as_elements(form, got.x[rows], want[tokens]))
        label.compare("scales", got.scales[rows], want_scales[tokens])


def check_combine(settings: EpSettings, workload: Workload, rank: int, got: Bytes, *, constant: float = 0.0) -> None:
    """Raises Mismatch unless `got` [tokens, combine row bytes] is the float32 sum in ascending order of rank.

    With `constant` the rows of each rank are all that times its factor, whatever it received.
    """
    form = settings.combine_format
    own, _ = wire_rows(settings, rank)
    visits = workload.visits()[rank]
    total = np.zeros((settings.tokens, settings.hidden), dtype=np.float32)
    for peer in range(settings.ranks):
        tokens = np.flatnonzero(visits[:, peer])
        total[tokens] += constant * factor(peer) if constant else _decode(form, expert(settings, own[tokens], peer))
    tokens = np.arange(settings.tokens)
    label = _Label(f"combine on rank {rank}", tokens, rank, tokens)
    label.compare("y", *_as_elements(form, got, _encode(form, total)))


def packed(settings: EpSettings, workload: Workload, rank: int, *, returning: bool) -> tuple[Bytes, Bytes]:
    """Rows packed by peer, for libraries that exchange bytes: (what `rank` sends, what it must receive).

    With `returning` they are the experts' results on their way back, else tokens with their scales on their
    way out.
    """
    visits = workload.visits()

    def rows(holder: int, other: int) -> Bytes:
        tokens = np.flatnonzero(visits[holder, :, other])
        own, own_scales = (part[tokens] for part in wire_rows(settings, holder))
        return expert(settings, own, other) if returning else np.hstack([own, own_scales])

    peers = range(settings.ranks)
    out = np.concatenate([rows(rank, peer).ravel() for peer in peers])
    back = np.concatenate([rows(peer, rank).ravel() for peer in peers])
    return (back, out) if returning else (out, back)


@dataclasses.dataclass(frozen=True)
class _Label:
    """Turns a position in an array into words."""

    where: str
    rows: NDArray[np.int64]
    source: int
    tokens: NDArray[np.int64]

    def compare(self, name: str, got: NDArray[Any], want: NDArray[Any]) -> None:
        if got.shape != want.shape:
            raise Mismatch(f"{self.where}: {name} has shape {got.shape}, expected {want.shape}")
        width = got.dtype.itemsize
        different = _bits(got) != _bits(want)
        if not different.any():
            return
        row, column = (int(i) for i in np.argwhere(different)[0])
        seen, expected = (f"0x{int(_bits(a)[row, column]):0{2 * width}x}" for a in (got, want))
        raise Mismatch(
            f"{self.where}: {name}[{self.rows[row]}, {column}] (token {self.tokens[row]} of rank "
            f"{self.source}) is {seen}, expected {expected}; "
            f"{int(different.sum())} of {different.size} elements differ"
        )


def _bits(array: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}")


def _as_elements(form: Format, got: Bytes, want: Bytes) -> tuple[NDArray[Any], NDArray[Any]]:
    width = f"u{max(1, form.bits // 8)}"
    return np.ascontiguousarray(got).view(width), np.ascontiguousarray(want).view(width)


def _set_difference(got: NDArray[np.int64], want: NDArray[np.int64], tokens: int) -> str:
    unique, times = np.unique(got, return_counts=True)
    absent = np.setdiff1d(want, unique)
    for flat, problem in (
        (absent, "did not arrive"),
        (np.setdiff1d(unique, want), "arrived, and should not have"),
    ):
        if len(flat):
            return f"token {flat[0] % tokens} of rank {flat[0] // tokens} {problem} ({len(flat)} such)"
    twice = unique[times > 1]
    return f"token {twice[0] % tokens} of rank {twice[0] // tokens} arrived more than once ({len(twice)} such)"
