# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""What an engine counted and did, in the formats of other people's tools.

    text = mori.io.prometheus(engine)  # for a /metrics endpoint of yours
    mori.io.write_trace("transfers.json", {"prefill": events})   # of engine.take_trace(), for ui.perfetto.dev

Neither opens a port nor starts a thread.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["prometheus", "trace_events", "write_trace"]

_OPS = ("read", "write")
# What can go down; everything else only grows.
_GAUGES = re.compile(r"(in_flight|open|free|queued|pending|connections|streams|_now)$")


def prometheus(engine: Any, *, prefix: str = "mori_io") -> str:
    """`engine.metrics()` (of an `IOEngine`, or of several) in Prometheus' text format, version 0.0.4."""
    engines = list(engine) if isinstance(engine, Iterable) else [engine]
    families: dict[str, tuple[str, list[str]]] = {}

    def add(name: str, kind: str, value: float, labels: Mapping[str, str], part: str = "") -> None:
        inside = ",".join(f'{key}="{_escape(text)}"' for key, text in labels.items())
        line = f"{prefix}_{name}{part}{{{inside}}} {_number(value)}"
        families.setdefault(name, (kind, []))[1].append(line)

    for one in engines:
        found, own = one.metrics(), {"engine": str(one.key)}
        counted = dict(found["engine"])
        for op in _OPS:
            for what in ("transfers", "segments", "bytes"):
                add(f"{what}_total", "counter", counted.pop(f"{op}_{what}", 0), own | {"op": op})
        for code, count in counted.pop("ended", {}).items():
            add("ended_total", "counter", count, own | {"status": str(code)})
        _histogram(add, counted.pop("duration_us", {}), counted.pop("duration_ns_total", 0), own)
        for name, value in counted.items():
            if isinstance(value, (int, float)):
                gauge = bool(_GAUGES.search(name))
                add(name if gauge else f"{name}_total", "gauge" if gauge else "counter", value, own)
        for backend, counters in found["backends"].items():
            for name, value in counters.items():
                gauge = bool(_GAUGES.search(name))
                clean = "backend_" + re.sub(r"[^a-zA-Z0-9_]", "_", name)
                kind = "gauge" if gauge else "counter"
                add(clean if gauge else f"{clean}_total", kind, value, own | {"backend": backend})
    lines = []
    for name, (kind, samples) in families.items():
        lines += [f"# TYPE {prefix}_{name} {kind}", *samples]
    return "\n".join(lines) + "\n"


def _histogram(add: Any, buckets: Mapping[int, int], total_ns: int, own: Mapping[str, str]) -> None:
    """Upper bounds come in microseconds, each with its own count; Prometheus wants seconds, and counts that add up."""
    count = 0
    for bound_us, here in sorted(buckets.items()):
        count += here
        add("duration_seconds", "histogram", count, {**own, "le": repr(bound_us / 1e6)}, "_bucket")
    add("duration_seconds", "histogram", count, {**own, "le": "+Inf"}, "_bucket")
    add("duration_seconds", "histogram", total_ns / 1e9, own, "_sum")
    add("duration_seconds", "histogram", count, own, "_count")


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def trace_events(engines: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Chrome trace events of `IOEngine.take_trace()`s by the engine's name: a transfer is a span, with a span for each
    attempt of a backend inside it; the bytes in flight are a counter. Engines of one host share a clock."""
    out: list[dict[str, Any]] = []
    for process, (name, events) in enumerate(engines.items(), start=1):
        out.append({"ph": "M", "name": "process_name", "pid": process, "args": {"name": f"mori.io {name}"}})
        out += _spans(process, events)
    return out


def _spans(process: int, events: Sequence[Any]) -> Iterator[dict[str, Any]]:
    known: dict[int, int] = {}  # bytes of the transfers in flight
    for event in sorted(events, key=lambda e: e.ns):
        place = {"pid": process, "tid": event.thread, "ts": event.ns / 1e3, "cat": "io", "id": event.transfer}
        if event.kind == "started":
            known[event.transfer] = event.bytes
            facts = {"bytes": event.bytes, "segments": event.segments, "transfer": event.transfer}
            yield {**place, "ph": "b", "name": event.op, "args": facts}
        elif event.transfer not in known:
            continue  # its beginning was overwritten in the ring
        elif event.kind == "carried":
            yield {**place, "ph": "b", "name": event.backend, "args": {"bytes": event.bytes}}
        elif event.kind == "attempt_ended":
            yield {**place, "ph": "e", "name": event.backend, "args": {"code": event.code}}
        else:
            del known[event.transfer]
            yield {**place, "ph": "e", "name": event.op, "args": {"code": event.code}}
        if event.kind in ("started", "ended"):
            args = {"bytes": sum(known.values())}
            yield {"ph": "C", "name": "bytes in flight", "pid": process, "ts": event.ns / 1e3, "args": args}


def write_trace(file: str | os.PathLike[str], engines: Mapping[str, Sequence[Any]]) -> None:
    """Writes the file that https://ui.perfetto.dev or chrome://tracing opens."""
    Path(file).write_text(json.dumps({"traceEvents": trace_events(engines), "displayTimeUnit": "ns"}))
