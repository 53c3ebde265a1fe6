# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Short windows: what is tested is what the bench finds, not how long a call takes."""

from __future__ import annotations

import pytest
from mori.bench import clock


@pytest.fixture(autouse=True)
def short_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "STEADY", 3)
