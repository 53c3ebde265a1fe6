# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The engine with everything going on at once, under ThreadSanitizer and AddressSanitizer: nothing is reported."""

from __future__ import annotations

import subprocess

import pytest
from fixed_addresses import FIXED_ADDRESSES
from net_programs import build, compiler

pytestmark = [pytest.mark.timeout(400), pytest.mark.slow]


@pytest.mark.parametrize("sanitizer", ["thread", "address"])
def test_engine_is_clean(sanitizer: str) -> None:
    if compiler() is None:
        pytest.skip("no g++ to build the sanitized program with")
    program = build("engine_main", sanitizer)
    done = subprocess.run([*FIXED_ADDRESSES, program], capture_output=True, text=True, timeout=150, check=False)
    output = done.stdout + done.stderr
    assert done.returncode == 0 and "wrong 0" in output, output[-6000:]
    assert "Sanitizer" not in output, output[-6000:]
