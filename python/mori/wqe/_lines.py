# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""JSON lines in, JSON lines or a dump for people out: what `mori wqe` does."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mori.errors import ConfigError
from mori.wqe._encode import Encoder
from mori.wqe._explain import explain

__all__ = ["run"]

Record = dict[str, Any]


def run(direction: str, file: str, *, as_json: bool) -> int:
    """Prints each line's record; returns how many lines were refused, each with a sentence on stderr."""
    encoder = Encoder()
    convert: Callable[[Record], Record] = encoder if direction == "encode" else explain
    console, refused = Console(), 0
    for number, text in _lines(file):
        try:
            record = json.loads(text)
            if not isinstance(record, dict):
                raise ConfigError("allowed is an object")
            result = convert(record)
            shown = result if as_json else explain(result)
        except (ConfigError, json.JSONDecodeError) as error:
            print(f"error: line {number}: {error}", file=sys.stderr)
            refused += 1
            continue
        if as_json:
            print(json.dumps(result, separators=(",", ":")))
        else:
            console.print(_table(number, shown))
    return refused


def _lines(file: str) -> Iterator[tuple[int, str]]:
    with sys.stdin if file == "-" else Path(file).open(encoding="utf-8") as lines:
        for number, text in enumerate(lines, 1):
            if text.strip():
                yield number, text


def _table(number: int, record: Record) -> Table:
    title = f"line {number}: {record['provider']} {record.get('op', record.get('kind', ''))}"
    table = Table("part", "field", "value", "hex", title=title, title_justify="left")
    for part, content in record["fields"].items():
        for label, fields in _parts(part, content):
            for name, value in fields.items():
                shown = f"{value:#x}" if isinstance(value, int) and not isinstance(value, bool) else ""
                table.add_row(label, name, str(value), shown)
                label = ""
    return table


def _parts(part: str, content: Any) -> Iterator[tuple[str, Record]]:
    if isinstance(content, list):
        for i, fields in enumerate(content):
            yield f"{part}[{i}]", fields
        return
    yield part, {name: value for name, value in content.items() if not isinstance(value, list)}
    for name, value in content.items():
        if isinstance(value, list):
            yield from _parts(f"{part}.{name}", value)
