# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Collectives over the ranks of a context: one launch each, the same bits on all ranks, safe in CUDA graphs.

    with mori.init(group) as ctx:
        comm = mori.ccl.Communicator(ctx)
        total = comm.all_reduce(x)                      # or out=x, in place
        whole = comm.all_gather(x)

docs/ccl_guide.md shows every call, docs/ccl.md how they work.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mori.ccl._communicator import Communicator as Communicator
    from mori.ccl._ops import register_ops as register_ops
    from mori.ccl._process_group import register_backend as register_backend

_HOME = {"Communicator": "_communicator", "register_backend": "_process_group", "register_ops": "_ops"}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'mori.ccl' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"mori.ccl.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
