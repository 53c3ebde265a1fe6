# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The memory of one process of `mori bench io`: what lies in it, and whether what arrived is right.

The source holds random words. Before each transfer the first word of each 4 KiB of its blocks, and their last word,
are replaced by values that no other transfer has; after it the receiver looks for them, so a transfer that did nothing,
or moved another one's bytes, cannot pass. The first and the last transfer of each case are compared whole, and the
first one's surroundings must be as they were.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .io_settings import Blocks, IoCase
from .verify import Mismatch

__all__ = ["GpuMemory", "Memory", "check", "check_all", "clear_landing", "fill_source", "stamp"]

_UNTOUCHED = 0xEE
_PAGE_WORDS = 512
_TILE_WORDS = 524_287  # prime, so that no two blocks hold the same words
_MIX = np.uint64(0x9E3779B97F4A7C15)

Words = NDArray[np.uint64]


class Memory:
    """Host memory. `owner` is whatever must live as long."""

    device = -1

    def __init__(self, array: NDArray[np.uint8], owner: Any = None) -> None:
        self.array, self._owner = array, owner
        self.words: Words = array.view(np.uint64)

    @property
    def address(self) -> int:
        return int(self.array.ctypes.data)

    @property
    def nbytes(self) -> int:
        return int(self.array.nbytes)

    def fill(self, value: int, nbytes: int) -> None:
        self.array[:nbytes] = value

    def put(self, first: int, words: Words) -> None:
        self.words[first : first + len(words)] = words

    def get(self, first: int, count: int) -> Words:
        return self.words[first : first + count]

    def scatter(self, indices: Words, values: Words) -> None:
        self.words[indices] = values

    def gather(self, indices: Words) -> Words:
        return np.asarray(self.words[indices])


class GpuMemory(Memory):
    """Memory of GPU `device`, allocated by torch."""

    def __init__(self, nbytes: int, device: int) -> None:
        import torch

        self._torch = torch
        self.device = device
        self.tensor = torch.empty(nbytes, dtype=torch.uint8, device=f"cuda:{device}")
        self._words = self.tensor.view(torch.int64)

    @property
    def address(self) -> int:
        return int(self.tensor.data_ptr())

    @property
    def nbytes(self) -> int:
        return int(self.tensor.numel())

    def _there(self, words: Words) -> Any:
        return self._torch.from_numpy(words.view(np.int64)).to(self.tensor.device)

    def fill(self, value: int, nbytes: int) -> None:
        self.tensor[:nbytes].fill_(value)
        self._torch.cuda.synchronize(self.device)

    def put(self, first: int, words: Words) -> None:
        self._words[first : first + len(words)] = self._there(words)
        self._torch.cuda.synchronize(self.device)

    def get(self, first: int, count: int) -> Words:
        return np.asarray(self._words[first : first + count].cpu().numpy().view(np.uint64))

    def scatter(self, indices: Words, values: Words) -> None:
        self._words[self._there(indices)] = self._there(values)
        self._torch.cuda.synchronize(self.device)

    def gather(self, indices: Words) -> Words:
        return np.asarray(self._words[self._there(indices)].cpu().numpy().view(np.uint64))


def _tile(seed: int, words: int) -> Words:
    tile = np.random.default_rng(seed).integers(0, 1 << 63, _TILE_WORDS, np.uint64)
    return np.resize(tile, _TILE_WORDS + words)


def fill_source(memory: Memory, nbytes: int, seed: int) -> None:
    words, tile = nbytes // 8, _tile(seed, 0)
    for at in range(0, words, _TILE_WORDS):
        memory.put(at, tile[: min(_TILE_WORDS, words - at)])


def _marked(case: IoCase) -> Words:
    """Words of a block that differ from transfer to transfer."""
    last = case.block_bytes // 8 - 1
    return np.unique(np.append(np.arange(0, last + 1, _PAGE_WORDS, dtype=np.uint64), np.uint64(last)))


def _indices(case: IoCase, offsets: Words) -> Words:
    return np.asarray((offsets[:, None] // np.uint64(8) + _marked(case)[None, :]).reshape(-1))


def _values(case: IoCase, blocks: Blocks, serial: int) -> Words:
    place = _indices(case, blocks.source(case.op))
    return np.asarray((place ^ (np.uint64(serial) << np.uint64(36))) * _MIX)


def stamp(memory: Memory, case: IoCase, blocks: Blocks, serial: int) -> None:
    """Makes the source blocks those of transfer `serial`."""
    memory.scatter(_indices(case, blocks.source(case.op)), _values(case, blocks, serial))


def check(memory: Memory, case: IoCase, blocks: Blocks, serial: int) -> None:
    """Raises Mismatch unless the blocks of transfer `serial` have landed."""
    got, want = memory.gather(_indices(case, blocks.landing(case.op))), _values(case, blocks, serial)
    wrong = np.flatnonzero(got != want)
    if len(wrong):
        marks = _marked(case)
        block, mark = divmod(int(wrong[0]), len(marks))
        _refuse(case, blocks, block, int(marks[mark]) * 8, int(got[wrong[0]]), int(want[wrong[0]]), len(wrong))


def check_all(memory: Memory, case: IoCase, turn: list[Blocks], first_serial: int, seed: int, fresh: bool) -> None:
    """Compares every byte of the blocks, and with `fresh` that nothing else was written."""
    length = case.block_bytes // 8
    tile, marks = _tile(seed, length), _marked(case)
    hit = np.zeros(case.pool_blocks, bool)
    for index, blocks in enumerate(turn):
        values = _values(case, blocks, first_serial + index).reshape(case.batch, -1)
        sources, landings = blocks.source(case.op) // np.uint64(8), blocks.landing(case.op) // np.uint64(8)
        hit[(blocks.landing(case.op) // np.uint64(case.block_bytes)).astype(np.int64)] = True
        for block in range(case.batch):
            at = int(sources[block]) % _TILE_WORDS
            want = tile[at : at + length].copy()
            want[marks] = values[block]
            got = memory.get(int(landings[block]), length)
            if not np.array_equal(got, want):
                wrong = np.flatnonzero(got != want)
                first = int(wrong[0])
                _refuse(case, blocks, block, first * 8, int(got[first]), int(want[first]), len(wrong))
    if fresh:
        quiet = np.uint64(int.from_bytes(bytes([_UNTOUCHED]) * 8, "little"))
        for block in np.flatnonzero(~hit).tolist():
            if (memory.get(block * length, length) != quiet).any():
                raise Mismatch(f"{_name(case)}: block {block}, which no transfer wrote to, was written")


def clear_landing(memory: Memory, nbytes: int) -> None:
    memory.fill(_UNTOUCHED, nbytes)


def _name(case: IoCase) -> str:
    return f"{case.op} of {case.batch} x {case.block_bytes} bytes"


def _refuse(case: IoCase, blocks: Blocks, block: int, offset: int, got: int, want: int, count: int) -> None:
    raise Mismatch(
        f"{_name(case)}: block {block} (local offset {int(blocks.local[block])}, remote offset "
        f"{int(blocks.remote[block])}): the word at byte {offset} is {got:#018x}, expected {want:#018x}; "
        f"{count} such words"
    )
