# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Crews of ranks, started once: `crew3` for most tests, `crews(n)` for any number."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from ep_crew import Crew


@pytest.fixture(scope="session")
def crews() -> Iterator[Callable[[int], Crew]]:
    started: dict[int, Crew] = {}

    def of(world_size: int) -> Crew:
        crew = started.get(world_size)
        if crew is None or crew.broken:
            if crew is not None:
                crew.close()
            started[world_size] = crew = Crew(world_size, timeout=10.0)
        return crew

    yield of
    for crew in started.values():
        crew.close()


@pytest.fixture
def crew3(crews: Callable[[int], Crew]) -> Crew:
    return crews(3)
