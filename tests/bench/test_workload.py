# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Workloads: reproducible, of the distribution they claim, and counted as a brute-force count does."""

from __future__ import annotations

import numpy as np
import pytest
from mori.bench.settings import FORMATS, RECORDED, EpSettings
from mori.bench.workload import HOT_SHARE, load_recording, make, owners, payload, scales

from mori import ConfigError

pytestmark = pytest.mark.timeout(60)

ROUTINGS = ("uniform", "zipf", "hot", "")


def settings(**changes) -> EpSettings:
    return EpSettings(**{"ranks": 4, "tokens": 64, "hidden": 128, **changes})


@pytest.mark.parametrize("routing", ROUTINGS, ids=lambda r: r or "recorded")
def test_tokens_visit_distinct_experts_and_all_ranks_agree(routing):
    first, again = make(settings(routing=routing)), make(settings(routing=routing))
    assert np.array_equal(first.ids, again.ids)
    assert np.array_equal(first.weights, again.weights)
    ordered = np.sort(first.ids, axis=2)
    assert (ordered[..., 1:] != ordered[..., :-1]).all()
    assert ordered.min() >= 0
    assert ordered.max() < 256
    assert (first.weights > 0).all()


def test_seed_changes_made_up_routing():
    assert not np.array_equal(make(settings(routing="zipf")).ids, make(settings(routing="zipf", seed=2)).ids)


def test_uniform_is_even_and_zipf_is_not():
    def heaviest(routing: str) -> float:
        load = np.bincount(make(settings(routing=routing, tokens=2048)).ids.ravel(), minlength=256)
        return float(load.max() / load.mean())

    assert heaviest("uniform") < 1.4
    assert heaviest("zipf") > 8


@pytest.mark.parametrize("ranks", [2, 4, 7])
def test_hot_sends_its_share_to_rank_0(ranks):
    workload = make(settings(routing="hot", ranks=ranks, tokens=256, topk=2))
    share = (workload.owner[workload.ids] == 0).mean()
    assert share == pytest.approx(HOT_SHARE, abs=0.05)


@pytest.mark.parametrize(("experts", "ranks"), [(256, 8), (7, 3), (5, 5), (1, 1), (100, 64)])
def test_owners_are_contiguous_and_even(experts, ranks):
    owner = owners(experts, ranks)
    load = np.bincount(owner, minlength=ranks)
    assert (np.diff(owner) >= 0).all()
    assert load.max() - load.min() <= 1


@pytest.mark.parametrize("routing", ROUTINGS, ids=lambda r: r or "recorded")
def test_rows_equal_a_brute_force_count(routing):
    case = settings(routing=routing, ranks=3, tokens=17)
    workload = make(case)
    rows = np.zeros((3, 3), dtype=int)
    for source in range(3):
        for token in range(17):
            for rank in {int(workload.owner[e]) for e in workload.ids[source, token]}:
                rows[source, rank] += 1
    assert np.array_equal(workload.rows(), rows)


@pytest.mark.parametrize("name", FORMATS)
def test_payload_is_finite_and_of_the_stated_size(name):
    torch = pytest.importorskip("torch")
    form = FORMATS[name]
    raw = payload(form, 256, 33, 1, 7)
    assert raw.shape == (33, form.payload_bytes(256))
    assert scales(form, 256, 33, 1, 7).shape == (33, form.scale_bytes(256))
    assert not np.array_equal(raw, payload(form, 256, 33, 2, 7))
    assert np.array_equal(raw, payload(form, 256, 33, 1, 7))
    if name != "fp4":
        values = torch.from_numpy(raw).view(getattr(torch, form.torch_dtype)).float()
        assert torch.isfinite(values).all()
        assert len(torch.unique(values)) > 200


def test_shipped_recording_is_small_skewed_and_says_what_it_is():
    recording = load_recording(RECORDED)
    assert RECORDED.stat().st_size < 100_000
    assert recording.num_experts == 256
    assert recording.ids.shape[2] == 8
    assert "not a production model" in recording.description
    assert (np.diff(recording.weights, axis=2) <= 0).all()
    load = np.bincount(recording.ids[0].ravel(), minlength=256)
    assert load.max() > 1.5 * load.mean()


def test_recorded_routing_repeats_when_too_short():
    workload = make(settings(ranks=3, tokens=1024))
    assert "repeated 1.5 times" in workload.description
    assert np.array_equal(workload.ids[0], workload.ids[2])


GOOD = {"ids": np.arange(16).reshape(1, 4, 4), "weights": np.ones((1, 4, 4)), "num_experts": 16}
BAD = {
    "no ids": ({"ids": None}, "no array ids"),
    "flat ids": ({"ids": np.arange(16)}, "ids must be integers"),
    "real ids": ({"ids": np.ones((1, 4, 4))}, "ids must be integers"),
    "weights differ": ({"weights": np.ones((1, 4, 3))}, "ids must be integers"),
    "too large": ({"num_experts": 8}, "ids reach from 0 to 15"),
    "negative": ({"ids": GOOD["ids"] - 2}, "ids reach from -2"),
    "twice": ({"ids": np.ones((1, 4, 4), dtype=int)}, "same expert twice"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_recordings_are_refused(case, tmp_path):
    changes, message = BAD[case]
    file = tmp_path / "bad.npz"
    np.savez(file, **{k: v for k, v in {**GOOD, **changes}.items() if v is not None})
    with pytest.raises(ConfigError, match=message):
        load_recording(file)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not really", b"\x93NUMPY"], ids=["empty", "zip", "npy"])
def test_unreadable_recordings_are_refused(content, tmp_path):
    file = tmp_path / "bad.npz"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match="not a readable"):
        load_recording(file)


def test_recording_that_does_not_fit_is_refused_with_the_remedy():
    with pytest.raises(ConfigError, match="--experts 256"):
        make(settings(experts=128))
    with pytest.raises(ConfigError, match="--topk 8"):
        make(settings(topk=9))


def test_fewer_experts_than_recorded_per_token_takes_the_heaviest():
    full, two = make(settings()), make(settings(topk=2))
    assert np.array_equal(two.ids, full.ids[..., :2])
