# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Measurements with their limit and their peers beside them, verified in every run: what `mori bench` calls.

    from mori.bench import EpSettings, run_ep
    report = run_ep(EpSettings(ranks=4, tokens=128))
    print(report.rows[0].median_us, report.rows[0].ratio)

What is counted and how it is timed: docs/benchmark.md.
"""

from __future__ import annotations

from .ccl_run import run_ccl
from .ccl_settings import CclSettings
from .io_run import run_io
from .io_settings import IoSettings
from .launch import run_ep
from .report import Report, Row
from .settings import EpSettings
from .shmem_run import run_shmem
from .shmem_settings import ShmemSettings

__all__ = [
    "CclSettings",
    "EpSettings",
    "IoSettings",
    "Report",
    "Row",
    "ShmemSettings",
    "run_ccl",
    "run_ep",
    "run_io",
    "run_shmem",
]
