# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Which way the shm backend takes, and what it says when the system forbids one."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from collections.abc import Iterator

import backend_lab as b
import numpy as np
import pytest

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(autouse=True)
def _no_faults() -> Iterator[None]:
    yield
    b.faults()


@pytest.fixture
def lab() -> Iterator[b.Lab]:
    made = b.Lab.shm()
    yield made
    made.close()


LOCAL = np.full(8192, 7, np.uint8)


def write(lab: b.Lab, route: int) -> b.Job:
    job = lab.submit(route, "write", [[0, 4096, 4096]])
    job.wait()
    return job


def test_sealed_shared_memory_is_mapped(lab: b.Lab) -> None:
    with b.Owner(8192) as owner:
        write(lab, lab.prepare(LOCAL, owner.remote))
    assert (lab.counter("jobs_mapped"), lab.counter("bytes_mapped")) == (1, 4096)


def test_private_memory_goes_through_the_kernel(lab: b.Lab) -> None:
    with b.Owner(8192, shared=False) as owner:
        job = write(lab, lab.prepare(LOCAL, owner.remote))
        assert "not one shared mapping" in lab.reason
        assert job.wait() == b.SUCCESS
    assert lab.counter("jobs_vm") == 1


@pytest.mark.parametrize("error", [errno.EPERM, errno.ENOSYS, errno.EACCES], ids=errno.errorcode.get)
def test_where_process_vm_is_forbidden_mapping_remains(lab: b.Lab, error: int) -> None:
    b.faults(vm_errno=error)
    with b.Owner(8192) as owner:
        assert write(lab, lab.prepare(LOCAL, owner.remote)).wait() == b.SUCCESS
    with b.Owner(8192, shared=False) as owner, pytest.raises(b.NoRoute) as refused:
        lab.prepare(LOCAL, owner.remote)
    assert "not one shared mapping" in str(refused.value) and "process_vm_readv" in str(refused.value)


def test_where_opening_is_forbidden_process_vm_remains(lab: b.Lab) -> None:
    b.faults(open_errno=errno.EACCES)
    with b.Owner(8192) as owner:
        assert write(lab, lab.prepare(LOCAL, owner.remote)).wait() == b.SUCCESS
    assert lab.counter("jobs_vm") == 1


def local_owner(memory: b.Memory, pid: int) -> tuple[b.Lab, b.Remote]:
    """A region of this process, presented as one of `pid`."""
    owner = b.Lab.shm()
    attachment = owner.attach(3, memory.address, len(memory.bytes))
    return owner, b.Remote(pid, 3, b.CPU, memory.address, len(memory.bytes), attachment)


def test_where_opening_is_forbidden_the_owner_passes_the_descriptor(lab: b.Lab) -> None:
    memory = b.Memory(8192)
    owner, remote = local_owner(memory, os.getppid())
    b.faults(open_errno=errno.EACCES, vm_errno=errno.EPERM)
    route = lab.prepare(LOCAL, remote, owner=owner)
    assert write(lab, route).wait() == b.SUCCESS
    assert lab.counter("jobs_mapped") == 1 and memory.bytes[4096:].min() == 7
    owner.detach(3)
    with pytest.raises(b.NoRoute, match="no such region"):
        lab.prepare(LOCAL, remote, owner=owner)
    owner.close()


def test_the_owner_names_who_may_trace_it(lab: b.Lab) -> None:
    owner = b.Lab.shm()
    with b.Owner(8192, shared=False) as other:
        b.faults(needs_tracer=True)
        with pytest.raises(b.NoRoute, match="ptrace_scope"):
            lab.prepare(LOCAL, other.remote)  # nobody to ask
        route = lab.prepare(LOCAL, other.remote, owner=owner)
        assert write(lab, route).wait() == b.SUCCESS
    owner.close()


