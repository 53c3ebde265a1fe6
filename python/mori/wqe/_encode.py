# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Records with their bytes. What kernels post is encoded by the kernels' own code, compiled for the CPU."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mori import _core
from mori.errors import ConfigError
from mori.wqe import _forms
from mori.wqe._forms import Post

__all__ = ["FAMILIES", "Encoder", "encode"]

Record = dict[str, Any]
FAMILIES = ("mlx5", "bnxt_re", "ionic")
_DEVICE_OPS = {"WRITE": 1, "WRITE_IMM": 2, "READ": 3, "FETCH_ADD": 4, "CMP_SWAP": 5, "SEND": 8, "SEND_IMM": 9}
_UNIT = {"mlx5": 64, "bnxt_re": 16, "ionic": 64}
_STATIC_SLOTS = 8  # bnxt_re's fixed-size entries
_REFUSED = 22  # EINVAL
_BLUEFLAME = (0xC00, 0xD00)  # of the register page; successive doorbells alternate

# What the recorded cases of tests/ibgda/golden set beside the fields of their records.
_CASES: dict[str, Mapping[str, Any]] = {
    "psn_mtu_256": {"mtu": 256, "psn": 0xFFFFF0},
    "psn_mtu_1024": {"mtu": 1024, "psn": 0xFFFFF0},
    "psn_mtu_4096": {"mtu": 4096, "psn": 0xFFFFF0},
    "static_wqe": {"static": True},
    "v1_opcodes": {"version": 1},
    "no_blueflame": {"blueflame": False},
}
_FIRST_PSN = 0x200


@dataclass
class _Queue:
    """What follows from the earlier records of the same queue."""

    end: int = 0
    rings: int = 0
    packets: int | None = None
    messages: int | None = None
    received: int = 0


class Encoder:
    """One record after the other; keeps what follows from earlier records of the same queue."""

    def __init__(self) -> None:
        self._queues: dict[tuple[Any, ...], _Queue] = {}

    def __call__(self, record: Record) -> Record:
        family = record.get("provider")
        if family not in FAMILIES:
            raise ConfigError(f"provider={family!r}: allowed are {', '.join(FAMILIES)}")
        if record.get("kind", "post") != "post" or record.get("rc") not in (None, 0):
            return dict(record)
        key = (family, record.get("case"), record.get("qpn"))
        settings = {**_CASES.get(str(record.get("case")), {}), **record}
        queue = self._queues.setdefault(key, _Queue())
        if record.get("op") != "RECV" and _number(settings, "index", 64) < queue.end:
            queue = self._queues[key] = _Queue()  # counts from the beginning again: another queue
        return _encode(family, record, settings, queue)


def encode(records: Iterable[Record]) -> Iterator[Record]:
    """The same records with `wqe`, `wqe_used` (bytes of it that count), `dbrec`, `msn` and `doorbells` from the rest.

    Each needs `provider`, `op`, `qpn`, `laddr`, `lkey`, `length`, and by its op `raddr`, `rkey`, `imm`, `add`,
    `compare`, `swap`; `index` (units since the queue was made) and `ring_size`; optional: `flags`, `inline` with
    `inline_data` (hex), `nsge`, `more` (the doorbell comes with a later record), `psn`, `mtu` (bnxt_re, 512 and 4096
    if absent), `static`, `version`, `blueflame`. Records of one `provider`, `case` and `qpn` are one queue, in order,
    until `index` falls. Completions and refused requests (`rc` not 0) pass unchanged. `wqe` is zero where a driver
    would leave what the ring held before.

    Raises ConfigError naming the field and what is allowed.
    """
    encoder = Encoder()
    return (encoder(record) for record in records)


def _number(settings: Mapping[str, Any], name: str, bits: int, default: int | None = None) -> int:
    value = settings.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << bits:
        raise ConfigError(f"{name}={value!r}: allowed is a number from 0 to {(1 << bits) - 1}")
    return value


