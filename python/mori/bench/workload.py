# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The data of a run: which experts each token visits, and the bytes of every rank's tokens.

Everything follows from the settings and a seed, so each rank can compute what every other rank sent and check
what it received against that, without a second communication library. Needs numpy only.

    uniform   every set of `topk` distinct experts is as likely as any other
    zipf      the i-th most popular expert is wanted in proportion to 1/i
    hot       three quarters of all selections fall on the experts of rank 0 (as far as it has enough of them)
    FILE      recorded ids: .npz with ids [layers, tokens, topk], weights, num_experts, description
"""

from __future__ import annotations

import dataclasses
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from .settings import EpSettings, Format

__all__ = ["HOT_SHARE", "Recording", "Workload", "load_recording", "make", "owners", "payload", "scales"]

HOT_SHARE = 0.75

Ids = NDArray[np.int32]
Bytes = NDArray[np.uint8]


@dataclasses.dataclass(frozen=True)
class Recording:
    """Router choices read from an .npz file."""

    ids: NDArray[np.int32]  # [layers, tokens, topk]
    weights: NDArray[np.float32]  # the same shape
    num_experts: int
    description: str


@dataclasses.dataclass(frozen=True)
class Workload:
    """Routing of all ranks."""

    ids: Ids  # [ranks, tokens, topk], global expert ids
    weights: NDArray[np.float32]  # the same shape
    owner: NDArray[np.int32]  # [experts]: the rank that holds each
    description: str

    def visits(self) -> NDArray[np.bool_]:
        """[source rank, token, destination rank]: whether a row goes there, for one or more experts."""
        ranks, tokens, _ = self.ids.shape
        out = np.zeros((ranks, tokens, ranks), dtype=np.bool_)
        source, token, slot = np.nonzero(self.ids >= 0)
        out[source, token, self.owner[self.ids[source, token, slot]]] = True
        return out

    def rows(self) -> NDArray[np.int64]:
        """[source rank, destination rank]: rows sent by a dispatch; a combine sends the transpose."""
        return np.asarray(self.visits().sum(axis=1, dtype=np.int64))


def owners(experts: int, ranks: int) -> NDArray[np.int32]:
    """Which rank holds each expert: contiguous ranges, as even as they can be."""
    return (np.arange(experts, dtype=np.int64) * ranks // experts).astype(np.int32)


def make(settings: EpSettings) -> Workload:
    """The routing that the settings name."""
    owner = owners(settings.experts, settings.ranks)
    file = settings.routing_file
    if file is not None:
        return _replay(load_recording(file), file, settings, owner)
    popularity = _popularity(settings, owner)
    shape = (settings.tokens, settings.topk)
    ids = np.empty((settings.ranks, *shape), dtype=np.int32)
    weights = np.empty((settings.ranks, *shape), dtype=np.float32)
    for rank in range(settings.ranks):
        random = np.random.default_rng([settings.seed, rank, 1])
        # Adding Gumbel noise to log-probabilities and taking the largest draws without replacement.
        keys = random.gumbel(size=(settings.tokens, settings.experts)) + np.log(popularity)
        ids[rank] = np.argsort(-keys, axis=1)[:, : settings.topk]
        raw = random.random(shape, dtype=np.float32) + np.float32(0.05)
        weights[rank] = raw / raw.sum(axis=1, keepdims=True)
    return Workload(ids, weights, owner, f"{settings.routing}, seed {settings.seed}")


def _popularity(settings: EpSettings, owner: NDArray[np.int32]) -> NDArray[np.float64]:
    if settings.routing == "zipf":
        order = np.random.default_rng([settings.seed, 0, 2]).permutation(settings.experts)
        return np.asarray(1.0 / (1.0 + order))
    if settings.routing == "hot":
        hot = owner == 0
        if hot.all():
            return np.ones(settings.experts)
        return np.asarray(np.where(hot, HOT_SHARE / hot.sum(), (1 - HOT_SHARE) / (~hot).sum()))
    return np.ones(settings.experts)


def _replay(recording: Recording, file: Path, settings: EpSettings, owner: NDArray[np.int32]) -> Workload:
    if recording.num_experts != settings.experts:
        raise ConfigError(
            f"experts={settings.experts} does not fit routing={file.name}, recorded with "
            f"{recording.num_experts} experts; give --experts {recording.num_experts}, or --routing uniform"
        )
    recorded_topk = recording.ids.shape[2]
    if settings.topk > recorded_topk:
        raise ConfigError(
            f"topk={settings.topk} exceeds the {recorded_topk} recorded in routing={file.name}; "
            f"give --topk {recorded_topk} or less, or --routing uniform"
        )
    wanted, recorded = settings.ranks * settings.tokens, recording.ids.shape[1]
    # One layer of consecutive text, split over the ranks as a batch is; repeated where it is too short.
    take = np.arange(wanted) % recorded
    shape = (settings.ranks, settings.tokens, settings.topk)
    ids = np.ascontiguousarray(recording.ids[0, take, : settings.topk].reshape(shape))
    weights = np.ascontiguousarray(recording.weights[0, take, : settings.topk].reshape(shape))
    repeated = f", repeated {wanted / recorded:.1f} times" if wanted > recorded else ""
    return Workload(ids, weights, owner, f"{file.name}{repeated}")


def load_recording(file: Path) -> Recording:
    """Reads and checks an .npz of recorded ids; ConfigError says what is wrong with it."""
    try:
        with np.load(file, allow_pickle=False) as data:
            absent = [name for name in ("ids", "weights", "num_experts") if name not in data]
            if absent:
                raise ConfigError(f"routing={file}: the file has no array {', '.join(absent)}")
            ids, weights, experts = data["ids"], data["weights"], int(data["num_experts"])
            description = str(data["description"]) if "description" in data else ""
    except (OSError, ValueError, zipfile.BadZipFile, TypeError, EOFError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"routing={file} is not a readable .npz of recorded ids: {error}") from error
    if ids.ndim != 3 or ids.dtype.kind not in "iu" or 0 in ids.shape or weights.shape != ids.shape:
        raise ConfigError(
            f"routing={file}: ids must be integers [layers, tokens, topk] and weights of the same shape; "
            f"they are {ids.dtype} {ids.shape} and {weights.shape}"
        )
    if ids.min() < -1 or ids.max() >= experts:
        raise ConfigError(f"routing={file}: ids reach from {ids.min()} to {ids.max()}, outside -1 to {experts - 1}")
    ordered = np.sort(ids, axis=2)
    if ((ordered[..., 1:] == ordered[..., :-1]) & (ordered[..., 1:] >= 0)).any():
        raise ConfigError(f"routing={file}: a token lists the same expert twice")
    return Recording(ids.astype(np.int32), weights.astype(np.float32), experts, description)


def payload(form: Format, hidden: int, tokens: int, rank: int, seed: int) -> Bytes:
    """The tokens of one rank: [tokens, payload bytes], every element finite.

    Magnitudes spread widely enough that a sum depends on the order of its terms: a combine that adds in
    another order is found out.
    """
    random = np.random.default_rng([seed, rank, 3])
    width = form.payload_bytes(hidden)
    raw: Bytes = np.frombuffer(random.bytes(tokens * width), dtype=np.uint8).reshape(tokens, width).copy()
    if form.name == "bf16":
        bits = raw.view(np.uint16)
        bits[:] = (bits & 0x807F) | (((bits >> 7 & 31) + 103) << 7)  # 2^-24 .. 2^8
    elif form.name == "fp16":
        bits = raw.view(np.uint16)
        bits[:] = (bits & 0x83FF) | (((bits >> 10 & 15) + 8) << 10)  # 2^-7 .. 2^9
    elif form.name == "fp32":
        words = raw.view(np.uint32)
        words[:] = (words & np.uint32(0x807FFFFF)) | (((words >> 23 & 15) + 119) << 23)  # 2^-8 .. 2^8
    elif form.name == "fp8":
        raw[raw & 0x7F == 0x7F] = 0x38  # the two NaNs of e4m3fn
    return raw


def scales(form: Format, hidden: int, tokens: int, rank: int, seed: int) -> Bytes:
    """The scales of one rank's tokens: [tokens, scale bytes], opaque to the library."""
    width = form.scale_bytes(hidden)
    random = np.random.default_rng([seed, rank, 4])
    return np.frombuffer(random.bytes(tokens * width), dtype=np.uint8).reshape(tokens, width)
