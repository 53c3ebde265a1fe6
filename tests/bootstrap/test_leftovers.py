# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""After the worst crash nothing is left: no file, no socket, no process."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from boot_helpers import join, memfd
from mori.testing import run_ranks

pytestmark = pytest.mark.timeout(60)


def crash_work(rank, world_size, uid, folder):
    tempfile.tempdir = folder
    mesh = join(rank, world_size, uid)
    mesh.watch(lambda peer: None)
    messages = mesh.exchange("x", b"", [memfd("x")])
    mine = {os.readlink(fd) for fd in list(Path("/proc/self/fd").iterdir()) if fd.is_symlink()}
    table = [line.split() for line in Path("/proc/net/unix").read_text().splitlines() if "@mori" in line]
    names = [name for *_, inode, name in table if f"socket:[{inode}]" in mine]
    Path(folder, f"{rank}.pid").write_text(f"{os.getpid()} {len(messages)} {' '.join(names)}")
    mesh.barrier()
    if rank < 3:
        os.kill(os.getpid(), signal.SIGKILL)
    while mesh.lost() != {0, 1, 2}:
        time.sleep(0.01)


def test_nothing_outlives_a_crash(tmp_path):
    shm = set(os.listdir("/dev/shm"))
    run_ranks(crash_work, 4, str(tmp_path), expendable=range(3), timeout=20)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0.pid", "1.pid", "2.pid", "3.pid"]
    assert {name for name in os.listdir("/dev/shm") if "mori" in name} <= shm
    words = [p.read_text().split() for p in tmp_path.iterdir()]
    assert any(names for _, _, *names in words)
    sockets = Path("/proc/net/unix").read_text()
    for pid, _, *names in words:
        assert not Path(f"/proc/{pid}").exists()
        assert not any(name in sockets for name in names)


def test_an_exit_without_close_is_silent_and_quick():
    code = (
        "from mori.testing import run_ranks\n"
        "from mori.bootstrap import rendezvous\n"
        "from mori.mesh import Mesh\n"
        "kept = []\n"
        "def work(rank, size, uid):\n"
        "    mesh = Mesh.connect(rendezvous(uid=uid, rank=rank, world_size=size, timeout=10), timeout=10)\n"
        "    mesh.watch(lambda peer: None)\n"
        "    kept.append(mesh)\n"
        "run_ranks(work, 3, mode='thread')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
