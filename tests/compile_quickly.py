# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""How tests compile kernels of their own."""

from __future__ import annotations

from typing import Any


def quick(device: Any) -> list[str]:
    """Flags that compile fast: the tests run for less time than their kernels compile."""
    if device.kind == "cuda":
        return ["-Xcicc", "-O1", "-Xptxas", "-O1"]
    if device.kind != "cpu":
        return []
    return ["-O1"] if device.properties.warp_size == 1 else ["-O0"]
