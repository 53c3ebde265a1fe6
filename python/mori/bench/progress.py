# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""How far a run is, told by rank 0 to whoever draws the bar.

The ranks may be processes, threads or torchrun's own, so the word travels through a small mapped file: rank 0
writes into it (a few stores, nothing that could disturb a measurement), the drawing thread looks at it ten
times a second.
"""

from __future__ import annotations

import contextlib
import mmap
import struct
import tempfile
import threading
from collections.abc import Iterator
from typing import Any

__all__ = ["PHASES", "Pulse", "draw"]

PHASES = (
    "starting ranks", "verifying", "dispatch and combine", "back to back", "round trip", "transfers", "cases",
    "peers", "done",
)  # fmt: skip
_FIELDS = struct.Struct("<III")  # phase, steps done, steps to do


class Pulse:
    """Rank 0's end. With an empty path it says nothing."""

    def __init__(self, path: str) -> None:
        self._view: mmap.mmap | None = None
        self._state = [0, 0, 1]
        if path:
            with open(path, "r+b") as file:
                self._view = mmap.mmap(file.fileno(), _FIELDS.size)

    def phase(self, name: str, steps: int = 1) -> None:
        self._state = [PHASES.index(name), 0, max(1, steps)]
        self._write()

    def step(self) -> None:
        self._state[1] += 1
        self._write()

    def _write(self) -> None:
        if self._view is not None:
            _FIELDS.pack_into(self._view, 0, *self._state)


@contextlib.contextmanager
def draw(console: Any) -> Iterator[str]:
    """Shows a bar while the block runs (if `console` is a terminal) and gives the path for Pulse."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    with tempfile.NamedTemporaryFile(prefix="mori-bench-") as file:
        file.truncate(_FIELDS.size)
        columns = (TextColumn("{task.description:<22}"), BarColumn(), TimeElapsedColumn())
        stop = threading.Event()
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task(PHASES[0], total=1)

            def follow() -> None:
                with open(file.name, "rb") as view:
                    while not stop.wait(0.1):
                        view.seek(0)
                        phase, done, total = _FIELDS.unpack(view.read(_FIELDS.size))
                        name = PHASES[min(phase, len(PHASES) - 1)]
                        bar.update(task, description=name, completed=done, total=max(total, 1))

            thread = threading.Thread(target=follow, daemon=True)
            thread.start()
            try:
                yield file.name
            finally:
                stop.set()
                thread.join()
