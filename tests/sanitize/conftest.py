# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Builds of the CPU device under each sanitizer, made once for a test session."""

from __future__ import annotations

from pathlib import Path

import pytest
from sanitized import Sanitized, compiler


@pytest.fixture(scope="session")
def builds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if compiler() is None:
        pytest.skip("no g++ to build the sanitized programs with")
    return tmp_path_factory.mktemp("sanitize")


@pytest.fixture(scope="session")
def threads_build(builds: Path) -> Sanitized:
    return Sanitized("thread", builds)


@pytest.fixture(scope="session")
def addresses_build(builds: Path) -> Sanitized:
    return Sanitized("address", builds)
