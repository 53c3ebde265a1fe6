# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Our encoders and decoders against bytes of the vendors' own drivers: every operation, ring wrap and doorbell."""

from __future__ import annotations

from collections import Counter

import pytest
from wqe_golden import FAMILIES, Record, hides, inputs, records

from mori import _core, wqe

POSTS = {"mlx5": 388, "bnxt_re": 396, "ionic": 353}
COMPLETIONS = {"mlx5": 61, "bnxt_re": 59, "ionic": 61}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_entry_equals_the_vendors(family: str) -> None:
    compared: Counter[str] = Counter()
    for wanted, made in zip(records(family), wqe.encode(inputs(family)), strict=True):
        assert (made.get("case"), made.get("seq"), made.get("rc")) == (wanted["case"], wanted["seq"], wanted.get("rc"))
        if wanted["kind"] != "post":
            assert made == wanted
            continue
        compared["posts"] += 1
        if "wqe" not in wanted:
            assert wanted["rc"] != 0 and "wqe" not in made, "a driver refused it, and so do we"
            compared["refused"] += 1
            continue
        where = (wanted["case"], wanted["seq"])
        assert hides(wanted, made["wqe"]) == hides(wanted, wanted["wqe"]), where
        assert made.get("wqe_used", 0) == wanted.get("wqe_used", 0) or wanted["op"] == "RECV", where
        assert made.get("dbrec") == wanted.get("dbrec"), where
        assert made.get("msn") == wanted.get("msn"), where
        assert _bells(wanted, made) == _bells(wanted, wanted), where
    assert compared["posts"] == POSTS[family]
    assert compared["refused"] == (1 if family == "ionic" else 0)


def _bells(record: Record, of: Record) -> list[tuple[int, int, int, str]]:
    """Page, offset, length and bytes that count of each doorbell. A BlueFlame doorbell is a copy of the entry."""
    return [
        (b["page"], b["offset"], len(b["bytes"]), hides(record, b["bytes"]) if len(b["bytes"]) > 16 else b["bytes"])
        for b in of.get("doorbells", [])
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_what_kernels_post_is_encoded_by_their_own_code(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Most of the records above went through the device encoder: without it these would not be tests of it."""
    calls: Counter[str] = Counter()
    real = _core.ibgda.encode

    def count(name: str, **arguments: object) -> object:
        calls[name] += 1
        return real(name, **arguments)

    monkeypatch.setattr(_core.ibgda, "encode", count)
    list(wqe.encode(inputs(family)))
    assert calls[family] >= 0.85 * POSTS[family]


def completions(family: str) -> list[tuple[int, Record, Record]]:
    """(number in its queue, completion, the last post that it finishes)."""
    found = []
    number, posts = 0, []  # type: ignore[var-annotated]
    for record in records(family):
        if record["kind"] == "post":
            if record["seq"] == 0:
                number, posts = 0, []
            posts.append(record)
        else:
            # behind an error the drivers flush what follows in words of their own: the first is the NIC's
            done = record["wc"][0 if record["wc"][0]["status"] else -1]["wr_id"] - 1000
            found.append((number, record, posts[done]))
            number += 1
    return found


def ring_of_wrap(family: str) -> int:
    """Entries of the completion ring in the case that wraps it: where its owner, phase or color bit turns."""
    bit = {"mlx5": (63, 0), "bnxt_re": (24, 0), "ionic": (31, 0)}[family]
    bits = [
        bytes.fromhex(record["cqe"])[bit[0]] >> bit[1] & 1
        for _, record, _ in completions(family)
        if record["case"] == "cqe_wrap"
    ]
    turns = [i for i in range(1, len(bits)) if bits[i] != bits[i - 1]]
    if family == "ionic":
        assert not turns, "its driver makes no ring shorter than the case"
        return 64
    assert turns and all(turn % turns[0] == 0 for turn in turns)
    return turns[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_completion_reads_as_the_vendors(family: str) -> None:
    wrap = ring_of_wrap(family)
    seen = 0
    for number, record, post in completions(family):
        depth = wrap if record["case"] == "cqe_wrap" else 1024
        units = {"mlx5": 1, "bnxt_re": 3, "ionic": 1}[family]
        before = 0 if record["case"] != "cqe_wrap" else number
        ring = {"bnxt_re": 1536}.get(family, 65536)
        arguments = {
            "depth": ring,
            "completed": before * units,
            "completed_messages": before,
            "published": post["index"] + units,
            "cqn": 0x33,
        }
        data = bytes.fromhex(record["cqe"])
        found = _core.ibgda.take(family, data, consumed=number, cq_depth=depth, **arguments)
        status = record["wc"][0]["status"]
        assert found is not None, record["case"]
        assert found["failed"] == (status != 0)
        if status:
            assert found["status"] == int(record["case"].removeprefix("cqe_error_"), 16)
            if family == "mlx5":
                assert found["vendor"] == record["wc"][0]["vendor_err"]
        else:
            assert found["completed"] == post["index"] + units
        # the same bytes one lap earlier or later are not there yet
        assert _core.ibgda.take(family, data, consumed=number + depth, cq_depth=depth, **arguments) is None
        if family == "mlx5":
            assert found["doorbell"][:4].hex() == record["cq_dbrec"][:8]
        (said,) = wqe.decode([record])
        assert (said["fields"]["cqe"]["state"] == "error") == (status != 0)
        assert "unknown" not in said["fields"]["cqe"]["words"]
        seen += 1
    assert seen == COMPLETIONS[family]


def test_bnxt_re_rings_its_completion_register_as_the_vendor_does() -> None:
    """The driver rings at every half lap; the value for the same count is equal."""
    checked = 0
    for number, record, _ in completions("bnxt_re"):
        if not record.get("doorbells"):
            continue
        found = _core.ibgda.take(
            "bnxt_re",
            bytes.fromhex(record["cqe"]),
            consumed=number,
            cq_depth=ring_of_wrap("bnxt_re"),
            depth=1536,
            completed=number * 3,
            completed_messages=number,
            published=number * 3 + 3,
            cqn=0x33,
        )
        assert found["doorbell"].hex() == record["doorbells"][0]["bytes"]
        checked += 1
    assert checked == 5
