# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Entries, completions and doorbells field by field: the layouts as tables, and records with their fields."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from mori.errors import ConfigError
from mori.wqe._encode import FAMILIES
from mori.wqe._forms import OPS

__all__ = ["decode", "explain"]

Record = dict[str, Any]


class Field(NamedTuple):
    """Bits [low, low + width) of a word of `size` bytes at `offset`; width 0: all of it."""

    name: str
    offset: int
    size: int
    order: str  # "big" or "little"
    low: int = 0
    width: int = 0

    def of(self, data: bytes) -> int:
        word = int.from_bytes(data[self.offset : self.offset + self.size], "big" if self.order == "big" else "little")
        return word >> self.low & (1 << (self.width or self.size * 8)) - 1

    def at(self, offset: int) -> Field:
        return self._replace(offset=self.offset + offset)


def _big(name: str, offset: int, size: int = 4, low: int = 0, width: int = 0) -> Field:
    return Field(name, offset, size, "big", low, width)


def _little(name: str, offset: int, size: int = 4, low: int = 0, width: int = 0) -> Field:
    return Field(name, offset, size, "little", low, width)


_MLX5_CONTROL = (
    _big("opmod", 0, 4, 24, 8),
    _big("wqe_index", 0, 4, 8, 16),
    _big("opcode", 0, 4, 0, 8),
    _big("qpn", 4, 4, 8, 24),
    _big("ds", 4, 4, 0, 6),
    _big("signature", 8, 1),
    _big("fence", 11, 1, 5, 3),
    _big("ce", 11, 1, 2, 2),
    _big("solicited", 11, 1, 1, 1),
    _big("imm", 12),
)
_MLX5_ADDRESS = (_big("raddr", 0, 8), _big("rkey", 8))
_MLX5_DATA = (_big("length", 0), _big("lkey", 4), _big("laddr", 8, 8))
_MLX5_CQE = (
    _big("byte_count", 0x2C),
    _big("vendor_err", 0x36, 1),
    _big("syndrome", 0x37, 1),
    _big("wqe_opcode", 0x38, 4, 24, 8),
    _big("qpn", 0x38, 4, 0, 24),
    _big("wqe_counter", 0x3C, 2),
    _big("signature", 0x3E, 1),
    _big("opcode", 0x3F, 1, 4, 4),
    _big("owner", 0x3F, 1, 0, 1),
)
_BNXT_HEADER = (
    _little("type", 0, 4, 0, 8),
    _little("flags", 0, 4, 8, 8),
    _little("slots", 0, 4, 16, 8),
)
_BNXT_DATA = (_little("laddr", 0, 8), _little("lkey", 8), _little("length", 12))
_BNXT_CQE = (
    _little("qp_handle", 0, 8),
    _little("con_indx", 8, 4, 0, 16),
    _little("phase", 24, 4, 0, 1),
    _little("type", 24, 4, 1, 4),
    _little("status", 24, 4, 8, 8),
)
_IONIC_HEADER = (
    _little("wqe_index", 0, 8),
    _big("op", 8, 1),
    _big("num_sge", 9, 1),
    _big("flags", 10, 2),
    _big("imm", 12),
)
_IONIC_ADDRESS = (_big("raddr", 16, 8), _big("rkey", 24), _big("length", 28))
_IONIC_ATOMIC = (
    _big("raddr", 16, 8),
    _big("rkey", 24),
    _big("value", 28, 8),
    _big("compare", 36, 8),
    _big("lkey", 44),
    _big("laddr", 48, 8),
)
_IONIC_DATA = (_big("laddr", 0, 8), _big("length", 8), _big("lkey", 12))
_IONIC_CQE = (
    _big("msg_msn", 4),
    _little("wqe_index", 16, 8, 0, 16),
    _big("status", 24),
    _big("qid", 28, 4, 8, 24),
    _big("type", 28, 4, 5, 3),
    _big("error", 28, 4, 1, 1),
    _big("color", 28, 4, 0, 1),
)

