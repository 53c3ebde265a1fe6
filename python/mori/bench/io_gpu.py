# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The limit of GPU memory in `mori bench io`: a copy engine moves as many contiguous bytes between the same two kinds
of memory, timed by events in its stream, so that neither the call nor the waiting counts."""

from __future__ import annotations

from typing import Any

from .io_contenders import Contender, Step, touched
from .io_memory import Memory
from .io_settings import Blocks

__all__ = ["CopyEngine"]


class CopyEngine(Contender):
    name, path = "limit", "copy engine"
    verifies = False  # it moves nothing of the target's

    def allocate(self, nbytes: int) -> Memory:
        return touched(4096)

    def serve(self, memory: Memory) -> bytes:
        return str(self.gpu).encode()

    def connect(self, memory: Memory, words: bytes) -> bytes:
        import torch

        self._torch = torch
        here, there = self.settings.memories
        most = max(case.bytes for case in self.settings.cases())
        self._mine = self._place(here, self.gpu, most)
        self._theirs = self._place(there, int(words), most)
        # torch copies between host and GPU in a stream of that GPU, whichever is current
        self._device = int(words) if here == "host" else self.gpu
        stream: Any = torch.cuda.Stream
        self._stream = stream(device=self._device)
        return b""

    def _place(self, where: str, gpu: int, nbytes: int) -> Any:
        if where == "gpu":
            return self._torch.zeros(nbytes, dtype=self._torch.uint8, device=f"cuda:{gpu}")
        return self._torch.zeros(nbytes, dtype=self._torch.uint8).pin_memory()

    def prepare(self, op: str, blocks: Blocks) -> Step:
        torch, nbytes = self._torch, int(blocks.sizes.sum())
        mine, theirs = self._mine[:nbytes], self._theirs[:nbytes]
        target, source = (theirs, mine) if op == "write" else (mine, theirs)
        event: Any = torch.cuda.Event

        def step() -> int:
            with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
                before, after = event(enable_timing=True), event(enable_timing=True)
                before.record()
                target.copy_(source, non_blocking=True)
                after.record()
                after.synchronize()
            return round(float(before.elapsed_time(after)) * 1e6)

        return step