def _post(settings: Mapping[str, Any]) -> Post:
    op = settings.get("op")
    if op not in _forms.OPS and op != "RECV":
        raise ConfigError(f"op={op!r}: allowed are {', '.join(_forms.OPS)}, RECV")
    flags = settings.get("flags") or []
    unknown = sorted(set(flags) - {"SIGNALED", "FENCE", "SOLICITED", "INLINE"})
    if unknown:
        raise ConfigError(f"flags={unknown[0]!r}: allowed are SIGNALED, FENCE, SOLICITED, INLINE")
    length, local = _number(settings, "length", 31), _number(settings, "laddr", 64)
    if op in ("FETCH_ADD", "CMP_SWAP") and length != 8:
        raise ConfigError(f"length={length}: allowed is 8 for an atomic")
    count = _number(settings, "nsge", 8, 1)
    if count not in (1, 2):
        raise ConfigError(f"nsge={count}: allowed are 1 and 2")
    half = length // 2
    pieces = ((local, length),) if count == 1 else ((local, half), (local + half, length - half))
    inline = bool(settings.get("inline"))
    try:
        payload = bytes.fromhex(settings.get("inline_data", "")) if inline else b""
    except (TypeError, ValueError):
        raise ConfigError(f"inline_data={settings.get('inline_data')!r}: allowed is hex") from None
    if inline and len(payload) != length:
        raise ConfigError(f"inline_data has {len(payload)} bytes, allowed are length={length}")
    remote = op not in ("SEND", "SEND_IMM", "RECV")
    return Post(
        op=str(op),
        qpn=_number(settings, "qpn", 24),
        index=_number(settings, "index", 64),
        ring=_number(settings, "ring_size", 32, 1 << 16) or 1,
        length=length,
        pieces=pieces,
        lkey=_number(settings, "lkey", 32),
        remote=_number(settings, "raddr", 64) if remote else 0,
        rkey=_number(settings, "rkey", 32) if remote else 0,
        immediate=_number(settings, "imm", 32) if op in ("WRITE_IMM", "SEND_IMM") else 0,
        value=_number(settings, "add" if op == "FETCH_ADD" else "swap", 64, 0),
        compare=_number(settings, "compare", 64) if op == "CMP_SWAP" else 0,
        signaled="SIGNALED" in flags,
        fence="FENCE" in flags,
        solicited="SOLICITED" in flags,
        inline=inline,
        payload=payload,
    )


def _on_device(family: str, post: Post) -> bytes | None:
    """As a kernel writes it; None for a form that kernels do not post."""
    longest = {"mlx5": 28, "bnxt_re": 16, "ionic": 32}[family]
    if len(post.pieces) > 1 or post.op not in _DEVICE_OPS or (post.inline and post.length > longest):
        return None
    if family == "bnxt_re" and post.ring % 3:
        return None
    flags = post.signaled | post.fence << 1 | post.inline << 2 | post.solicited << 3
    made = _core.ibgda.encode(
        family,
        position=post.index,
        depth=post.ring,
        qpn=post.qpn,
        op=_DEVICE_OPS[post.op],
        flags=flags,
        length=post.length,
        immediate=post.immediate,
        local=post.pieces[0][0],
        remote=post.remote,
        lkey=post.lkey,
        rkey=post.rkey,
        value=post.value,
        compare=post.compare,
        value_mask=0,
        compare_mask=0,
        payload=post.payload,
        packets=0,
        mtu=4096,
    )
    return bytes(made["wqe"])