_MLX5_NAMES = {row[0]: name for name, row in OPS.items()} | {
    0: "NOP",
    0x14: "MASKED_CMP_SWAP",
    0x15: "MASKED_FETCH_ADD",
}
_BNXT_NAMES = {row[1]: name for name, row in OPS.items()} | {0x80: "RECV"}
_IONIC_NAMES = {row[2]: name for name, row in OPS.items()}
_IONIC_OLD_NAMES = {row[3]: name for name, row in OPS.items()}
_STATUS = {
    "mlx5": {
        0x00: "success",
        0x01: "local length error",
        0x02: "local queue pair operation error",
        0x04: "local protection error",
        0x05: "work request flushed",
        0x06: "memory window bind error",
        0x10: "bad response",
        0x11: "local access error",
        0x12: "remote invalid request",
        0x13: "remote access error",
        0x14: "remote operation error",
        0x15: "transport retry counter exceeded",
        0x16: "receiver-not-ready retry counter exceeded",
        0x22: "remote aborted",
    },
    "bnxt_re": dict(
        enumerate(
            (
                "success",
                "bad response",
                "local length error",
                "local queue pair operation error",
                "local protection error",
                "memory management operation error",
                "remote invalid request",
                "remote access error",
                "remote operation error",
                "receiver-not-ready retry counter exceeded",
                "transport retry counter exceeded",
                "work request flushed",
            )
        )
    ),
    "ionic": dict(
        enumerate(
            (
                "success",
                "local length error",
                "local queue pair operation error",
                "local protection error",
                "work request flushed",
                "memory management operation error",
                "bad response",
                "local access error",
                "remote invalid request",
                "remote access error",
                "remote operation error",
                "transport retry counter exceeded",
                "receiver-not-ready retry counter exceeded",
                "XRC domain violation",
            )
        )
    ),
}


def decode(records: Iterable[Record]) -> Iterator[Record]:
    """The same records with `fields`: what each of `wqe`, `msn`, `doorbells` and `cqe` of a record says.

    A record needs `provider` and one of these, in hex. With `op` "RECV" its entry is one of a receive queue. Raises
    ConfigError for bytes that cannot be an entry, naming the field.
    """
    return map(explain, records)


def explain(record: Record) -> Record:
    """decode() of one record."""
    family = record.get("provider")
    if family not in FAMILIES:
        raise ConfigError(f"provider={family!r}: allowed are {', '.join(FAMILIES)}")
    fields: Record = {}
    if "wqe" in record:
        fields["wqe"] = _ENTRY[family](_bytes(record, "wqe", 16), record.get("op") == "RECV", _version(record))
    if isinstance(record.get("msn"), dict):
        fields["msn"] = _msn(_bytes(record["msn"], "entry", 8))
    if "doorbells" in record:
        bells = record["doorbells"]
        if not isinstance(bells, list) or not all(isinstance(bell, dict) for bell in bells):
            raise ConfigError(f"doorbells={bells!r}: allowed is a list of objects with bytes")
        fields["doorbells"] = [_DOORBELL[family](_bytes(bell, "bytes", 8)) for bell in bells]
    if "cqe" in record:
        fields["cqe"] = _completion(family, _bytes(record, "cqe", 64 if family == "mlx5" else 32))
    if not fields and record.get("rc") in (None, 0):
        raise ConfigError("record: has neither wqe nor cqe nor doorbells")
    return {**record, "fields": fields}


def _version(record: Record) -> int:
    default = 1 if record.get("case") == "v1_opcodes" else 2
    version = record.get("version", default)
    if version not in (1, 2):
        raise ConfigError(f"version={version!r}: allowed are 1 and 2")
    return int(version)


