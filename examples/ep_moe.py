# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""A small mixture-of-experts layer over several ranks, compared with the same layer in one process.

    python examples/ep_moe.py                # 4 processes on this machine's CPU
    python examples/ep_moe.py --ranks 8 --experts 32 --tokens 500

Each rank holds some of the experts and a batch of tokens. The router picks two experts for each token; dispatch takes
the token to the ranks that hold them, the experts run there, and combine brings the weighted sum home.
"""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F

import mori
from mori.testing import run_ranks

HIDDEN, INNER, TOPK = 256, 512, 2


class Layer:
    """The weights of all experts and of the router, the same in every process; a rank uses its share."""

    def __init__(self, num_experts: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.router = torch.randn(HIDDEN, num_experts, generator=generator)
        self.up = torch.randn(num_experts, HIDDEN, INNER, generator=generator) / HIDDEN**0.5
        self.down = torch.randn(num_experts, INNER, HIDDEN, generator=generator) / INNER**0.5

    def route(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """For each token the ids of its experts and their weights."""
        best = (x @ self.router).topk(TOPK)
        return best.indices, best.values.softmax(dim=1)

    def expert(self, x: torch.Tensor, expert: int) -> torch.Tensor:
        return F.silu(x @ self.up[expert]) @ self.down[expert]

    def experts(self, x: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """For each row the weighted sum of the experts that `ids` names; -1 names none."""
        y = torch.zeros_like(x)
        for expert in ids.unique().tolist():
            if expert >= 0:
                row, k = (ids == expert).nonzero(as_tuple=True)
                y.index_add_(0, row, weights[row, k].unsqueeze(1) * self.expert(x[row], expert))
        return y


def rank_main(rank: int, world_size: int, uid: bytes, num_experts: int, tokens: int) -> tuple[int, float]:
    torch.set_num_threads(1)
    layer = Layer(num_experts)
    x = torch.randn(tokens, HIDDEN, generator=torch.Generator().manual_seed(1 + rank))
    with (
        mori.init(uid=uid, rank=rank, world_size=world_size, device="cpu", heap_bytes=64 << 20) as ctx,
        mori.ep.Dispatcher(
            ctx, HIDDEN, num_experts, topk=TOPK, max_tokens=tokens, dtype=torch.float32
        ) as moe,
    ):
        ids, weights = layer.route(x)
        recv = moe.dispatch(x, ids, weights)
        rows = recv.trim()  # ids of experts on other ranks are -1 here
        y = moe.combine(layer.experts(rows.x, rows.topk_ids, rows.topk_weights), recv.routing)
        return len(rows.x), float((y - layer.experts(x, ids, weights)).abs().max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--experts", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=200, help="of each rank")
    chosen = parser.parse_args()
    results = run_ranks(rank_main, chosen.ranks, chosen.experts, chosen.tokens, timeout=60)
    for rank, (rows, error) in enumerate(results):
        print(f"rank {rank}: sent {chosen.tokens} tokens, received {rows}; largest difference {error:.1e}")
        if error > 1e-4:
            raise SystemExit("the ranks together give another result than one process")
    print("verified: all ranks together give what one process gives")


if __name__ == "__main__":
    main()
