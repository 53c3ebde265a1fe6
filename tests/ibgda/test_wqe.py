# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""`mori wqe`: what goes in comes out, near every wrap; nonsense is refused in words."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wqe_golden import FAMILIES, records

from mori import ConfigError, _core, wqe

RINGS = {"mlx5": 64, "bnxt_re": 3 * 64, "ionic": 64}
UNITS = {"mlx5": 1, "bnxt_re": 3, "ionic": 1}
WORD = st.integers(0, 2**32 - 1)
LONG = st.integers(0, 2**64 - 1)
# counts of entries around the wraps of 16 and 24 bits, of a ring, and of 32 bits
NEAR = st.sampled_from([0, 63, 64, 0xFFFF, 0x10000, 0xFFFFFF, 0x1000000, 2**32 - 1, 2**32]).flatmap(
    lambda at: st.integers(max(0, at - 2), at + 2)
)


@st.composite
def posts(draw: st.DrawFn) -> dict[str, Any]:
    family = draw(st.sampled_from(FAMILIES))
    op = draw(st.sampled_from(["WRITE", "WRITE_IMM", "READ", "FETCH_ADD", "CMP_SWAP"]))
    inline = op.startswith("WRITE") and draw(st.booleans())
    length = 8 if op in ("FETCH_ADD", "CMP_SWAP") else draw(st.integers(1, 16 if inline else 2**31 - 1))
    flags = draw(st.lists(st.sampled_from(["SIGNALED", "FENCE"]), unique=True))
    record = {
        "provider": family,
        "op": op,
        "qpn": draw(st.integers(0, 2**20 - 1)),
        "laddr": draw(LONG),
        "lkey": draw(WORD),
        "length": length,
        "raddr": draw(LONG),
        "rkey": draw(WORD),
        "flags": sorted(flags),
        "index": draw(NEAR) * UNITS[family],
        "ring_size": RINGS[family],
        "inline": inline,
    }
    if inline:
        record["inline_data"] = draw(st.binary(min_size=length, max_size=length)).hex()
    if op == "WRITE_IMM":
        record["imm"] = draw(WORD)
    if op == "FETCH_ADD":
        record["add"] = draw(LONG)
    if op == "CMP_SWAP":
        record |= {"swap": draw(LONG), "compare": draw(LONG)}
    return record


