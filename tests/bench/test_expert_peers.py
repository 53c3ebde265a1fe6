# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Adapters of libraries that dispatch too, over stand-ins with those libraries' signatures (the packages need GPUs):
they are driven with the run's tokens, checked, timed, and say why they are skipped."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest
from mori.bench import expert_peers
from mori.bench.clock import HostClock
from mori.bench.ep import Extra
from mori.bench.settings import EpSettings
from mori.bench.verify import Mismatch
from mori.bench.workload import make
from mori.mesh import Message

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.timeout(60)

SMALL = {"ranks": 1, "tokens": 6, "hidden": 256, "topk": 4, "experts": 7, "routing": "zipf", "iters": 3, "warmup": 1}


class Context:
    """A world of one rank."""

    rank, world_size, mesh = 0, 1, None

    def __init__(self) -> None:
        self.mesh = self

    def barrier(self) -> None:
        pass

    def exchange(self, tag: str, payload: bytes) -> list[Message]:
        return [Message(payload)]


class Config:
    def get_nvl_buffer_size_hint(self, hidden_bytes: int, ranks: int) -> int:
        return hidden_bytes * ranks


class Buffer:
    """deep_ep.Buffer for one rank: everything comes back to it."""

    spoil = ""

    def __init__(self, group: Any, num_nvl_bytes: int = 0, num_rdma_bytes: int = 0, low_latency_mode: bool = False):
        assert num_nvl_bytes > 0

    @staticmethod
    def get_dispatch_config(ranks: int) -> Config:
        return Config()

    get_combine_config = get_dispatch_config

    def get_dispatch_layout(self, topk_idx: Any, num_experts: int) -> tuple:
        assert topk_idx.dtype == torch.int64
        return torch.tensor([len(topk_idx)]), None, None, torch.ones(len(topk_idx), 1, dtype=torch.bool), None

    def dispatch(self, x: Any, *, topk_idx: Any, topk_weights: Any, num_tokens_per_rank: Any, is_token_in_rank: Any,
                 num_tokens_per_rdma_rank: Any, num_tokens_per_expert: Any) -> tuple:  # fmt: skip
        rows = tuple(t.flip(0) for t in x) if isinstance(x, tuple) else x.flip(0)
        if self.spoil == "rows":
            (rows[0] if isinstance(rows, tuple) else rows).view(torch.uint8)[0, 3] ^= 1
        return rows, topk_idx, topk_weights, [], "handle", None

    def combine(self, x: Any, handle: Any) -> tuple:
        assert handle == "handle"
        y = x.flip(0)
        return (y * 2 if self.spoil == "sums" else y), None, None


class ElasticBuffer(Buffer):
    def __init__(self, group: Any, num_bytes: Any = None, num_max_tokens_per_rank: int = 0, hidden: int = 0,
                 num_topk: int = 0, use_fp8_dispatch: bool = False, allow_hybrid_mode: bool = True):  # fmt: skip
        assert hidden and num_topk and num_max_tokens_per_rank

    def dispatch(self, x: Any, topk_idx: Any = None, topk_weights: Any = None, num_experts: int = 0,
                 num_max_tokens_per_rank: int = 0, num_sms: int = 0, do_cpu_sync: Any = None) -> tuple:  # fmt: skip
        rows = tuple(t.flip(0) for t in x) if isinstance(x, tuple) else x.flip(0)
        return rows, topk_idx, topk_weights, "handle", None


class MoeAlltoAll:
    def __init__(self, mapping: Any, max_num_tokens: int, top_k: int, num_experts: int, workspace_size_per_rank: int,
                 hidden_size: int):  # fmt: skip
        self.tokens = max_num_tokens

    def dispatch(self, ids: Any, payloads: list, runtime_max: int, invalid_token_expert_id: int = -1,
                 expert_id_payload_index: int = 0) -> list:  # fmt: skip
        assert payloads[expert_id_payload_index] is ids and ids.dtype == torch.int32
        return [p.unsqueeze(0) for p in payloads]

    def combine(self, payload: Any, runtime_max: int) -> Any:
        return payload.sum(0)


@pytest.fixture
def packages(monkeypatch):
    deep_ep = types.ModuleType("deep_ep")
    deep_ep.Buffer, deep_ep.ElasticBuffer = Buffer, ElasticBuffer
    flashinfer, comm = types.ModuleType("flashinfer"), types.ModuleType("flashinfer.comm")
    comm.Mapping, comm.MoeAlltoAll = lambda **kwargs: kwargs, MoeAlltoAll
    flashinfer.comm = comm
    for module in (deep_ep, flashinfer, comm):
        monkeypatch.setitem(sys.modules, module.__name__, module)


def run(name: str, tmp_path: Any, **changes: Any) -> tuple[dict, str]:
    settings = EpSettings(**{**SMALL, **changes})
    context = Context()
    extra = Extra(store=str(tmp_path / "store"), threads=changes.pop("threads", False))
    clock = HostClock(context.barrier)
    return expert_peers.run(name, context, settings, make(settings), extra, torch.device("cpu"), clock)


@pytest.mark.parametrize("dtype", ["bf16", "fp8"])
@pytest.mark.parametrize("name", expert_peers.PEERS)
def test_each_is_driven_checked_and_timed(packages, name, dtype, tmp_path):
    spans, note = run(name, tmp_path, dtype=dtype)
    if dtype not in expert_peers.PEERS[name].dtypes:
        assert not spans and "skipped: its adapter sends bf16" in note
        return
    assert note == ""
    assert {op: len(value.ends_ns) for op, value in spans.items()} == dict.fromkeys(
        ("dispatch", "combine", "round_trip"), SMALL["iters"]
    )


@pytest.mark.parametrize("spoil", ["rows", "sums"])
def test_wrong_results_of_a_library_are_told(packages, monkeypatch, spoil, tmp_path):
    monkeypatch.setattr(Buffer, "spoil", spoil)
    with pytest.raises(Mismatch, match=f"deepep_v1 {'dispatch' if spoil == 'rows' else 'combine'} on rank 0"):
        run("deepep_v1", tmp_path)


@pytest.mark.parametrize("name", expert_peers.PEERS)
def test_what_is_not_installed_is_a_note(monkeypatch, name, tmp_path):
    for module in ("deep_ep", "flashinfer", "flashinfer.comm"):
        monkeypatch.setitem(sys.modules, module, None)
    spans, note = run(name, tmp_path)
    assert not spans and note.startswith(f"{name} skipped: ") and "is not installed" in note


def test_what_another_version_refuses_is_a_note(packages, monkeypatch, tmp_path):
    monkeypatch.setattr(Buffer, "get_dispatch_layout", lambda self: None)
    spans, note = run("deepep_v1", tmp_path)
    assert not spans and note.startswith("deepep_v1 failed: TypeError")