def _bytes(record: Record, name: str, least: int) -> bytes:
    value = record.get(name)
    try:
        data = bytes.fromhex(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ConfigError(f"{name}={value!r}: allowed is hex") from None
    if len(data) < least:
        raise ConfigError(f"{name} has {len(data)} bytes, allowed are {least} and more")
    return data


def _read(fields: Iterable[Field], data: bytes, offset: int = 0) -> Record:
    return {field.name: field.at(offset).of(data) for field in fields}


def _segments(fields: tuple[Field, ...], data: bytes, start: int, end: int) -> list[Record]:
    return [_read(fields, data, at) for at in range(start, min(end, len(data) - 15), 16)]


def _mlx5_entry(data: bytes, receives: bool, _version: int) -> Record:
    if receives:
        return {"op": "RECV", "data": _segments(_MLX5_DATA, data, 0, len(data))}
    out = _read(_MLX5_CONTROL, data)
    out["op"] = _MLX5_NAMES.get(out["opcode"], "unknown")
    at, end = 16, min(out["ds"] * 16, len(data))
    if out["op"] not in ("NOP", "SEND", "SEND_IMM", "unknown") and end >= at + 16:
        out |= _read(_MLX5_ADDRESS, data, at)
        at += 16
    if out["op"] in ("CMP_SWAP", "FETCH_ADD") and end >= at + 16:
        out |= _read((_big("value", 0, 8), _big("compare", 8, 8)), data, at)
        at += 16
    elif out["op"].startswith("MASKED") and end >= at + 16:
        size = 4 if out["opmod"] == 8 else 8
        adds = out["op"] == "MASKED_FETCH_ADD"
        names = ["value", "field_boundary"] if adds else ["value", "compare", "value_mask", "compare_mask"]
        out |= _read([_big(name, i * size, size) for i, name in enumerate(names)], data, at)
        at += 32 if size * len(names) > 16 else 16
    if end > at and data[at] & 0x80:
        length = int.from_bytes(data[at : at + 4], "big") & 0x7FFFFFFF
        out["inline"] = data[at + 4 : min(at + 4 + length, end)].hex()
    else:
        out["data"] = _segments(_MLX5_DATA, data, at, end)
    return out


def _bnxt_entry(data: bytes, receives: bool, _version: int) -> Record:
    out = _read(_BNXT_HEADER, data)
    out["op"] = "RECV" if receives else _BNXT_NAMES.get(out["type"], "unknown")
    end = min(out["slots"] * 16, len(data))
    if end < 32:
        return out
    if out["op"] in ("CMP_SWAP", "FETCH_ADD"):
        names = (_little("rkey", 4), _little("raddr", 8, 8), _little("value", 16, 8), _little("compare", 24, 8))
    else:
        names = (_little("imm", 4), _little("length", 8, 8), _little("raddr", 16, 8), _little("rkey", 24))
    out |= _read(names, data)
    if out["flags"] & 0x10:
        out["inline"] = data[32 : min(32 + out.get("length", 0), end)].hex()
    else:
        out["data"] = _segments(_BNXT_DATA, data, 32, end)
    return out


def _ionic_entry(data: bytes, receives: bool, version: int) -> Record:
    out = _read(_IONIC_HEADER, data)
    names = _IONIC_NAMES if version == 2 else _IONIC_OLD_NAMES
    out["op"] = "RECV" if receives else names.get(out["op"], "unknown")
    out["color"] = out["flags"] >> 4 & 1
    if len(data) < 64:
        return out
    if out["op"] in ("CMP_SWAP", "FETCH_ADD"):
        return out | _read(_IONIC_ATOMIC if version == 2 else _IONIC_ATOMIC[:4], data)
    out |= {} if receives else _read(_IONIC_ADDRESS, data)
    if out["flags"] & 4:
        out["inline"] = data[32 : 32 + min(32, out.get("length", 0))].hex()
    else:
        out["data"] = _segments(_IONIC_DATA, data, 32, 32 + 16 * min(2, out["num_sge"]))
    return out


_ENTRY = {"mlx5": _mlx5_entry, "bnxt_re": _bnxt_entry, "ionic": _ionic_entry}


def _msn(data: bytes) -> Record:
    parts = (("start_psn", 0, 24), ("next_psn", 24, 24), ("start_slot", 48, 16))
    return _read([_little(name, 0, 8, low, width) for name, low, width in parts], data)


def _mlx5_doorbell(data: bytes) -> Record:
    return _read(_MLX5_CONTROL[1:5], data) | {"blueflame": len(data) > 8}


def _bnxt_doorbell(data: bytes) -> Record:
    parts = (("index", 0, 24), ("epoch", 24, 1), ("toggle", 25, 1), ("qid", 32, 20), ("valid", 58, 1), ("type", 60, 4))
    return _read([_little(name, 0, 8, low, width) for name, low, width in parts], data)


def _ionic_doorbell(data: bytes) -> Record:
    return _read([_little("index", 0, 8, 0, 16), _little("ring", 0, 8, 16, 8), _little("qid", 0, 8, 24, 24)], data)


_DOORBELL = {"mlx5": _mlx5_doorbell, "bnxt_re": _bnxt_doorbell, "ionic": _ionic_doorbell}


def _completion(family: str, data: bytes) -> Record:
    if family == "mlx5":
        out = _read(_MLX5_CQE, data)
        failed = out["opcode"] in (13, 14)
        out["state"] = "hardware" if out["opcode"] == 15 else "error" if failed else "done"
        status = out["syndrome"] if failed else 0
    elif family == "bnxt_re":
        out = _read(_BNXT_CQE, data)
        status = out["status"]
        out["state"] = "error" if status else "done"
    else:
        out = _read(_IONIC_CQE, data)
        status = out["status"] if out["error"] else 0
        out["state"] = "error" if out["error"] else "done"
    out["words"] = _STATUS[family].get(status, f"unknown status {status}")
    return out
