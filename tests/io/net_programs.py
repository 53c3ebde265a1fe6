# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Small C++ programs of tests/io, compiled once a session and driven by lines, as processes to kill and stop.

program = build("tcp_main", "thread")                  -> path of an executable
engine = Driven([program, "A", "127.0.0.1", "0", "-", "1"])
engine("alive", "B", 1000)                             -> the answer's fields; Failed if it is not "ok"
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fixed_addresses import FIXED_ADDRESSES

ROOT = Path(__file__).resolve().parents[2]
IO = ROOT / "src/io"
SOURCES = {
    "control_main": [*sorted((IO / "control").glob("*.cpp"))],
    "tcp_main": [
        *sorted(IO.glob("*.cpp")),
        *sorted((IO / "control").glob("*.cpp")),
        *sorted((IO / "backends/tcp").glob("*.cpp")),
        IO / "backends/backend_options.cpp",
        ROOT / "tests/io/tcp_table.cpp",
        ROOT / "tests/io/no_staging.cpp",
    ],
    "fuzz_main": [
        *sorted((IO / "control").glob("*.cpp")),
        *(IO / f"backends/tcp/{name}.cpp" for name in ("frames", "inlet", "loop")),
        ROOT / "tests/io/no_staging.cpp",
    ],
    "engine_main": [
        *sorted(IO.glob("*.cpp")),
        *sorted((IO / "control").glob("*.cpp")),
        *sorted((IO / "backends/loopback").glob("*.cpp")),
        IO / "backends/backend_options.cpp",
    ],
}
SANITIZE = {
    "": ["-O1"],
    "thread": ["-O1", "-g1", "-fsanitize=thread"],
    "address": ["-O1", "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"],
}


def compiler() -> str | None:
    return shutil.which(os.environ.get("CXX", "g++"))


def build(main: str, sanitizer: str = "") -> Path:
    """The executable, kept in build/tests-io under a name made of flags and sources."""
    flags = ["-std=c++20", *SANITIZE[sanitizer], "-fno-omit-frame-pointer", "-I", str(ROOT)]
    folder = ROOT / "build/tests-io"
    folder.mkdir(parents=True, exist_ok=True)
    common = hashlib.sha256(" ".join(flags).encode())
    for header in sorted([*IO.rglob("*.hpp"), *(ROOT / "src/core").rglob("*.hpp")]):
        common.update(header.read_bytes())

    def compile_one(source: Path) -> Path:
        key = hashlib.sha256(common.digest() + source.read_bytes()).hexdigest()[:16]
        made = folder / f"{source.stem}-{key}.o"
        if not made.exists():
            draft = made.with_suffix(".draft.o")
            _run([*flags, "-c", str(source), "-o", str(draft)])
            draft.rename(made)
        return made

    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the test processes of one run share the folder
        with ThreadPoolExecutor(2) as pool:
            objects = list(pool.map(compile_one, [*SOURCES[main], ROOT / f"tests/io/{main}.cpp"]))
        key = hashlib.sha256(" ".join(map(str, objects)).encode()).hexdigest()[:16]
        target = folder / f"{main}-{key}"
        if not target.exists():
            draft = target.with_suffix(".draft")
            _run([*flags, *map(str, objects), "-o", str(draft), "-pthread", "-ldl"])
            draft.rename(target)
    return target


def _run(arguments: Sequence[str]) -> None:
    done = subprocess.run([compiler() or "g++", *arguments], capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(arguments)}\n{done.stderr}")


class Failed(Exception):
    """The program answered with an error: `.kind`, and its words."""

    def __init__(self, kind: str, words: str) -> None:
        self.kind = kind
        super().__init__(f"{kind}: {words}")


class Driven:
    """A running program. Calls are answered in order, one at a time."""

    def __init__(self, arguments: Sequence[object], environment: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [*FIXED_ADDRESSES, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        self.hello = self._answer()

    def __call__(self, *fields: object) -> list[str]:
        self.ask(*fields)
        return self._answer()

    def ask(self, *fields: object) -> None:
        """Without waiting for the answer: `answer()` takes it."""
        assert self.process.stdin
        self.process.stdin.write("\t".join(str(f) for f in fields) + "\n")
        self.process.stdin.flush()

    def answer(self) -> list[str]:
        return self._answer()

    def _answer(self) -> list[str]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            self.process.wait(10)
            raise RuntimeError(f"the program ended with {self.process.returncode}: {self.stderr()[-4000:]}")
        kind, *rest = line.rstrip("\n").split("\t")
        if kind != "ok":
            raise Failed(kind, "\t".join(rest))
        return rest

    def stderr(self) -> str:
        assert self.process.stderr
        return "" if self.process.stderr.closed else self.process.stderr.read()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def close(self, timeout: float = 20) -> str:
        """Ends it in order; gives what it wrote on stderr (a sanitizer's report), and fails if it did not end well."""
        if self.process.poll() is None:
            self.go_on()
            try:
                _, errors = self.process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                self.kill()
                raise
        else:
            errors = self.stderr()
        if self.process.returncode not in (0, -signal.SIGKILL):
            raise RuntimeError(f"the program ended with {self.process.returncode}: {errors[-6000:]}")
        return errors
