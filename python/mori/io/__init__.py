# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Blocks of memory between processes: KV caches, weights, anything.

    engine = mori.io.IOEngine("prefill")
    memory = engine.register_buffer(array)
    engine.register_remote_engine(peer)                 # an EngineDesc that came by your own means
    session = engine.create_session(memory, remote)     # and a MemoryDesc
    session.batch_write(local_offsets, remote_offsets, sizes).wait(timeout_s=5)

docs/io_guide.md is the guide. Needs no GPU, no NIC and no torch.
"""

from __future__ import annotations

from mori._core import io as _io

from ._configs import FabricBackendConfig, IOEngineConfig, RdmaBackendConfig, XgmiBackendConfig
from ._descriptors import EngineDesc, MemoryDesc
from ._engine import IOEngine, Notification, TraceEvent
from ._memory import SharedMemory, empty
from ._observe import prometheus, trace_events, write_trace
from ._session import Explanation, IOEngineSession, Route

BackendType = _io.BackendType
MemoryLocationType = _io.MemoryLocationType
PollCqMode = _io.PollCqMode
PreparedTransfer = _io.PreparedTransfer
StatusCode = _io.StatusCode
Strided = _io.Strided
TransferStatus = _io.TransferStatus

__all__ = [
    "BackendType",
    "EngineDesc",
    "Explanation",
    "FabricBackendConfig",
    "IOEngine",
    "IOEngineConfig",
    "IOEngineSession",
    "MemoryDesc",
    "MemoryLocationType",
    "Notification",
    "PollCqMode",
    "PreparedTransfer",
    "RdmaBackendConfig",
    "Route",
    "SharedMemory",
    "StatusCode",
    "Strided",
    "TraceEvent",
    "TransferStatus",
    "XgmiBackendConfig",
    "empty",
    "prometheus",
    "set_log_level",
    "trace_events",
    "write_trace",
]


def set_log_level(level: str) -> None:
    """Level of the logger `mori.io`: debug, info, warning, error or critical."""
    import logging

    from ..errors import ConfigError

    names = ("debug", "info", "warning", "error", "critical")
    if str(level).lower() not in names:
        raise ConfigError(f"level={level!r}; it is one of {', '.join(names)}")
    logging.getLogger("mori.io").setLevel(str(level).upper())