@pytest.mark.parametrize("kind", ["torch_style", "unsealed_memfd", "sealed_memfd", "anonymous"])
def test_what_counts_as_shareable(lab: b.Lab, kind: str) -> None:
    size = 3 * 4096
    if kind == "anonymous":
        mapping = mmap.mmap(-1, size)  # shared, but nobody else can open it
    else:
        if kind == "torch_style":  # a file in /dev/shm, removed once it is open
            path = f"/dev/shm/mori-test-{os.getpid()}"
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            os.unlink(path)
        else:
            fd = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, size)
        if kind == "sealed_memfd":
            import fcntl

            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        mapping = mmap.mmap(fd, size)
        os.close(fd)
    array = np.frombuffer(mapping, np.uint8)[100:]
    owner = b.Lab.shm(process_vm=False)
    remote = b.Remote(os.getppid(), 3, b.CPU, array.ctypes.data, array.size, b"")
    remote.attachment = owner.attach(3, remote.address, remote.size)
    b.faults(open_errno=errno.ENOENT, vm_errno=errno.EPERM)  # the pid is not the owner's
    if kind == "sealed_memfd":
        assert write(lab, lab.prepare(LOCAL, remote, owner=owner)).wait() == b.SUCCESS
        assert array[4096:8192].min() == 7 and array[:4096].max() == 0
    else:
        with pytest.raises(b.NoRoute, match=r"not sealed|not open in this process|not one shared"):
            lab.prepare(LOCAL, remote, owner=owner)
    owner.close()


def test_another_file_behind_the_descriptor_is_refused(lab: b.Lab) -> None:
    with b.Owner(8192) as owner, b.Owner(8192) as impostor:
        wrong = b.Remote(impostor.pid, 1, b.CPU, owner.remote.address, 8192, owner.remote.attachment)
        with pytest.raises(b.NoRoute, match="another file than announced"):
            lab.prepare(LOCAL, wrong)


@pytest.mark.parametrize("cut", [0, 1, 8, 87])
def test_malformed_attachments_are_refused(lab: b.Lab, cut: int) -> None:
    with b.Owner(8192) as owner:
        owner.remote.attachment = owner.remote.attachment[:cut]
        with pytest.raises(b.NoRoute, match="no shm backend of this version"):
            lab.prepare(LOCAL, owner.remote)


def test_sizes_beyond_the_file_are_refused(lab: b.Lab) -> None:
    with b.Owner(8192) as owner:
        for place in (24, 80):  # bytes; offset in the file: too large, and so large that sums wrap
            for value in (1 << 40, (1 << 64) - 4096):
                forged = bytearray(owner.remote.attachment)
                forged[place : place + 8] = value.to_bytes(8, "little")
                size = value if place == 24 else 8192
                remote = b.Remote(owner.pid, 1, b.CPU, owner.remote.address, size, bytes(forged))
                b.faults(vm_errno=errno.EPERM)
                with pytest.raises(b.NoRoute, match="has 8192 bytes"):
                    lab.prepare(LOCAL, remote)


def test_other_hosts_and_other_memories_are_not_for_it(lab: b.Lab) -> None:
    with b.Owner(8192) as owner:
        with pytest.raises(b.NoRoute, match="not on this host"):
            lab.prepare(LOCAL, owner.remote, same_host=False)
        with pytest.raises(b.NoRoute, match="host memories"):
            lab.prepare(LOCAL, owner.remote, local_location=b.GPU)
    assert lab.attach(1, 0, 4096, location=b.GPU) == b"" == lab.attach(1, 0, 4096, location=b.FILE)


def test_read_only_memory_is_not_written(lab: b.Lab) -> None:
    memory = b.Memory(8192)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    assert libc.mprotect(memory.address, 8192, mmap.PROT_READ) == 0
    owner, remote = local_owner(memory, os.getppid())
    b.faults(open_errno=errno.ENOENT, vm_errno=errno.EPERM)
    route = lab.prepare(LOCAL, remote, owner=owner)
    job = write(lab, route)
    assert job.wait() == b.DENIED and len(job.unfinished) == 1
    assert lab.wait(lab.submit(route, "read", [[0, 0, 4096]])) == b.SUCCESS
    LOCAL[:] = 7
    owner.close()


@pytest.mark.parametrize("size", [1, 4095, 4096, 1 << 22])
@pytest.mark.parametrize("prefault", [False, True], ids=["lazy", "prefault"])
def test_shared_memory_is_zero_and_cannot_shrink(size: int, prefault: bool) -> None:
    memory = b.Memory(size, prefault)
    assert memory.bytes.max() == 0 and os.fstat(memory.fd).st_size == size
    assert not os.get_inheritable(memory.fd)
    for other in (0, size * 2):
        with pytest.raises(PermissionError):
            os.ftruncate(memory.fd, other)
    memory.close()


@pytest.mark.parametrize("size", [0, 1 << 63])
def test_sizes_that_make_no_sense_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"bytes={size}"):
        b.Memory(size)
