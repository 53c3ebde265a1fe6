# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The names that frameworks import from `mori.cpp`. Each is the one of `mori.io`."""

from __future__ import annotations

import importlib
from typing import Any

from mori._core import io as _core_io

_IO = (
    "BackendType",
    "EngineDesc",
    "FabricBackendConfig",
    "IOEngineConfig",
    "MemoryDesc",
    "MemoryLocationType",
    "PollCqMode",
    "RdmaBackendConfig",
    "StatusCode",
    "TransferStatus",
    "XgmiBackendConfig",
)
_KINDS = (_core_io.StatusCode, _core_io.MemoryLocationType)
_MEMBERS = {name: value for kind in _KINDS for name, value in kind.__members__.items()}

__all__ = [*_IO, *_MEMBERS]


def __getattr__(name: str) -> Any:
    if name in _IO:
        return getattr(importlib.import_module("mori.io"), name)
    if name in _MEMBERS:
        return _MEMBERS[name]
    raise AttributeError(f"module 'mori.cpp' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
