# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Registering files: what is refused and in which words, what is created, and files of other processes."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import backend_lab as b
import numpy as np
import pytest

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def lab() -> b.Lab:
    return b.Lab.file()


def test_a_file_is_created_enlarged_and_closed_on_exec(tmp_path: Path) -> None:
    for size in (5000, 9000, 100):
        file = b.File(tmp_path / "data", size)
        assert file.size == size and os.path.getsize(file.path) >= size
        assert not os.get_inheritable(file.fd)
        file.close()
    assert os.path.getsize(tmp_path / "data") == 9000  # never cut
    assert b.File(tmp_path / "data").size == 9000


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("", {}, "not a file's name"),
        ("missing", {}, "No such file"),
        ("missing", {"size": 100, "writable": False}, "No such file"),
        ("missing/data", {"size": 100}, "No such file"),
        (".", {}, "Is a directory|must be a regular file"),
        ("fifo", {}, "must be a regular file"),
        ("empty", {}, "is empty"),
        ("small", {"size": 11, "writable": False}, "has 10 bytes, fewer than bytes=11"),
        ("small", {"size": 0}, "bytes=0 must be positive"),
        ("small", {"size": 1 << 62}, "no room for"),
    ],
    ids=lambda value: str(value).replace(" ", "_")[:24],
)
def test_refusals_name_the_file_and_the_reason(
    tmp_path: Path, name: str, arguments: dict[str, object], words: str
) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "small").write_bytes(bytes(10))
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ValueError, match=words):
        b.File(tmp_path / name if name else "", **arguments)  # type: ignore[arg-type]


def test_the_descriptor_carries_the_wishes(tmp_path: Path) -> None:
    for direct, durable in ((False, False), (False, True), (None, False)):
        file = b.File(tmp_path / "data", 4096, direct=direct, durable=durable)
        flags = fcntl.fcntl(file.fd, fcntl.F_GETFL)
        assert bool(flags & os.O_DSYNC) == durable
        if direct is False:
            assert not flags & os.O_DIRECT
        file.close()


@pytest.mark.parametrize("direct", [None, False], ids=["auto", "buffered"])
def test_plain_calls_take_any_alignment(tmp_path: Path, direct: bool | None) -> None:
    file = b.File(tmp_path / "data", 10_000, direct=direct)
    array = np.random.default_rng(1).integers(0, 256, 5001, np.uint8)
    file.move(True, 77, array[1:])
    back = np.zeros(5000, np.uint8)
    file.move(False, 77, back)
    np.testing.assert_array_equal(back, array[1:])
    with pytest.raises(OSError, match="at offset 10000: end of file"):
        file.move(False, 9000, back)


def test_a_read_only_region_is_not_written(lab: b.Lab, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"a" * 8192)
    file = b.File(tmp_path / "data", writable=False)
    local = np.zeros(8192, np.uint8)
    route = lab.prepare(local, lab.attach_file(file))
    job = lab.submit(route, "write", [[0, 0, 4096]])
    assert job.wait() == b.DENIED and "read-only" in job.message and len(job.unfinished) == 1
    assert lab.wait(lab.submit(route, "read", [[0, 0, 8192]])) == b.SUCCESS and local.min() == ord("a")


OWNER = """
import sys
sys.path.insert(0, {here!r})
import backend_lab as b
file = b.File({path!r}, {size}, writable={writable})
remote = b.Lab.file().attach_file(file)
print(remote.attachment.hex(), flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("writable", [True, False], ids=["writable", "read_only"])
def test_a_file_of_another_process_is_reached_without_its_name(lab: b.Lab, tmp_path: Path, writable: bool) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"b" * 70_000)
    code = OWNER.format(here=str(Path(__file__).parent), path=str(path), size=70_000, writable=writable)
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as p:
        assert p.stdout is not None
        remote = b.Remote(p.pid, 1, b.FILE, 0, 70_000, bytes.fromhex(p.stdout.readline()))
        path.rename(tmp_path / "elsewhere")
        local = np.zeros(70_000, np.uint8)
        route = lab.prepare(local, remote)
        assert lab.wait(lab.submit(route, "read", [[0, 0, 70_000]])) == b.SUCCESS and local.min() == ord("b")
        code = lab.wait(lab.submit(route, "write", [[0, 1, 10]]))
        assert code == (b.SUCCESS if writable else b.DENIED)
        p.kill()


def test_where_opening_is_not_possible_the_owner_passes_the_descriptor(lab: b.Lab, tmp_path: Path) -> None:
    owner = b.Lab.file()
    file = b.File(tmp_path / "data", 8192)
    remote = owner.attach_file(file, 5)
    remote.pid = 1 << 30  # nothing there
    with pytest.raises(b.NoRoute, match="nobody answers"):
        lab.prepare(np.zeros(8192, np.uint8), remote)
    route = lab.prepare(np.zeros(8192, np.uint8), remote, owner=owner)
    assert lab.wait(lab.submit(route, "write", [[0, 0, 8192]])) == b.SUCCESS
    remote.id = 6
    with pytest.raises(b.NoRoute, match="no such region"):
        lab.prepare(np.zeros(8192, np.uint8), remote, owner=owner)


def test_another_file_under_the_number_is_refused(lab: b.Lab, tmp_path: Path) -> None:
    file, other = b.File(tmp_path / "data", 8192), b.File(tmp_path / "other", 8192)
    remote = lab.attach_file(file)
    os.dup2(other.fd, file.fd)
    with pytest.raises(b.NoRoute, match="another file than announced"):
        lab.prepare(np.zeros(8192, np.uint8), remote)


def test_what_it_is_not_for_is_said(lab: b.Lab, tmp_path: Path) -> None:
    file = b.File(tmp_path / "data", 8192)
    remote, local = lab.attach_file(file), np.zeros(8192, np.uint8)
    with pytest.raises(b.NoRoute, match="not on this host"):
        lab.prepare(local, remote, same_host=False)
    with pytest.raises(b.NoRoute, match="not one that files are copied to"):
        lab.prepare(local, remote, local_location=b.GPU)
    memory = b.Remote(os.getpid(), 1, b.CPU, local.ctypes.data, 8192, b"")
    with pytest.raises(b.NoRoute, match="reached as the remote side"):
        lab.prepare(local, memory, local_location=b.FILE)
    for broken in (b"", remote.attachment[:-1], b"x" * 48):
        remote.attachment = broken
        with pytest.raises(b.NoRoute, match="of this version"):
            lab.prepare(local, remote)


def test_a_closed_descriptor_is_an_error_at_attachment(lab: b.Lab, tmp_path: Path) -> None:
    file = b.File(tmp_path / "data", 8192)
    file.close()
    with pytest.raises(RuntimeError, match=os.strerror(errno.EBADF)):
        lab.attach_file(file)
