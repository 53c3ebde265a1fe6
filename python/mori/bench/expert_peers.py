# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Libraries that dispatch and combine too, driven through their Python interfaces on the run's own tokens where they
are installed: DeepEP (`Buffer` and `ElasticBuffer`) and FlashInfer (`MoeAlltoAll`).

    timed: dispatch with the layout computation it needs, combine with its reduction; launches as they come
    checked: the rows that arrive, as a set; sums within the format's rounding, since orders differ

Written from the interfaces' documentation and tested over stand-ins; not yet run with the packages themselves. What
goes wrong with one of them is a note in the report, not the end of the run.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import numpy as np

from .settings import EpSettings
from .statistics import Spans
from .verify import Mismatch, wire_rows
from .workload import Workload

__all__ = ["PEERS", "run"]


class Case:
    """The run's tensors as a peer wants them."""

    def __init__(self, group: Any, settings: EpSettings, workload: Workload, rank: int, device: Any) -> None:
        import torch

        self.group, self.settings, self.rank, self.device = group, settings, rank, device
        rows, scales = (torch.from_numpy(part.copy()).to(device) for part in wire_rows(settings, rank))
        self.x = rows.view(getattr(torch, settings.wire.torch_dtype))
        self.scales = scales.view(torch.float32) if settings.wire.scale_width == 4 else None
        self.ids = torch.from_numpy(workload.ids[rank]).to(device)
        self.weights = torch.from_numpy(workload.weights[rank]).to(device)

    @property
    def pair(self) -> Any:
        """x, or (x, scales) where it has scales."""
        return self.x if self.scales is None else (self.x, self.scales)


class Peer:
    """One library over one case. `rows(result)` are the received payloads, without padding."""

    package = ""
    dtypes: tuple[str, ...] = ("bf16", "fp8")

    def __init__(self, module: Any, case: Case) -> None:
        self.case = case

    def dispatch(self) -> Any:
        raise NotImplementedError

    def rows(self, result: Any) -> Any:
        raise NotImplementedError

    def combine(self, result: Any) -> Any:
        """The sum over ranks of rows of ones: how many ranks each token visits."""
        raise NotImplementedError

    def close(self) -> None:
        pass


class DeepEpV1(Peer):
    package = "deep_ep"

    def __init__(self, module: Any, case: Case) -> None:
        super().__init__(module, case)
        settings, kind = case.settings, module.Buffer
        configs = (kind.get_dispatch_config(settings.ranks), kind.get_combine_config(settings.ranks))
        row = settings.combine_format.row_bytes(settings.hidden)
        nvl = max(config.get_nvl_buffer_size_hint(row, settings.ranks) for config in configs)
        if settings.blocks:
            kind.set_num_sms(settings.blocks + settings.blocks % 2)
        self.buffer = kind(case.group, num_nvl_bytes=nvl, num_rdma_bytes=0)
        self.ids = case.ids.long()

    def dispatch(self) -> Any:
        per_rank, per_rdma, per_expert, is_in, _ = self.buffer.get_dispatch_layout(self.ids, self.case.settings.experts)
        return self.buffer.dispatch(
            self.case.pair,
            topk_idx=self.ids,
            topk_weights=self.case.weights,
            num_tokens_per_rank=per_rank,
            num_tokens_per_rdma_rank=per_rdma,
            is_token_in_rank=is_in,
            num_tokens_per_expert=per_expert,
        )

    def rows(self, result: Any) -> Any:
        return _first(result[0])

    def combine(self, result: Any) -> Any:
        return self.buffer.combine(_ones(self.case, _first(result[0]).shape[0]), result[4])[0]


