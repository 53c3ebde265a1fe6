# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The network between two ranks goes away while one puts over TCP: an exception in time that names rank and address.
`pytest -m long tests/shmem/test_link_down.py`, where user namespaces may be made."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.long
@pytest.mark.timeout(120)
def test_a_link_that_goes_down_ends_the_put() -> None:
    apart = ["unshare", "-rn"]
    if shutil.which("ip") is None or subprocess.run([*apart, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no ip, or no network namespaces for this user")
    command = [*apart, sys.executable, str(Path(__file__).with_name("link_ranks.py"))]
    environment = os.environ | {"MORI_IBGDA_MOVER": "tcp"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    found = re.match(r"(\d+\.\d) .*the peer does not answer .*, rank 1 at 127\.0\.0\.1 port \d+: ", done.stdout)
    assert found is not None, done.stdout
    assert 2 < float(found[1]) < 60
