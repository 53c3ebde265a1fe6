# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Errors belong to one family and the builtin ones, and keep their fields through pickle and copy."""

import builtins
import copy
import pickle

import pytest

from mori import errors

EXAMPLES = [
    errors.MoriError("m"),
    errors.ConfigError("topk=9 exceeds num_experts=8"),
    errors.CapacityError("full"),
    errors.TransportError("t"),
    errors.TimeoutError(what="barrier", peer=3, expected=7, seen=6),
    errors.TimeoutError("own words", what="x", missing=(1, 4)),
    errors.PeerLost(peer=5),
    errors.PeerLost("own words", peer=0),
]
FIELDS = ("what", "peer", "expected", "seen", "missing")


@pytest.mark.parametrize("again", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy], ids=["pickle", "copy"])
@pytest.mark.parametrize("error", EXAMPLES, ids=lambda e: f"{type(e).__name__}-{e}"[:40])
def test_fields_survive(error: errors.MoriError, again: object) -> None:
    other = again(error)  # type: ignore[operator]
    assert type(other) is type(error)
    assert str(other) == str(error)
    assert [getattr(other, f, None) for f in FIELDS] == [getattr(error, f, None) for f in FIELDS]


@pytest.mark.parametrize(
    ("kind", "also"),
    [
        (errors.ConfigError, ValueError),
        (errors.TimeoutError, builtins.TimeoutError),
        (errors.TimeoutError, errors.TransportError),
        (errors.PeerLost, errors.TransportError),
        (errors.TransportError, errors.MoriError),
        (errors.CapacityError, errors.MoriError),
    ],
    ids=lambda k: k.__name__,
)
def test_family(kind: type, also: type) -> None:
    assert issubclass(kind, also)
    assert issubclass(kind, errors.MoriError)


def test_words_are_made_of_the_fields() -> None:
    assert str(EXAMPLES[4]) == "barrier reached its deadline waiting for rank 3 (expected 7, seen 6)"
    assert str(errors.TimeoutError(what="x", missing=(1, 4))) == "x reached its deadline; ranks 1, 4 did not come"
    assert str(errors.PeerLost(peer=5)) == "rank 5 is gone"


def test_first_missing_is_the_peer() -> None:
    assert errors.TimeoutError(missing=(4, 6)).peer == 4
    assert errors.TimeoutError(peer=0, missing=(4, 6)).peer == 0
