# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Metrics as Prometheus text, and traces as Perfetto reads them: every number is where it belongs."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
from mori.io import IOEngine, IOEngineConfig, MemoryDesc, TraceEvent, prometheus, trace_events, write_trace

pytestmark = pytest.mark.timeout(60)


class Fake:
    key = 'pre"fill\\1'

    def metrics(self) -> dict[str, Any]:
        engine = {
            **{f"{op}_{what}": count for op in ("read", "write") for what, count in (("transfers", 3), ("bytes", 10))},
            "ended": {"success": 5, "err_timeout": 1},
            "duration_us": {1: 4, 8: 1, 1024: 1},
            "duration_ns_total": 1_500_000,
            "in_flight": 2,
            "reroutes": 7,
        }
        return {"engine": engine, "backends": {"tcp": {"bytes sent": 12.0, "streams": 2.0}}}


def samples(text: str) -> dict[str, float]:
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert all(
        re.fullmatch(r'[a-zA-Z_:][a-zA-Z0-9_:]*\{([a-z_]+="(?:[^"\\]|\\.)*",?)*\} [-+0-9.eE]+', x) for x in lines
    )
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


def test_every_number_is_told_once():
    text = prometheus(Fake())
    found = samples(text)
    own = 'engine="pre\\"fill\\\\1"'
    assert found[f'mori_io_bytes_total{{{own},op="write"}}'] == 10
    assert found[f'mori_io_ended_total{{{own},status="err_timeout"}}'] == 1
    assert found[f"mori_io_in_flight{{{own}}}"] == 2
    assert found[f"mori_io_reroutes_total{{{own}}}"] == 7
    assert found[f'mori_io_backend_bytes_sent_total{{{own},backend="tcp"}}'] == 12
    assert found[f'mori_io_backend_streams{{{own},backend="tcp"}}'] == 2
    assert "# TYPE mori_io_in_flight gauge" in text and "# TYPE mori_io_reroutes_total counter" in text
    assert len(found) == len([line for line in text.splitlines() if not line.startswith("#")])
    families = [line.split()[2] for line in text.splitlines() if line.startswith("#")]
    assert len(families) == len(set(families))


def test_durations_add_up_in_seconds():
    found = samples(prometheus(Fake()))
    buckets = {k: v for k, v in found.items() if "duration_seconds_bucket" in k}
    assert list(buckets.values()) == [4, 5, 6, 6]
    assert [re.search(r'le="([^"]+)"', key)[1] for key in buckets] == ["1e-06", "8e-06", "0.001024", "+Inf"]
    assert next(v for k, v in found.items() if "duration_seconds_sum" in k) == 0.0015


def test_several_engines_in_one_text():
    other = Fake()
    other.key = "decode"
    text = prometheus([Fake(), other])
    assert text.count("# TYPE mori_io_in_flight gauge") == 1
    assert len([k for k in samples(text) if k.startswith("mori_io_in_flight")]) == 2


def event(ns: int, kind: str, transfer: int, size: int, code: str = "SUCCESS", backend: str = "") -> TraceEvent:
    return TraceEvent(ns, kind, transfer, "write", size, 1, code, backend, 42)


def test_spans_nest_and_counters_return_to_zero():
    events = [
        event(1000, "started", 1, 100),
        event(2000, "started", 2, 50),
        event(3000, "carried", 1, 100, backend="rdma"),
        event(4000, "attempt_ended", 1, 100, "ERR_RDMA_OP", "rdma"),
        event(5000, "carried", 1, 60, backend="tcp"),
        event(6000, "attempt_ended", 1, 60, backend="tcp"),
        event(7000, "ended", 1, 100),
        event(8000, "ended", 2, 20, "ERR_CANCELLED"),
        event(9000, "ended", 99, 5),  # its beginning was overwritten
    ]
    out = trace_events({"prefill": events})
    counters = [e["args"]["bytes"] for e in out if e["ph"] == "C"]
    assert counters == [100, 150, 50, 0]
    stack: list[str] = []
    for e in out:
        if e.get("id") == 1 and e["ph"] == "b":
            stack.append(e["name"])
        if e.get("id") == 1 and e["ph"] == "e":
            assert stack.pop() == e["name"]
    assert stack == []
    assert not [e for e in out if e.get("id") == 99]


def test_real_engines(tmp_path):
    with IOEngine("a", IOEngineConfig(trace_events=1000)) as a, IOEngine("b") as b:
        mine, theirs = np.arange(4096, dtype=np.uint8), np.zeros(4096, np.uint8)
        here, there = a.register_buffer(mine), b.register_buffer(theirs)
        a.register_remote_engine(b.get_engine_desc())
        session = a.create_session(here, MemoryDesc.unpack(there.pack()))
        for _ in range(5):
            session.batch_write([0, 1024], [2048, 0], [512, 512], a.allocate_transfer_uid()).wait(10)
        found = samples(prometheus([a, b]))
        assert found['mori_io_bytes_total{engine="a",op="write"}'] == 5 * 1024
        assert found['mori_io_ended_total{engine="a",status="success"}'] == 5
        write_trace(tmp_path / "t.json", {"a": a.take_trace()})
    spans = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    assert len([e for e in spans if e["ph"] == "b" and e["name"] == "write"]) == 5
    assert [e["args"]["bytes"] for e in spans if e["ph"] == "C"][-1] == 0
