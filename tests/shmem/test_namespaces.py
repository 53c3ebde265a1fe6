# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Two network namespaces as two hosts: SHMEM through the TCP mover, and the cable that is pulled in the middle of a
put. Skips itself where user namespaces may not be made."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.timeout(120)
def test_two_hosts_and_a_cable() -> None:
    apart = ["unshare", "-rn"]
    probe = [*apart, "ip", "link", "add", "cable0", "type", "veth", "peer", "name", "cable1"]
    if shutil.which("ip") is None or subprocess.run(probe, capture_output=True, check=False).returncode != 0:
        pytest.skip("no ip, or no network namespaces or cables for this user")
    command = [*apart, sys.executable, str(Path(__file__).with_name("namespace_ranks.py"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = re.match(r"(\d+\.\d) (TransportError|PeerLost) (.*)", done.stdout)
    assert found is not None, done.stdout
    assert 1 < float(found[1]) < 60
    assert "rank 1" in found[3]
    if found[2] == "TransportError":
        assert re.search(r"the peer does not answer .*, rank 1 at 10\.77\.0\.2 port \d+: ", found[3]), found[3]
