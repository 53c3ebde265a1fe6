# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""What AMD's code objects say of their kernels: the driver cannot be asked for the size of an argument struct.

The metadata is a MessagePack map in a note of the ELF file (LLVM's "User Guide for AMDGPU Backend", code object v3
and later).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import msgspec

__all__ = ["argument_bytes"]

_NOTE_SEGMENT, _METADATA = 4, 32


def argument_bytes(image: bytes) -> dict[str, int]:
    """Bytes of the explicit arguments of each kernel; empty for anything that is not such a code object."""
    try:
        for kind, description in _notes(image):
            if kind == _METADATA:
                kernels = msgspec.msgpack.decode(description)["amdhsa.kernels"]
                return {kernel[".name"]: _explicit(kernel.get(".args", ())) for kernel in kernels}
    except (struct.error, KeyError, TypeError, AttributeError, msgspec.DecodeError):
        pass
    return {}


def _explicit(arguments: list[dict[str, int | str]]) -> int:
    sizes = [int(a[".size"]) for a in arguments if not str(a[".value_kind"]).startswith("hidden_")]
    return sum(sizes)


def _notes(image: bytes) -> Iterator[tuple[int, bytes]]:
    if image[:6] != b"\x7fELF\x02\x01":
        return
    (table,) = struct.unpack_from("<Q", image, 32)
    entry, count = struct.unpack_from("<HH", image, 54)
    for i in range(count):
        kind, _, offset, _, _, size = struct.unpack_from("<IIQQQQ", image, table + i * entry)
        end = offset + size
        while kind == _NOTE_SEGMENT and offset + 12 <= end:
            name_size, text_size, note = struct.unpack_from("<III", image, offset)
            name = offset + 12
            text = name + (name_size + 3) // 4 * 4
            if image[name : name + 6] == b"AMDGPU":
                yield note, image[text : text + text_size]
            offset = text + (text_size + 3) // 4 * 4
