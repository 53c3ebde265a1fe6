# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Rows of every type arrive with their bits, scales of any width beside them; combine rounds as the reference does,
special values included."""

from __future__ import annotations

import pytest
import torch
from ep_cases import Case, check, table

pytestmark = pytest.mark.timeout(120)

HAS_FP4 = hasattr(torch, "float4_e2m1fn_x2")
CASES = table(
    Case("bf16"),
    Case("fp16", dtype="float16"),
    Case("fp32", dtype="float32"),
    Case("fp8-e4m3fn", dtype="float8_e4m3fn"),
    Case("fp8-e4m3fnuz", dtype="float8_e4m3fnuz", combine_dtype="float32"),
    Case("fp4-as-uint8", dtype="uint8", hidden=32),
    *([Case("fp4", dtype="float4_e2m1fn_x2", hidden=64, combine_dtype="float16")] if HAS_FP4 else []),
    Case("fp8-fp32-scales-per-128", dtype="float8_e4m3fn", hidden=512, scales=(4, "float32")),
    Case("fp8-56-fp32-scales", dtype="float8_e4m3fn", hidden=7168, scales=(56, "float32"), tokens=(3, 1)),
    Case("fp8-3-fp32-scales", dtype="float8_e4m3fn", hidden=384, scales=(3, "float32")),
    Case("fp4-e8m0-scales-per-32", dtype="uint8", hidden=1024, scales=(32, "uint8")),
    Case("fp4-17-e8m0-scales", dtype="uint8", hidden=544, scales=(17, "uint8"), topk=3),
    Case("one-byte-of-scales", dtype="float8_e4m3fn", scales=(1, "float8_e8m0fnu"), tokens=(7, 0, 2)),
    Case("bf16-scales", scales=(5, "bfloat16")),
    Case("scales-without-weights", scales=(3, "float32"), weights=False),
    Case("combine-fp16-from-bf16", combine_dtype="float16"),
    Case("combine-fp32-from-bf16", combine_dtype="float32"),
    Case("combine-bf16-in-fp32-buffers", combine_dtype="float32", rows="bfloat16"),
    Case("combine-fp16-in-bf16-buffers", rows="float16"),
    *[
        Case(f"{short}-{what}", dtype=dtype, topk=4, hidden=64, **options)
        for short, dtype in (("bf16", "bfloat16"), ("fp16", "float16"), ("fp32", "float32"))
        for what, options in (
            ("weighted", {"apply_weights": True}),
            ("weighted-int64-ids", {"apply_weights": True, "ids": "int64"}),
            ("bias", {"bias": True}),
            ("weighted-bias-out", {"apply_weights": True, "bias": True, "out": True}),
            ("bias-where-nothing-went", {"bias": True, "routing": "sparse", "out": True}),
            ("special-values", {"special": True, "rounds": 4}),
            ("special-values-weighted", {"special": True, "apply_weights": True}),
        )
    ],
)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("world_size", [1, 3, 8], ids="{}ranks".format)
def test_processes(world_size: int, name: str) -> None:
    check(CASES, name, world_size)


@pytest.mark.parametrize("name", CASES)
def test_threads(name: str) -> None:
    check(CASES, name, 4, mode="thread")
