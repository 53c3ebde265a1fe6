# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Ranks that were configured differently are refused at construction, not found out by a wrong result."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from .errors import ConfigError

if TYPE_CHECKING:
    from .mesh import Mesh


def check_same(mesh: Mesh, what: str, fields: Mapping[str, object], *, timeout: float | None = None) -> None:
    """Refuses a configuration in which ranks differ, naming each field, its values and the ranks:
    ConfigError.

    Values are compared by their repr(), which must not contain an address; the order of sets and dicts is
    ignored.
    """
    texts = {name: _text(fields[name]) for name in sorted(fields)}
    for name, text in texts.items():
        if " at 0x" in text:
            raise ConfigError(f"{what}: field {name!r} = {text} cannot be compared between ranks")
    packed = "\0".join(f"{name}\1{text}" for name, text in texts.items()).encode()
    digest = hashlib.sha256(packed).digest()
    if len({message.payload for message in mesh.exchange(f"check {what}", digest, timeout=timeout)}) == 1:
        return
    everyone = []
    for message in mesh.exchange(f"fields of {what}", packed, timeout=timeout):
        pairs = [pair.split("\1") for pair in message.payload.decode().split("\0")] if message.payload else []
        everyone.append(dict(pairs))
    complaints = []
    for name in sorted(set().union(*everyone)):
        first: dict[str, int] = {}
        for rank, theirs in enumerate(everyone):
            first.setdefault(theirs.get(name, "nothing"), rank)
        if len(first) > 1:
            values = ", ".join(f"rank {rank} has {text}" for text, rank in first.items())
            complaints.append(f"{name} differs between ranks: {values}")
    raise ConfigError(f"{what}: {'; '.join(complaints)}")


def _text(value: object) -> str:
    if isinstance(value, (set, frozenset)):
        return "{" + ", ".join(sorted(map(_text, value))) + "}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(sorted(f"{_text(k)}: {_text(v)}" for k, v in value.items())) + "}"
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(map(_text, value)) + "]"
    return repr(value)
