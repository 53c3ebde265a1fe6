# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Another process with registered memory, for the tests in the SoftRoCE machine:

with Owner(1 << 20) as owner:     # its engine has rxe1 and rxe3, and tcp if asked
    owner.engine_desc, owner.memory_desc
    owner.stop(); owner.go_on(); owner.kill()
    owner.digest()                # of its memory
"""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType

import numpy as np

from mori import io

DEVICES = {"initiator": "rxe0,rxe2", "owner": "rxe1,rxe3"}


def engine(key: str, side: str, *, tcp: bool = False, **settings: int) -> io.IOEngine:
    """An engine with rdma (short retry budget: 4 times 17 ms), and tcp behind it if wished."""
    made = io.IOEngine(key, io.IOEngineConfig(fallback=False, same_host=False))
    budget = {"ack_timeout": 12, "retry_count": 3, "retry_after_ms": 500} | settings
    made.create_backend("rdma", io.RdmaBackendConfig(devices=DEVICES[side], **budget))
    if tcp:
        made.create_backend("tcp")
    return made


class Owner:
    def __init__(self, size: int, *, tcp: bool = False, key: str = "owner") -> None:
        command = [sys.executable, str(Path(__file__)), str(size), str(int(tcp)), key]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.engine_desc = io.EngineDesc.unpack(bytes.fromhex(self._line()))
        self.memory_desc = io.MemoryDesc.unpack(bytes.fromhex(self._line()))

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def digest(self) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write("digest\n")
        self._process.stdin.flush()
        return self._line()

    def stop(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(10)

    def __enter__(self) -> Owner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def digest_of(memory: np.ndarray) -> str:
    return hashlib.sha256(memory.tobytes()).hexdigest()


def main(size: int, tcp: bool, key: str) -> None:
    memory = np.zeros(size, np.uint8)
    with engine(key, "owner", tcp=tcp) as mine:
        desc = mine.register_buffer(memory)
        print(mine.get_engine_desc().pack().hex(), desc.pack().hex(), sep="\n", flush=True)
        for _ in sys.stdin:
            print(digest_of(memory), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2] == "1", sys.argv[3])
