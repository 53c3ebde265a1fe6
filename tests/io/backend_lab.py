# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""One backend without an engine, driven from Python: builds backend_lab.cpp with g++ and wraps it.

lab = Lab.shm()                                    # an initiator
with Owner(1 << 20) as owner:                      # another process with registered memory
    route = lab.prepare(local, owner)              # raises NoRoute with the backend's reason
    job = lab.submit(route, "write", [[local_offset, remote_offset, size], ...])
    assert lab.wait(job) == SUCCESS
"""

from __future__ import annotations

import ctypes as c
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [
    Path(__file__).with_suffix(".cpp"),
    ROOT / "src/io/backends/crew.cpp",
    *sorted((ROOT / "src/io/backends/shm").glob("*.cpp")),
    *sorted(p for p in (ROOT / "src/io/backends/file").glob("*.cpp") if p.name != "file.cpp"),  # of the table
]
HEADERS = [
    *(ROOT / "src/io").glob("*.hpp"),
    *(p for part in ("", "shm", "file") for p in (ROOT / "src/io/backends" / part).glob("*.hpp")),
]
FLAGS = ["-std=c++20", "-O1", "-g1", "-fPIC", "-Wall", "-Wextra", "-pthread", "-I", str(ROOT)]
SUCCESS, NOT_FOUND, TIMEOUT, CANCELLED, PEER_LOST, TRANSPORT, DENIED, IO = 0, 12, 16, 17, 18, 19, 20, 21
CPU, GPU, FILE = 1, 2, 3


def build() -> Path:
    """The library, compiled once per state of the sources."""
    key = hashlib.sha256(b"".join(p.read_bytes() for p in [*SOURCES, *HEADERS])).hexdigest()[:16]
    folder = ROOT / "build" / "io_lab"
    library = folder / f"lab-{key}.so"
    if not library.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            made = Path(scratch) / "lab.so"
            compiler = shutil.which(os.environ.get("CXX", "g++")) or "g++"
            compile_all([compiler, *FLAGS, "-shared"], SOURCES, made, Path(scratch))
            made.rename(library)  # at once, if another test process built it too
    return library


def compile_all(command: list[str], sources: list[Path], target: Path, folder: Path) -> None:
    """Compiles the sources side by side, into `folder`, and links them."""

    def run(*arguments: str | Path) -> None:
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=280, check=False)
        if done.returncode != 0:
            raise RuntimeError(done.stderr)

    objects = [folder / f"{i}-{source.stem}.o" for i, source in enumerate(sources)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda made, source: run("-c", source, "-o", made), objects, sources))
    run(*objects, "-o", target)


_u64, _i64, _p = c.c_uint64, c.c_int64, c.c_void_p
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "lab_faults": (None, [c.c_int, _i64, c.c_int, c.c_int, c.c_int]),
    "lab_shm": (_p, [c.c_int, c.c_int, _u64, c.c_int]),
    "lab_file": (_p, [c.c_int, _u64, c.c_uint32, _u64, c.c_int, c.c_int]),
    "lab_file_faults": (None, [c.c_int, c.c_int, c.c_int, _i64, c.c_int, c.c_int]),
    "file_open": (c.c_int, [c.c_char_p, _i64, c.c_int, c.c_int, c.c_int, _p, _p, _u64]),
    "file_move": (c.c_int, [c.c_int, c.c_int, _u64, _p, _u64, _p, _u64]),
    "lab_free": (None, [_p]),
    "lab_attach": (_i64, [_p, _u64, c.c_int, _u64, _u64, c.c_int, c.c_char_p, _p, _u64]),
    "lab_detach": (None, [_p, _u64]),
    "lab_prepare": (
        _p,
        [_p, _p, _i64, c.c_int, c.c_int, _u64, _u64, c.c_int, _u64, c.c_int, _u64, _u64, c.c_char_p, _u64, _p, _u64],
    ),
    "lab_revoke": (None, [_p, _p]),
    "lab_lost": (None, [_p, _p]),
    "pair_free": (None, [_p]),
    "lab_submit": (_p, [_p, _p, c.c_int, _p, _u64, c.c_int]),
    "lab_help": (c.c_int, [_p, _p]),
    "lab_stop": (None, [_p, _p]),
    "job_wait": (c.c_int, [_p, c.c_double]),
    "job_finishes": (c.c_int, [_p]),
    "job_progress": (_u64, [_p]),
    "job_reroutable": (c.c_int, [_p]),
    "job_message": (_i64, [_p, _p, _u64]),
    "job_unfinished": (_i64, [_p, _p, _u64]),
    "job_free": (None, [_p]),
    "lab_counter": (c.c_double, [_p, c.c_char_p]),
    "memory_new": (_p, [_u64, c.c_int, _p, _u64]),
    "memory_address": (_u64, [_p]),
    "memory_fd": (c.c_int, [_p]),
    "memory_free": (None, [_p]),
}
_library: c.CDLL | None = None


def library() -> c.CDLL:
    global _library
    if _library is None:
        _library = c.CDLL(str(build()))
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(_library, name)
            function.restype, function.argtypes = result, arguments
    return _library


def faults(
    *, vm_errno: int = 0, vm_bytes: int = 0, open_errno: int = 0, needs_tracer: bool = False, vm_delay_us: int = 0
) -> None:
    """Makes system calls of this process fail; without arguments they work again."""
    library().lab_faults(vm_errno, vm_bytes, open_errno, int(needs_tracer), vm_delay_us)


def file_faults(
    *, error: int = 0, after: int = 0, only_direct: bool = False, most: int = 0, delay_us: int = 0, gpu: bool = False
) -> None:
    """Changes what file calls give, in labs made with `filter`; without arguments nothing."""
    library().lab_file_faults(error, after, int(only_direct), most, delay_us, int(gpu))


class NoRoute(Exception):
    """The backend's reason for not reaching a memory."""


