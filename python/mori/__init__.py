# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""MoRI: communication for large-model inference and training, on AMD and NVIDIA GPUs and plain CPUs.

    ctx = mori.init(group)                                  # this rank's view of its group
    moe = mori.ep.Dispatcher(ctx, hidden=7168, num_experts=256, topk=8, max_tokens=4096)

Importing this needs no torch: names are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mori import ccl as ccl
    from mori import cpp as cpp
    from mori import ep as ep
    from mori import io as io
    from mori import shmem as shmem
    from mori import topology as topology
    from mori._core import __version__ as __version__
    from mori.bootstrap import unique_id as unique_id
    from mori.compiler import compile_kernel as compile_kernel
    from mori.compiler import load_kernel as load_kernel
    from mori.context import Context as Context
    from mori.context import init as init
    from mori.errors import CapacityError as CapacityError
    from mori.errors import ConfigError as ConfigError
    from mori.errors import MoriError as MoriError
    from mori.errors import PeerLost as PeerLost
    from mori.errors import TimeoutError as TimeoutError
    from mori.errors import TransportError as TransportError

_ERRORS = ("CapacityError", "ConfigError", "MoriError", "PeerLost", "TimeoutError", "TransportError")
_HOME = dict.fromkeys(_ERRORS, "mori.errors") | {
    "__version__": "mori._core",
    "Context": "mori.context",
    "compile_kernel": "mori.compiler",
    "init": "mori.context",
    "load_kernel": "mori.compiler",
    "unique_id": "mori.bootstrap",
}
_SUBMODULES = ("ccl", "cpp", "ep", "io", "shmem", "topology")

__all__ = [*sorted(_HOME), *_SUBMODULES, "cmake_dir", "include_dir"]


def include_dir() -> Path:
    """Folder to put on the include path (`-I`) of a kernel that uses MoRI's headers, `mori/...hpp`."""
    core = importlib.import_module("mori._core")
    return Path(str(core.__file__)).parent / "include"


def cmake_dir() -> Path:
    """Folder of MoRI's CMake package (`-Dmori_DIR=`), whose `mori_add_kernel()` builds kernels of your own."""
    return Path(__file__).parent / "cmake"


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"mori.{name}")
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'mori' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
