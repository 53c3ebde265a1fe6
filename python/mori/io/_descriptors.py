# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""What one process tells another so that it can reach its memory: plain values with `pack()` and `unpack()`.

On the wire each is one msgpack array. The first fields and their order are those that frameworks know; ours come
behind them, and an array that lacks them still unpacks.
"""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

import msgspec

from mori._core import io as _io

from ..errors import ConfigError

__all__ = ["EngineDesc", "MemoryDesc"]

MemoryLocationType = _io.MemoryLocationType
_LIMIT_BYTES = 1 << 20  # of a packed descriptor; real ones have some hundred
_T = TypeVar("_T")


def _decode(data: bytes, kind: type[_T], what: str) -> _T:
    try:
        if len(data) > _LIMIT_BYTES:
            raise ValueError(f"{len(data)} bytes")
        return msgspec.msgpack.decode(data, type=kind)
    except (msgspec.DecodeError, TypeError, ValueError) as error:
        raise ConfigError(f"these bytes are no packed {what}: {error}") from None


class _EngineWire(msgspec.Struct, array_like=True, forbid_unknown_fields=False):
    key: str
    node_id: str
    hostname: str
    host: str
    port: int
    pid: int
    incarnation: int = 0


class _MemoryWire(msgspec.Struct, array_like=True, forbid_unknown_fields=False):
    engine_key: str
    id: int
    device_id: int
    device_bus_id: str
    data: int
    size: int
    loc: int
    ipc_handle: bytes
    numa_node: int = -1
    ipc_offset: int = 0
    fabric_handle: bytes = b""
    vpod_id: int = 0
    vpod_ppod_id: int = 0
    fabric_offset: int = 0
    fabric_alloc_size: int = 0
    incarnation: int = 0
    region_key: bytes = b""


@dataclasses.dataclass(frozen=True)
class EngineDesc:
    """Where an engine listens, and which run of it (`incarnation`)."""

    key: str
    node_id: str
    hostname: str
    host: str
    port: int
    pid: int
    incarnation: int = 0

    def pack(self) -> bytes:
        return msgspec.msgpack.encode(_EngineWire(**dataclasses.asdict(self)))

    @staticmethod
    def unpack(data: bytes) -> EngineDesc:
        wire = _decode(data, _EngineWire, "EngineDesc")
        if not 0 <= wire.port < 1 << 16:
            raise ConfigError(f"port={wire.port} of a packed EngineDesc is not a port")
        if not 0 <= wire.incarnation < 1 << 64:
            raise ConfigError("the incarnation of a packed EngineDesc is out of range")
        return EngineDesc(**msgspec.structs.asdict(wire))


@dataclasses.dataclass(frozen=True)
class MemoryDesc:
    """A registered memory. `region_key` is the secret that opens it: whoever has the descriptor may read and write
    the memory.

    `device_bus_id` and `numa_node` are a GPU's, "" and -1 for other memory. `ipc_handle` is zeros, and the packed
    form's fields of memory fabrics are empty: handles are given only to engines that know the key.
    """

    engine_key: str = ""
    id: int = 0
    device_id: int = -1
    device_bus_id: str = ""
    numa_node: int = -1
    data: int = 0
    size: int = 0
    loc: Any = MemoryLocationType.Unknown
    ipc_handle: bytes = dataclasses.field(default=bytes(64), compare=False, repr=False)
    incarnation: int = 0
    region_key: bytes = dataclasses.field(default=b"", repr=False)

    def pack(self) -> bytes:
        return msgspec.msgpack.encode(
            _MemoryWire(
                self.engine_key,
                self.id,
                self.device_id,
                self.device_bus_id,
                self.data,
                self.size,
                int(self.loc),
                self.ipc_handle,
                numa_node=self.numa_node,
                incarnation=self.incarnation,
                region_key=self.region_key,
            )
        )

    @staticmethod
    def unpack(data: bytes) -> MemoryDesc:
        wire = _decode(data, _MemoryWire, "MemoryDesc")
        for name, bits in (("id", 64), ("data", 64), ("size", 64), ("incarnation", 64)):
            if not 0 <= getattr(wire, name) < 1 << bits:
                raise ConfigError(f"{name} of a packed MemoryDesc is out of range")
        if wire.loc not in (0, 1, 2, 3):
            raise ConfigError(f"loc={wire.loc} of a packed MemoryDesc is no MemoryLocationType")
        if not -1 <= wire.device_id < 1 << 31 or not -1 <= wire.numa_node < 1 << 31:
            raise ConfigError("device_id or numa_node of a packed MemoryDesc is out of range")
        return MemoryDesc(
            wire.engine_key,
            wire.id,
            wire.device_id,
            wire.device_bus_id,
            wire.numa_node,
            wire.data,
            wire.size,
            MemoryLocationType(wire.loc),
            wire.ipc_handle,
            wire.incarnation,
            wire.region_key,
        )