class Memory:
    """Shared memory of the library, as a numpy array `bytes`."""

    def __init__(self, size: int, prefault: bool = False) -> None:
        why = c.create_string_buffer(400)
        self._handle = library().memory_new(size, int(prefault), why, len(why))
        if not self._handle:
            raise ValueError(why.value.decode())
        self.address = library().memory_address(self._handle)
        self.fd = library().memory_fd(self._handle)
        self.bytes = np.ctypeslib.as_array((c.c_uint8 * size).from_address(self.address))

    def close(self) -> None:
        library().memory_free(self._handle)


class File:
    """An opened file, as an engine registers it."""

    def __init__(
        self,
        path: str | Path,
        size: int | None = None,
        *,
        writable: bool = True,
        direct: bool | None = None,
        durable: bool = False,
    ) -> None:
        text, got = c.create_string_buffer(5000), c.c_uint64()
        wish = -1 if direct is None else int(direct)
        wanted = -1 if size is None else size
        self.fd = library().file_open(
            str(path).encode(), wanted, int(writable), wish, int(durable), c.byref(got), text, len(text)
        )
        if self.fd < 0:
            raise ValueError(text.value.decode())
        self.path, self.size = text.value.decode(), got.value

    def move(self, write: bool, offset: int, array: np.ndarray) -> None:
        """read_at() and write_at()."""
        why = c.create_string_buffer(1000)
        if library().file_move(self.fd, int(write), offset, array.ctypes.data, array.nbytes, why, len(why)) != 0:
            raise OSError(why.value.decode())

    def close(self) -> None:
        os.close(self.fd)


class Remote:
    """What an initiator knows of a memory at a peer."""

    def __init__(self, pid: int, id: int, location: int, address: int, size: int, attachment: bytes) -> None:
        self.pid, self.id, self.location, self.address, self.size = pid, id, location, address, size
        self.attachment = attachment


