# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The engine with everything going on at once, under ThreadSanitizer and AddressSanitizer: nothing is reported."""

from __future__ import annotations

import subprocess

import pytest
from net_programs import build, compiler

pytestmark = [pytest.mark.timeout(400), pytest.mark.slow]


@pytest.mark.parametrize("sanitizer", ["thread", "address"])
def test_engine_is_clean(sanitizer: str) -> None:
    if compiler() is None:
        pytest.skip("no g++ to build the sanitized program with")
    program = build("engine_main", sanitizer)
    for prefix in ([], ["setarch", "-R"]):  # some kernels spread addresses more widely than the sanitizer expects
        done = subprocess.run([*prefix, program], capture_output=True, text=True, timeout=150, check=False)
        if "unexpected memory mapping" not in done.stderr:
            break
    output = done.stdout + done.stderr
    assert done.returncode == 0 and "wrong 0" in output, output[-6000:]
    assert "Sanitizer" not in output, output[-6000:]