def _packets(post: Post, mtu: int) -> int:
    return 1 if post.atomic else max(1, -(-post.length // mtu))


def _encode(family: str, record: Record, settings: Mapping[str, Any], queue: _Queue) -> Record:
    post = _post(settings)
    if family == "ionic" and post.solicited and post.op in ("WRITE", "READ"):
        return {**record, "rc": _REFUSED}
    if post.op == "RECV":
        return {**record, **_receive(family, post, queue)}
    static, version = bool(settings.get("static")), _number(settings, "version", 4, 2)
    plain = None if static or version != 2 else _on_device(family, post)
    if family == "mlx5":
        used = _forms.mlx5_entry(post)
        entry = plain or used.ljust(-(-len(used) // 64) * 64, b"\0")
    elif family == "bnxt_re":
        used = _forms.bnxt_re_entry(post)
        entry = plain or used.ljust(_STATIC_SLOTS * 16 if static else 0, b"\0")
    else:
        used = _forms.ionic_entry(post, version=version)
        entry = plain or used
    out = {**record, "wqe": entry.hex(), "wqe_used": len(used)}
    queue.end = end = post.index + len(entry) // _UNIT[family]
    if family == "bnxt_re" and not static:
        out["msn"] = _msn(post, settings, queue)
    if _rings(settings):
        queue.rings += 1
        out["doorbells"] = [_doorbell(family, post, entry, end, settings, queue)]
        if family == "mlx5":
            out["dbrec"] = (bytes(6) + (end & 0xFFFF).to_bytes(2, "big")).hex()
    return out


def _rings(settings: Mapping[str, Any]) -> bool:
    """Whether the doorbell is rung with this record."""
    if "more" in settings:
        return not settings["more"]
    case, seq = settings.get("case"), settings.get("seq", 0)
    return bool({"chain": seq == 6, "wrap_chains": seq % 4 == 3}.get(str(case), True))


def _msn(post: Post, settings: Mapping[str, Any], queue: _Queue) -> Record:
    """The entry's line of the MSN table: first PSN, next PSN, first slot."""
    first, mtu = _number(settings, "psn", 24, _FIRST_PSN), _number(settings, "mtu", 16, 4096) or 4096
    if queue.packets is None:  # the first record seen: each request before it was one packet
        queue.messages = _number(settings, "wqe_number", 64, 0)
        queue.packets = first + queue.messages
    assert queue.messages is not None
    start, following = queue.packets, queue.packets + _packets(post, mtu)
    entry = start & 0xFFFFFF | (following & 0xFFFFFF) << 24 | post.index % post.ring << 48
    table = 1 << (post.ring - 1).bit_length() - 1
    out = {"index": queue.messages % table, "entry": entry.to_bytes(8, "little").hex()}
    queue.packets, queue.messages = following, queue.messages + 1
    return out


def _doorbell(family: str, post: Post, entry: bytes, end: int, settings: Mapping[str, Any], queue: _Queue) -> Record:
    if family == "mlx5":
        alone = _alone(settings)
        blueflame = settings.get("blueflame", True) and alone and entry[7] & 0x3F > 1
        data = entry if blueflame else entry[:8]
        return {"page": 0, "offset": _BLUEFLAME[(queue.rings + 1) % 2], "bytes": data.hex()}
    if family == "bnxt_re":
        unit = _STATIC_SLOTS if settings.get("static") else 1
        epoch = end // post.ring % 2
        value = end % post.ring // unit | epoch << 24 | post.qpn << 32 | 1 << 58
        return {"page": 0, "offset": 0, "bytes": value.to_bytes(8, "little").hex()}
    value = post.qpn << 24 | end % post.ring
    return {"page": 0, "offset": 40, "bytes": value.to_bytes(8, "little").hex()}


def _alone(settings: Mapping[str, Any]) -> bool:
    return not settings.get("chained", str(settings.get("case")) in ("chain", "wrap_chains"))


def _receive(family: str, post: Post, queue: _Queue) -> Record:
    number = queue.received
    queue.received += 1
    if family == "mlx5":
        dbrec = ((number + 1) & 0xFFFF).to_bytes(4, "big") + bytes(4)
        return {"wqe": _forms.mlx5_receive(post).hex(), "dbrec": dbrec.hex(), "doorbells": []}
    if family == "bnxt_re":
        value = number + 1 | post.qpn << 32 | 1 << 58 | 1 << 60
        offset, entry = 0, _forms.bnxt_re_receive(post, number)
    else:
        value = post.qpn << 24 | number + 1
        offset, entry = 48, _forms.ionic_receive(post)
    bell = {"page": 0, "offset": offset, "bytes": value.to_bytes(8, "little").hex()}
    return {"wqe": entry.hex(), "doorbells": [bell]}