class DeepEpV2(Peer):
    package = "deep_ep"

    def __init__(self, module: Any, case: Case) -> None:
        super().__init__(module, case)
        settings = case.settings
        self.buffer = module.ElasticBuffer(
            case.group,
            num_max_tokens_per_rank=settings.tokens,
            hidden=settings.hidden,
            num_topk=settings.topk,
            use_fp8_dispatch=settings.wire.name == "fp8",
            allow_hybrid_mode=False,
        )
        self.ids = case.ids.long()

    def dispatch(self) -> Any:
        settings = self.case.settings
        return self.buffer.dispatch(
            self.case.pair,
            topk_idx=self.ids,
            topk_weights=self.case.weights,
            num_experts=settings.experts,
            num_max_tokens_per_rank=settings.tokens,
            num_sms=settings.blocks,
            do_cpu_sync=True,
        )

    def rows(self, result: Any) -> Any:
        return _first(result[0])

    def combine(self, result: Any) -> Any:
        return self.buffer.combine(_ones(self.case, _first(result[0]).shape[0]), result[3])[0]

    def close(self) -> None:
        getattr(self.buffer, "destroy", lambda: None)()


class FlashInfer(Peer):
    package = "flashinfer.comm"
    dtypes = ("bf16",)

    def __init__(self, module: Any, case: Case) -> None:
        super().__init__(module, case)
        settings = case.settings
        mapping = module.Mapping(
            world_size=settings.ranks,
            rank=case.rank,
            tp_size=settings.ranks,
            moe_ep_size=settings.ranks,
            moe_tp_size=1,
        )
        row = settings.wire.row_bytes(settings.hidden) + settings.combine_format.row_bytes(settings.hidden)
        self.engine = module.MoeAlltoAll(
            mapping=mapping,
            max_num_tokens=settings.tokens,
            top_k=settings.topk,
            num_experts=settings.experts,
            workspace_size_per_rank=settings.ranks * settings.tokens * (row + 64 * settings.topk) + (64 << 20),
            hidden_size=settings.hidden,
        )
        self.ids = case.ids.int()

    def dispatch(self) -> Any:
        payloads = [self.case.x, self.ids, self.case.weights]
        return self.engine.dispatch(
            self.ids, payloads, self.case.settings.tokens, invalid_token_expert_id=-1, expert_id_payload_index=1
        )

    def rows(self, result: Any) -> Any:
        x, ids = result[0], result[1]
        return x.reshape(-1, x.shape[-1])[(ids.reshape(-1, ids.shape[-1]) >= 0).any(dim=1)]

    def combine(self, result: Any) -> Any:
        settings = self.case.settings
        ones = _ones(self.case, settings.ranks * settings.tokens)
        return self.engine.combine(ones.view(settings.ranks, settings.tokens, -1), settings.tokens)


PEERS: Mapping[str, type[Peer]] = {"deepep_v1": DeepEpV1, "deepep_v2": DeepEpV2, "flashinfer": FlashInfer}


def run(
    name: str, ctx: Any, settings: EpSettings, workload: Workload, extra: Any, device: Any, clock: Any
) -> tuple[dict[str, Spans], str]:
    """Spans of a library's dispatch and combine, or a note that says why there are none. Collective."""
    kind = PEERS[name]
    if extra.threads:
        return {}, f"{name} skipped: it needs a process and a GPU per rank"
    if settings.wire.name not in kind.dtypes:
        return {}, f"{name} skipped: its adapter sends {' and '.join(kind.dtypes)}, not {settings.wire.name}"
    module, missing = _module(kind.package)
    # One rank that goes on without the others would wait for them.
    absent = [m.payload.decode() for m in ctx.mesh.exchange("bench peer", missing.encode())]
    if any(absent):
        return {}, f"{name} skipped: {next(filter(None, absent))}"
    with _group(ctx, settings, extra, device) as group:
        try:
            peer = kind(module, Case(group, settings, workload, ctx.rank, device))
        except Exception as error:
            return {}, f"{name} failed to start: {type(error).__name__}: {error}"
        try:
            return _measure(name, peer, ctx, settings, workload, clock), ""
        except Mismatch:
            raise
        except Exception as error:
            return {}, f"{name} failed: {type(error).__name__}: {error}"
        finally:
            peer.close()