class Job:
    def __init__(self, handle: int) -> None:
        self.handle = handle

    def wait(self, seconds: float = 20.0) -> int:
        return int(library().job_wait(self.handle, seconds))

    @property
    def finishes(self) -> int:
        return int(library().job_finishes(self.handle))

    @property
    def message(self) -> str:
        text = c.create_string_buffer(2000)
        size = library().job_message(self.handle, text, len(text))
        return text.raw[:size].decode()

    @property
    def reroutable(self) -> bool:
        return bool(library().job_reroutable(self.handle))

    @property
    def progress(self) -> int:
        return int(library().job_progress(self.handle))

    @property
    def unfinished(self) -> np.ndarray:
        size = library().job_unfinished(self.handle, None, 0)
        list_ = np.zeros(size // 8, np.uint64)
        library().job_unfinished(self.handle, list_.ctypes.data, size)
        return list_.reshape(-1, 3)

    def __del__(self) -> None:
        library().job_free(self.handle)


class Lab:
    """A backend."""

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self._pairs: dict[int, np.ndarray] = {}  # the local memories stay as long as their routes

    @classmethod
    def shm(cls, *, map: bool = True, process_vm: bool = True, inline_bytes: int = 4 << 20, copy: int = -1) -> Lab:
        return cls(library().lab_shm(int(map), int(process_vm), inline_bytes, copy))

    @classmethod
    def file(
        cls,
        *,
        io_uring: bool = True,
        threads: int = 3,
        depth: int = 8,
        block: int = 1 << 20,
        filter: bool = False,
        gpu: bool = False,
    ) -> Lab:
        return cls(library().lab_file(int(io_uring), threads, depth, block, int(filter), int(gpu)))

    def attach_file(self, file: File, id: int = 1) -> Remote:
        """The file as a memory of this process."""
        attachment = self.attach(id, 0, file.size, location=FILE, fd=file.fd, path=file.path)
        return Remote(os.getpid(), id, FILE, 0, file.size, attachment)

    def attach(self, id: int, address: int, size: int, *, location: int = CPU, fd: int = -1, path: str = "") -> bytes:
        text = c.create_string_buffer(4096)
        got = library().lab_attach(self.handle, id, location, address, size, fd, path.encode(), text, len(text))
        if got == -2:
            raise RuntimeError(text.value.decode())
        return text.raw[: max(got, 0)]

    def detach(self, id: int) -> None:
        library().lab_detach(self.handle, id)

    def prepare(
        self,
        local: np.ndarray,
        remote: Remote,
        *,
        owner: Lab | None = None,
        same_host: bool = True,
        local_location: int = CPU,
        local_fd: int = -1,
    ) -> int:
        reason = c.create_string_buffer(2000)
        pair = library().lab_prepare(
            self.handle, owner.handle if owner else None, remote.pid, int(same_host), local_location,
            local.ctypes.data, local.nbytes, local_fd, remote.id, remote.location, remote.address, remote.size,
            remote.attachment, len(remote.attachment), reason, len(reason),
        )  # fmt: skip
        if not pair:
            raise NoRoute(reason.value.decode())
        self._pairs[pair] = local
        self.reason = reason.value.decode()
        return int(pair)

    def submit(
        self, route: int, op: str, segments: Sequence[Sequence[int]] | np.ndarray, *, stopped: bool = False
    ) -> Job:
        table = np.ascontiguousarray(segments, np.uint64).reshape(-1, 3)
        return Job(
            library().lab_submit(self.handle, route, int(op == "write"), table.ctypes.data, len(table), int(stopped))
        )

    def help(self, job: Job) -> bool:
        return bool(library().lab_help(self.handle, job.handle))

    def wait(self, job: Job, seconds: float = 20.0) -> int:
        """As the engine waits: lends the thread first."""
        self.help(job)
        return job.wait(seconds)

    def stop(self, job: Job) -> None:
        library().lab_stop(self.handle, job.handle)

    def revoke(self, route: int) -> None:
        library().lab_revoke(self.handle, route)

    def lost(self, route: int) -> None:
        library().lab_lost(self.handle, route)

    def drop(self, route: int) -> None:
        """The engine forgets a route."""
        del self._pairs[route]
        library().pair_free(route)

    def counter(self, name: str) -> float:
        return float(library().lab_counter(self.handle, name.encode()))

    def close(self) -> None:
        for pair in self._pairs:
            library().pair_free(pair)
        self._pairs.clear()
        library().lab_free(self.handle)


class Owner:
    """Another process that registered one memory, `shared` or private, filled with `fill`."""

    def __init__(self, size: int, *, shared: bool = True, fill: int = 0, offset: int = 0) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, json.dumps([size, shared, fill, offset])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        reply = json.loads(self._line())
        self.remote = Remote(self._process.pid, 1, CPU, reply["address"], size, bytes.fromhex(reply["attachment"]))

    @property
    def pid(self) -> int:
        return self._process.pid

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the owner died")
        return line

    def ask(self, request: str) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(request + "\n")
        self._process.stdin.flush()
        return json.loads(self._line())

    def crc(self) -> int:
        """CRC-32 of all of its memory."""
        return int(self.ask("crc"))

    def fill(self, value: int) -> None:
        """Makes all of its memory this value."""
        self.ask(f"fill {value}")

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(10)

    def __enter__(self) -> Owner:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(10)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


def _owner_main() -> None:
    import mmap
    import zlib

    size, shared, fill, offset = json.loads(sys.argv[1])
    lab = Lab.shm()
    if shared:
        memory = Memory(size + offset)
        array = memory.bytes[offset:]
    else:
        anonymous = mmap.mmap(-1, size + offset, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        array = np.frombuffer(anonymous, np.uint8)[offset:]
    array[:] = fill
    attachment = lab.attach(1, array.ctypes.data, size)
    print(json.dumps({"address": array.ctypes.data, "attachment": attachment.hex()}), flush=True)
    for line in sys.stdin:
        match line.split():
            case ["crc"]:
                print(zlib.crc32(array), flush=True)
            case ["fill", value]:
                array[:] = int(value)
                print("true", flush=True)
            case ["fds"]:
                print(len(os.listdir("/proc/self/fd")), flush=True)
            case ["detach"]:
                lab.detach(1)
                print("true", flush=True)
            case ["unmap"]:  # the pages vanish while the region is registered
                libc = c.CDLL(None, use_errno=True)
                libc.munmap.argtypes = [_p, c.c_size_t]
                print(libc.munmap(array.ctypes.data & ~4095, size), flush=True)
            case ["exec"]:
                os.execv(sys.executable, [sys.executable, "-c", "import time; print(1, flush=True); time.sleep(60)"])


if __name__ == "__main__":
    _owner_main()
