# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Peers in real processes: they exchange the run's own rows, are verified, and say why they are skipped."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest
from mori.bench import EpSettings, peers
from mori.bench.clock import HostClock
from mori.bench.ep import Extra
from mori.bench.verify import Mismatch
from mori.bench.workload import make
from mori.testing import run_ranks

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.timeout(90)

SMALL = {"tokens": 6, "hidden": 64, "topk": 4, "experts": 7, "routing": "zipf", "iters": 3, "warmup": 1}
OPS = {"dispatch", "combine", "round_trip", "steady dispatch", "steady combine"}


def needs_mpi() -> None:
    if shutil.which("mpirun") is None or importlib.util.find_spec("mpi4py") is None:
        pytest.skip("needs mpirun and mpi4py")


class MeshContext:
    """As much of a context as a peer needs."""

    def __init__(self, rank, world_size, uid):
        from mori.bootstrap import rendezvous
        from mori.mesh import Mesh

        self.mesh = Mesh.connect(rendezvous(uid=uid, rank=rank, world_size=world_size, timeout=20), timeout=20)
        self.rank, self.world_size, self.barrier = rank, world_size, self.mesh.barrier


def gloo_rank(rank, world_size, uid, settings, store):
    ctx = MeshContext(rank, world_size, uid)
    extra = Extra(store=store)
    return peers.torch_peer("gloo", ctx, settings, make(settings), extra, torch.device("cpu"), HostClock(ctx.barrier))


@pytest.mark.parametrize("dtype", ["bf16", "fp8"])
@pytest.mark.parametrize("ranks", [1, 3])
def test_gloo_exchanges_and_is_timed(ranks, dtype, tmp_path):
    settings = EpSettings(ranks=ranks, dtype=dtype, **SMALL)
    for spans, note in run_ranks(gloo_rank, ranks, settings, str(tmp_path / "store")):
        assert not note
        assert set(spans) == OPS
        assert all(len(value.ends_ns) == SMALL["iters"] for value in spans.values())


@pytest.mark.parametrize("dtype", ["bf16", "fp4"])
@pytest.mark.parametrize("ranks", [1, 3])
def test_mpi_exchanges_and_is_timed(ranks, dtype):
    needs_mpi()
    spans, note = peers.mpi_peer(EpSettings(ranks=ranks, dtype=dtype, **SMALL), timeout_s=60)
    assert not note
    assert len(spans) == ranks
    assert all(set(rank) == OPS for rank in spans)


def test_mpi_has_a_deadline():
    needs_mpi()
    spans, note = peers.mpi_peer(EpSettings(ranks=2, **SMALL), timeout_s=0.05)
    assert not spans
    assert "no result within" in note


def test_absent_mpirun_is_a_note(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert peers.mpi_peer(EpSettings(ranks=2, **SMALL), timeout_s=1) == (
        [],
        "mpi skipped: no mpirun found (Debian, Ubuntu: apt install openmpi-bin libopenmpi-dev)",
    )


def test_failing_mpirun_is_a_note(monkeypatch, tmp_path: Path):
    broken = tmp_path / "mpirun"
    broken.write_text("#!/bin/sh\necho no slots for you >&2\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda name: str(broken))
    needs_mpi()
    spans, note = peers.mpi_peer(EpSettings(ranks=2, **SMALL), timeout_s=20)
    assert not spans
    assert note == "mpi failed with exit code 3: no slots for you"


@pytest.mark.parametrize(("backend", "extra", "words"), [("gloo", Extra(threads=True), "needs a process per rank")])
def test_peers_that_cannot_run_say_why(backend, extra, words):
    settings = EpSettings(ranks=2, **SMALL)
    spans, note = peers.torch_peer(backend, None, settings, make(settings), extra, torch.device("cpu"), None)
    assert not spans
    assert words in note


def test_wrong_bytes_are_named():
    import numpy as np

    with pytest.raises(Mismatch, match="gloo dispatch on rank 1: byte 2 is 0x07, expected 0x00"):
        peers.check_bytes("gloo", "dispatch", 1, np.array([0, 0, 7]), np.array([0, 0, 0]))
