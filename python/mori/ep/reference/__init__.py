# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""What dispatch and combine mean, in plain torch on the CPU: the specification that tests compare with, bit for bit.

    sent = [Tokens(x, topk_ids, topk_weights) for each rank]
    expected = dispatch(sent, rank, expert_map)                     # what this rank must receive
    y = combine(sent, rank, expert_map, returned)                   # returned[d]: the rows that rank d gives back

    placed = arrange(expected, local_experts(expert_map, rank), layout="grouped", align=128)
    returned[rank] = gather_rows(placed, outputs)                   # the local copies of a row, summed

Nothing here is fast, and nothing is shared with the kernels. docs/ep.md says the same in words.
"""

from mori.ep.reference._compare import as_bits, first_difference
from mori.ep.reference._layouts import Arranged, arrange, gather_rows
from mori.ep.reference._quantize import dequantize, quantize, wire_values
from mori.ep.reference._rank import (
    Expected,
    ExpertMap,
    Tokens,
    combine,
    counts,
    dispatch,
    holders,
    local_experts,
    slots,
    visits,
)

__all__ = [
    "Arranged",
    "Expected",
    "ExpertMap",
    "Tokens",
    "arrange",
    "as_bits",
    "combine",
    "counts",
    "dequantize",
    "dispatch",
    "first_difference",
    "gather_rows",
    "holders",
    "local_experts",
    "quantize",
    "slots",
    "visits",
    "wire_values",
]
