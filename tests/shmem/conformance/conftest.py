# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The suite runs on what tests/shmem/conftest.py offers: fast CPU, lanes of 32 and 64, GPUs. The fast CPU goes through
all types, the others, where compilers take longer, through one of every size and kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from shmem_cases import Suite
from shmem_ranks import Ranks, Target


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--headers", default=None, help="a folder with another src/ to compile the kernels with")


@pytest.fixture
def all_types(target: Target) -> bool:
    return target.kind == "cpu" and target.lanes == 1


@pytest.fixture
def make_suite(
    request: pytest.FixtureRequest, make_ranks: Callable[..., Ranks], all_types: bool
) -> Iterator[Callable[..., Suite]]:
    """make_suite(size, family, room=..., few=..., flags=..., ...) on the target."""
    made: list[Suite] = []
    headers = request.config.getoption("--headers", None)

    def make(size: int, family: str, *, few: bool = False, flags: Any = (), seed: int = 1, **options: Any) -> Suite:
        ranks = make_ranks(size, **options)
        if headers:  # quoted includes look there first
            flags = ("-iquote", headers, *flags)
        made.append(Suite(ranks, family, all_types=all_types and not few, flags=flags, seed=seed))
        return made[-1]

    yield make
    for suite in made:
        suite.close()
