# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The reference of narrowing: every value goes to the nearest of the narrow type's values, ties to even, saturated;
scales are exact; what comes back is as near as the type allows."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mori.ep import Quantize, reference
from mori.ep._recipe import ELEMENTS, RECIPES, recipe_of
from mori.errors import ConfigError

pytestmark = pytest.mark.timeout(60)

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


def levels(element: str) -> list[float]:
    """The magnitudes that an element can have, in order of their codes."""
    if element == "e2m1":
        return [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
    bias = 7 if element == "e4m3fn" else 8
    limit = ELEMENTS[element].limit
    found = []
    for code in range(128):
        exponent, mantissa = code >> 3, code & 7
        value = math.ldexp(8 + mantissa, exponent - bias - 3) if exponent else math.ldexp(mantissa, 1 - bias - 3)
        if value <= limit:
            found.append(value)
    return found


def nearest(value: float, element: str) -> int:
    """Code of the level that a value rounds to, by search."""
    known = levels(element)
    magnitude = min(abs(value), known[-1])
    return min(range(len(known)), key=lambda code: (abs(known[code] - magnitude), code % 2))


def codes(rows: torch.Tensor, element: str) -> list[int]:
    raw = rows.view(torch.uint8).flatten().tolist()
    return raw if element != "e2m1" else [half for byte in raw for half in (byte & 15, byte >> 4)]


@pytest.mark.parametrize("element", ELEMENTS)
@given(values=st.lists(finite, min_size=4, max_size=4))
@settings(max_examples=150, deadline=None, derandomize=True, database=None)
def test_each_element_goes_to_the_nearest_level(element: str, values: list[float]) -> None:
    recipe = Quantize(element, group=32 if element == "e2m1" else 0, scale="ue8m0")
    x = torch.tensor([values])
    rows, scales = reference.quantize(x, recipe)
    inverse = math.ldexp(1.0, 127 - int(scales[0, 0]))
    sign = 8 if element == "e2m1" else 128
    for code, value in zip(codes(rows, element), values, strict=True):
        wanted = nearest(float(torch.tensor(value * inverse)), element)
        assert code & (sign - 1) == wanted, (value, inverse)
        if element == "e4m3fnuz" and wanted == 0:
            assert code == 0  # its negative zero is NaN
        else:
            assert bool(code & sign) == (math.copysign(1, value) < 0)


@given(values=st.lists(finite, min_size=1, max_size=300), recipe=st.sampled_from(list(RECIPES.values())))
@settings(max_examples=150, deadline=None, derandomize=True, database=None)
def test_what_comes_back_is_within_the_type_s_bound(values: list[float], recipe: Quantize) -> None:
    values += [0.0] * (len(values) % 2)
    x = torch.tensor([values])
    rows, scales = reference.quantize(x, recipe)
    assert scales.shape == (1, recipe.columns(len(values))) and scales.dtype == recipe.scale_dtype
    back = reference.dequantize(rows, scales, recipe).double()
    group = recipe.group or len(values)
    for start in range(0, len(values), group):
        part, got = x[0, start : start + group].double(), back[0, start : start + group]
        amax = max(float(part.abs().max()), 2.0**-100)
        limit = ELEMENTS[recipe.element].limit
        step = 2.0 if recipe.scale == "ue8m0" else 1.0
        # Half a unit of the widest binade, whose spacing is limit / 14 (e4m3), or limit / 3 (e2m1); and fp32's own.
        half = amax * step / (6 if recipe.element == "e2m1" else 28) * (1 + 1e-5) + 1e-44
        assert float((part - got).abs().max()) <= half
        assert float(got.abs().max()) <= amax * step * (1 + 1e-6)
        assert limit > 0


@pytest.mark.parametrize("recipe", RECIPES)
def test_zeros_stay_zeros(recipe: str) -> None:
    rows, scales = reference.quantize(torch.zeros(3, 256), RECIPES[recipe])
    assert not rows.view(torch.uint8).any()
    assert (reference.dequantize(rows, scales, RECIPES[recipe]) == 0).all()
    assert torch.isfinite(scales.float()).all()


def test_scales_by_hand() -> None:
    x = torch.zeros(1, 256)
    x[0, 0], x[0, 130] = -7.0, 448.0
    _, scales = reference.quantize(x, Quantize())
    assert scales.tolist() == [[7.0 / 448.0, 1.0]]
    _, scales = reference.quantize(x, Quantize(scale="ue8m0"))
    assert scales.tolist() == [[127 - 6, 127]]  # 7/448 is 2^-6 exactly
    x[0, 0] = 7.0625
    _, scales = reference.quantize(x, Quantize(scale="ue8m0"))
    assert scales.tolist() == [[127 - 5, 127]]  # a little more: the next power
    _, scales = reference.quantize(x, Quantize(group=0))
    assert scales.tolist() == [[1.0]]


def test_a_row_that_does_not_fill_its_last_group() -> None:
    x = torch.arange(1.0, 161.0).view(1, 160)
    rows, scales = reference.quantize(x, Quantize())
    assert rows.shape == (1, 160) and scales.shape == (1, 2)
    assert scales[0, 1].item() == torch.tensor(160.0).div(448).item()


@pytest.mark.parametrize("element", ["e4m3fn", "e4m3fnuz"])
def test_nan_and_infinity_touch_only_their_group(element: str) -> None:
    x = torch.ones(1, 384)
    x[0, 3], x[0, 130] = float("nan"), float("inf")
    rows, scales = reference.quantize(x, Quantize(element))
    wide = rows.float()[0]
    assert wide[3].isnan() and wide[130].isnan() and int(wide.isnan().sum()) == 2
    assert (wide[:3] == ELEMENTS[element].limit).all() and (wide[256:] == ELEMENTS[element].limit).all()
    assert scales[0, 1] == float("inf") and (wide[131:256] == 0).all()


@pytest.mark.parametrize("wire", [None, "fp8", "fp8_block"])
def test_returned_rows_on_the_wire(wire: str | None) -> None:
    rows = torch.randn(5, 256, generator=torch.Generator().manual_seed(1)) * 3
    rows[0, 0] = 1e6
    got = reference.wire_values(rows, wire)
    assert got.shape == rows.shape
    error = (got - rows).abs()[1:] / rows.abs()[1:].amax()
    assert float(error.max()) < {None: 1e-9, "fp8": 0.07, "fp8_block": 0.04}[wire]
    if wire == "fp8":
        assert got[0, 0] == 448  # saturated, not NaN
    with pytest.raises(ConfigError, match="wire='bf8'"):
        reference.wire_values(rows, "bf8")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"element": "e5m2"}, "element='e5m2'"),
        ({"group": 64}, "group=64"),
        ({"group": True}, "group=True"),
        ({"scale": "bf16"}, "scale='bf16'"),
        ({"group": 32}, "group=32"),
        ({"element": "e2m1", "scale": "ue8m0"}, "group=128"),
        ({"element": "e2m1", "group": 32}, "scale='float32'"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_refused_recipes(options: dict[str, object], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        Quantize(**options)  # type: ignore[arg-type]


def test_recipes_by_name() -> None:
    assert recipe_of("fp8") == Quantize() and recipe_of(None) is None
    assert recipe_of(Quantize(group=0)) == RECIPES["fp8_token"]
    with pytest.raises(ConfigError, match="quantize='int8' is not one of fp8"):
        recipe_of("int8")
    assert Quantize().columns(7168) == 56 and Quantize(group=0).columns(7168) == 1