@given(posts())
@settings(max_examples=400, deadline=None)
def test_what_is_encoded_reads_back(record: dict[str, Any]) -> None:
    (made,) = wqe.encode([record])
    (said,) = wqe.decode([made])
    entry, (bell,) = said["fields"]["wqe"], said["fields"]["doorbells"]
    position, units = record["index"], UNITS[record["provider"]]
    assert (entry["op"], entry["raddr"], entry["rkey"]) == (record["op"], record["raddr"], record["rkey"])
    if record["inline"]:
        assert entry["inline"] == record["inline_data"]
    elif record["op"] in ("FETCH_ADD", "CMP_SWAP"):
        assert entry["value"] == record.get("add", record.get("swap"))
        assert entry["compare"] == record.get("compare", 0)
    else:
        (data,) = entry["data"]
        assert data == {"laddr": record["laddr"], "lkey": record["lkey"], "length": record["length"]}
    if record["op"] == "WRITE_IMM":
        assert entry["imm"] == record["imm"]
    end = position + units
    if record["provider"] == "mlx5":
        assert (entry["wqe_index"], entry["qpn"]) == (position & 0xFFFF, record["qpn"])
        assert int(made["dbrec"], 16) == end & 0xFFFF
        assert (bell["wqe_index"], bell["qpn"]) == (position & 0xFFFF, record["qpn"])
    elif record["provider"] == "bnxt_re":
        assert (bell["index"], bell["epoch"]) == (end % RINGS["bnxt_re"], end // RINGS["bnxt_re"] % 2)
        assert (bell["qid"], bell["valid"], bell["type"]) == (record["qpn"], 1, 0)
        assert said["fields"]["msn"]["start_slot"] == position % RINGS["bnxt_re"]
    else:
        assert entry["wqe_index"] == position % RINGS["ionic"]
        assert entry["color"] == 1 - position // RINGS["ionic"] % 2
        assert (bell["index"], bell["qid"]) == (end % RINGS["ionic"], record["qpn"])


@given(st.sampled_from(FAMILIES), st.binary(min_size=16, max_size=256), st.sampled_from(["wqe", "cqe"]))
@settings(max_examples=600, deadline=None)
def test_random_bytes_are_read_or_refused(family: str, data: bytes, part: str) -> None:
    least = 16 if part == "wqe" else 64 if family == "mlx5" else 32
    record = {"provider": family, part: data.hex()}
    if len(data) < least:
        with pytest.raises(ConfigError, match=f"{part} has {len(data)} bytes"):
            list(wqe.decode([record]))
    else:
        (said,) = wqe.decode([record])
        assert json.loads(json.dumps(said))["fields"][part]


@given(st.sampled_from(FAMILIES), st.binary(min_size=64, max_size=64), NEAR, st.sampled_from([1, 4, 1024]))
@settings(max_examples=1000, deadline=None)
def test_random_completions_are_read_or_not_there(family: str, data: bytes, count: int, depth: int) -> None:
    """mlx5's 16-bit counter never names what is not posted: a stale one would jump by 64 K. (The queue refuses what
    the others name beyond its entries.)"""
    units = UNITS[family]
    found = _core.ibgda.take(
        family,
        data[: 64 if family == "mlx5" else 32],
        consumed=count,
        cq_depth=depth,
        depth=RINGS[family],
        completed=count * units,
        completed_messages=count,
        published=(count + 5) * units,
        cqn=1,
    )
    if family == "mlx5" and found is not None and not found["failed"]:
        assert count < found["completed"] <= count + 5


BAD = [
    ({"provider": "efa"}, "provider='efa'"),
    ({"op": "FLY"}, "op='FLY'"),
    ({"length": -1}, "length=-1"),
    ({"length": 2**31}, "length=2147483648"),
    ({"qpn": 2**24}, "qpn=16777216"),
    ({"raddr": "x"}, "raddr='x'"),
    ({"lkey": None}, "lkey=None"),
    ({"flags": ["LOUD"]}, "flags='LOUD'"),
    ({"nsge": 3}, "nsge=3"),
    ({"inline": True, "inline_data": "0g"}, "inline_data='0g'"),
    ({"inline": True, "inline_data": "00"}, "inline_data has 1 bytes"),
    ({"op": "FETCH_ADD", "length": 4, "add": 1}, "length=4"),
    ({"index": True}, "index=True"),
]
GOOD = {
    "provider": "mlx5",
    "op": "WRITE",
    "qpn": 1,
    "laddr": 0,
    "lkey": 0,
    "length": 8,
    "raddr": 0,
    "rkey": 0,
    "index": 0,
    "ring_size": 64,
}


@pytest.mark.parametrize(("change", "words"), BAD, ids=[words for _, words in BAD])
def test_nonsense_is_refused_in_words(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match="allowed") as caught:
        list(wqe.encode([{**GOOD, **change}]))
    assert words in str(caught.value)


def run(*arguments: str, lines: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mori.cli", "wqe", *arguments]
    return subprocess.run(command, input=lines, capture_output=True, text=True, timeout=60, check=False)


def test_command_line_keeps_good_lines_and_names_bad_ones(tmp_path: Path) -> None:
    file = tmp_path / "posts.jsonl"
    file.write_text(
        "\n".join([json.dumps(GOOD), "{", json.dumps({**GOOD, "op": "FLY"}), json.dumps({**GOOD, "index": 1})])
    )
    done = run("encode", "--input", str(file), "--json")
    assert done.returncode == 2
    assert [json.loads(line)["index"] for line in done.stdout.splitlines()] == [0, 1]
    assert [line.split(":")[1].strip() for line in done.stderr.splitlines()] == ["line 2", "line 3"]


def test_command_line_explains_a_dump() -> None:
    lines = "\n".join(json.dumps(records(family)[0]) for family in FAMILIES)
    done = run("decode", "--input", "-", lines=lines)
    assert done.returncode == 0, done.stderr
    assert all(word in done.stdout for word in ("wqe_index", "raddr", "doorbells[0]", "0xcafebabe"))
    assert run("encode", "--input", "/nowhere").returncode == 2
