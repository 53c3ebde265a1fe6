# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Ranks configured differently are refused with the field, its values and the ranks named."""

import pytest
from boot_helpers import join, refusal
from mori.errors import ConfigError
from mori.mesh import check_same
from mori.testing import run_ranks

pytestmark = pytest.mark.timeout(60)

SAME = {"num_experts": 256, "hidden": 7168, "tags": {"b", "a"}, "map": {"x": 1, "y": (2.5, None)}}


def same_work(rank, world_size, uid, changes):
    with join(rank, world_size, uid) as mesh:
        error = refusal(lambda: check_same(mesh, "Dispatcher", {**SAME, **changes.get(rank, {})}))
        mesh.barrier()
        return None if error is None else (type(error), str(error))


def test_equal_fields_pass():
    assert run_ranks(same_work, 4, {0: {"tags": {"a", "b"}, "map": {"y": (2.5, None), "x": 1}}}) == [None] * 4


def test_different_fields_are_named_with_their_ranks():
    text = "num_experts differs between ranks: rank 0 has 256, rank 3 has 128"
    for kind, said in run_ranks(same_work, 4, {3: {"num_experts": 128}}, mode="thread"):
        assert kind is ConfigError
        assert text in said
        assert "hidden" not in said
        assert "Dispatcher" in said


def test_a_field_that_others_lack_is_named():
    for _, said in run_ranks(same_work, 2, {0: {"bias": True}}, mode="thread"):
        assert "bias differs between ranks: rank 0 has True, rank 1 has nothing" in said


def test_values_without_a_text_are_refused():
    def work(rank, world_size, uid):
        with join(rank, world_size, uid) as mesh:
            return refusal(lambda: check_same(mesh, "x", {"f": object()}))

    assert isinstance(run_ranks(work, 1, mode="thread")[0], ConfigError)
