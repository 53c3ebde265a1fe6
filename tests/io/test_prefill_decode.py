# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""examples/prefill_decode.py: a model's tokens across processes of different TP sizes equal one process's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.timeout(280), pytest.mark.slow]
EXAMPLE = Path(__file__).resolve().parents[2] / "examples/prefill_decode.py"


@pytest.mark.parametrize(("prefill", "decode"), [(2, 1), (1, 2)], ids=["2-to-1", "1-to-2"])
def test_tokens_equal_those_of_one_process(prefill: int, decode: int) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers", reason="needs transformers (pip install transformers)")
    command = [sys.executable, EXAMPLE, "--prefill-tp", str(prefill), "--decode-tp", str(decode)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=270)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert "all tokens equal those of one process" in done.stdout
