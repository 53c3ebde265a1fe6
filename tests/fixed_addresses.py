# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Starts sanitized programs without address randomisation: kernels that spread addresses more widely than the
sanitizers' runtimes expect otherwise end them before main(), now and then and often without a word.

subprocess.run([*FIXED_ADDRESSES, program, ...])
"""

from __future__ import annotations

import shutil
import subprocess


def _prefix() -> list[str]:
    setarch = shutil.which("setarch")
    if setarch is None:
        return []
    command = [setarch, "-R"]  # containers may forbid it
    allowed = subprocess.run([*command, "true"], capture_output=True, timeout=30, check=False).returncode == 0
    return command if allowed else []


FIXED_ADDRESSES = _prefix()