def _measure(name: str, peer: Peer, ctx: Any, settings: EpSettings, workload: Workload, clock: Any) -> dict[str, Spans]:
    result = peer.dispatch()
    _check_rows(name, settings, workload, ctx.rank, peer.rows(result))
    _check_sums(name, workload, ctx.rank, peer.combine(result))
    held: list[Any] = [result]

    def dispatch() -> None:
        held[0] = peer.dispatch()

    steps: dict[str, Callable[[], Any]] = {
        "dispatch": dispatch,
        "combine": lambda: peer.combine(held[0]),
        "round_trip": lambda: peer.combine(peer.dispatch()),
    }
    clock.drop()
    for iteration in range(-settings.warmup, settings.iters):
        if iteration == 0:
            clock.drop(steps=4 * settings.iters)
        for op, step in steps.items():
            clock.time(op, step)
    found: dict[str, Spans] = clock.spans()
    ctx.barrier()
    return found


def _check_rows(name: str, settings: EpSettings, workload: Workload, rank: int, rows: Any) -> None:
    """Raises Mismatch unless the rows that arrived are those that should, in any order."""
    import torch

    visits = workload.visits()[:, :, rank]
    want = np.concatenate([wire_rows(settings, peer)[0][visits[peer]] for peer in range(settings.ranks)])
    got = rows.contiguous().view(torch.uint8).reshape(rows.shape[0], -1).cpu().numpy()
    if got.shape != want.shape:
        raise Mismatch(f"{name} dispatch on rank {rank}: {got.shape[0]} rows arrived, expected {want.shape[0]}")
    unequal = int((_fingerprints(got) != _fingerprints(want)).sum())
    if unequal:
        raise Mismatch(f"{name} dispatch on rank {rank}: {unequal} of {len(want)} rows are not those that were sent")


def _fingerprints(rows: Any) -> Any:
    """A sorted 64-bit number for each row."""
    words = np.ascontiguousarray(rows).view(np.uint64)
    odd = np.arange(1, 2 * words.shape[1], 2, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return np.sort((words * odd).sum(axis=1, dtype=np.uint64))


def _check_sums(name: str, workload: Workload, rank: int, y: Any) -> None:
    """Rows of ones sum to the number of ranks that a token visited; small whole numbers are exact in any order."""
    want = workload.visits()[rank].sum(axis=1)
    got = y.float().cpu().numpy()
    wrong = np.flatnonzero((got != want[:, None]).any(axis=1))
    if len(wrong):
        token = int(wrong[0])
        raise Mismatch(f"{name} combine on rank {rank}: token {token} is {got[token, 0]}, expected {want[token]}")


def _module(name: str) -> tuple[Any, str]:
    try:
        return importlib.import_module(name), ""
    except ImportError as error:
        return None, f"{name} is not installed ({error})"
    except Exception as error:  # a build for another torch or driver
        return None, f"{name} cannot be imported: {type(error).__name__}: {error}"


class _group:
    """A torch.distributed group of the run's ranks, ended afterwards if it was begun here."""

    def __init__(self, ctx: Any, settings: EpSettings, extra: Any, device: Any) -> None:
        self._ctx, self._settings, self._extra, self._device = ctx, settings, extra, device
        self._started = False

    def __enter__(self) -> Any:
        import torch.distributed as dist

        backend = "gloo" if self._device.type == "cpu" else "nccl"
        limit = timedelta(seconds=self._settings.timeout_s)
        if dist.is_initialized():
            return dist.new_group(backend=backend, timeout=limit)
        self._started = True
        dist.init_process_group(
            backend,
            timeout=limit,
            init_method=f"file://{self._extra.store}-experts",
            rank=self._ctx.rank,
            world_size=self._ctx.world_size,
        )
        return dist.group.WORLD

    def __exit__(self, *exc: object) -> None:
        import torch.distributed as dist

        if self._started:
            dist.destroy_process_group()


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, tuple) else value


def _ones(case: Case, rows: int) -> Any:
    import torch

    dtype = getattr(torch, case.settings.combine_format.torch_dtype)
    return torch.ones((rows, case.settings.hidden), dtype=dtype, device=case.device)
