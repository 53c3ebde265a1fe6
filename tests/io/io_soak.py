# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Random transfers over every backend of this machine while peers are killed, stopped and restarted, memories taken
back, backends removed, transfers cancelled or out of time. Every byte is compared with a model of what must be there.

    python tests/io/io_soak.py --seconds 1800 --seed 7

Prints one JSON object; exits 1 if a byte is wrong, a failure has no cause, a late write landed, or something grows.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from mori.errors import MoriError
from mori.io import EngineDesc, IOEngine, IOEngineConfig, MemoryDesc, StatusCode

POOL = 1 << 20
DISTURBED = {
    StatusCode.ERR_PEER_LOST,
    StatusCode.ERR_BAD_STATE,
    StatusCode.ERR_NOT_FOUND,
    StatusCode.ERR_TRANSPORT,
    StatusCode.ERR_TIMEOUT,
    StatusCode.ERR_DENIED,
}


def make(key: str, backends: list[Any]) -> IOEngine:
    engine = IOEngine(
        key, IOEngineConfig(backends=[], timeout_s=10, connect_timeout_s=3, close_timeout_s=5, retries=1000)
    )
    for name, options in backends:
        engine.create_backend(name, options)
    return engine


def usage(pid: int | str = "self") -> dict[str, int]:
    folder = Path(f"/proc/{pid}")
    return {
        "fds": len(list((folder / "fd").iterdir())),
        "threads": len(list((folder / "task").iterdir())),
        "rss_mib": int((folder / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20,
    }


class Child:
    """A peer in a process of its own, which registers its memory anew when told to."""

    def __init__(self, key: str, backends: list[Any]) -> None:
        self.key, self.backends = key, backends
        self.folder = tempfile.TemporaryDirectory(
            prefix="mori-soak-"
        )  # of the backend file; a killed peer leaves its own
        self.start()

    def start(self) -> None:
        arguments = [sys.executable, __file__, "--serve", self.key, json.dumps(self.backends), self.folder.name]
        self.process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.engine, self.memory = self.read()

    def read(self) -> tuple[EngineDesc, MemoryDesc]:
        assert self.process.stdout is not None
        engine, memory = self.process.stdout.readline().split()
        return EngineDesc.unpack(bytes.fromhex(engine)), MemoryDesc.unpack(bytes.fromhex(memory))

    def renew(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("renew\n")
        self.process.stdin.flush()
        self.engine, self.memory = self.read()

    def restart(self) -> None:
        self.kill()
        self.start()

    def close(self) -> None:
        self.kill()
        self.folder.cleanup()

    def stop_for(self, seconds: float) -> None:
        os.kill(self.process.pid, signal.SIGSTOP)
        time.sleep(seconds)
        os.kill(self.process.pid, signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


def serve(key: str, backends: list[Any], folder: str) -> None:
    pool = np.zeros(POOL, np.uint8)
    in_a_file = backends[0][0] == "file"
    with make(key, backends) as engine:

        def register() -> MemoryDesc:
            return engine.register_file(f"{folder}/pool", POOL) if in_a_file else engine.register_buffer(pool)

        memory = register()
        while True:
            print(engine.get_engine_desc().pack().hex(), memory.pack().hex(), flush=True)
            if sys.stdin.readline().strip() != "renew":
                return
            engine.deregister_memory(memory)
            memory = register()


class Inside:
    """A peer in this process, behind backends that fail at random."""

    def __init__(self, key: str, backends: list[Any]) -> None:
        self.host = make(key, backends)
        self.pool = np.zeros(POOL, np.uint8)
        self.engine = self.host.get_engine_desc()
        self.memory = self.host.register_buffer(self.pool)

    def renew(self) -> None:
        self.host.deregister_memory(self.memory)
        self.memory = self.host.register_buffer(self.pool)

    def close(self) -> None:
        self.host.close()


class Worker(threading.Thread):
    """Moves blocks to and from one peer and knows what must be where."""

    def __init__(self, engine: IOEngine, peer: Any, backends: list[Any], seed: int, until: float) -> None:
        super().__init__(name=f"worker-{peer.engine.key}")
        self.engine, self.peer, self.backends, self.until = engine, peer, backends, until
        self.rng = np.random.default_rng(seed)
        self.source, self.target = np.zeros(POOL, np.uint8), np.zeros(POOL, np.uint8)
        self.source_desc = engine.register_buffer(self.source)
        self.target_desc = engine.register_buffer(self.target)
        self.model, self.known = np.zeros(POOL, np.uint8), np.zeros(POOL, bool)
        self.epoch = 0  # odd while the peer is disturbed
        self.changed = threading.Event()
        self.errors: list[str] = []
        self.counts: dict[str, int] = {}
        self.bytes = 0
        self.meet()

    def meet(self) -> None:
        self.engine.register_remote_engine(self.peer.engine)
        self.outgoing = self.engine.create_session(self.source_desc, self.peer.memory)
        self.incoming = self.engine.create_session(self.target_desc, self.peer.memory)

    def run(self) -> None:
        try:
            while time.monotonic() < self.until and len(self.errors) < 5:
                if self.changed.is_set():
                    self.changed.clear()
                    self.known[:] = False
                    self.meet()
                self.turn()
        except MoriError as error:
            self.errors.append(f"{self.name}: {error!r}")

    def turn(self) -> None:
        rng, epoch = self.rng, self.epoch
        size = int(rng.choice([1, 37, 512, 4096, 4099, 65536]))
        count = max(1, min(int(rng.integers(1, 65)), (1 << 17) // size))
        here, there = (rng.permutation(POOL // size)[:count].astype(np.int64) * size for _ in range(2))
        write = bool(rng.integers(2))
        ranges = (there[:, None] + np.arange(size)).ravel()
        local = (here[:, None] + np.arange(size)).ravel()
        deadline_s = float(rng.uniform(0.0002, 0.02)) if rng.integers(20) == 0 else None
        session = self.outgoing if write else self.incoming
        if write:
            self.source[local] = rng.integers(0, 256, local.size, dtype=np.uint8)
        else:
            self.target[local] = 0xEE
        call = session.batch_write if write else session.batch_read
        status = call(here, there, size, 1, deadline_s=deadline_s)
        cancelled = rng.integers(15) == 0 and status.cancel()
        code = status.WaitFor(60_000)
        self.counts[code.name] = self.counts.get(code.name, 0) + 1
        if code == StatusCode.SUCCESS:
            self.bytes += local.size
            if write:
                self.model[ranges] = self.source[local]
                self.known[ranges] = True
                return
            wrong = np.flatnonzero((self.target[local] != self.model[ranges]) & self.known[ranges])
            if wrong.size and epoch == self.epoch and epoch % 2 == 0:
                self.errors.append(f"{self.name}: {wrong.size} of {local.size} bytes read differ, block size {size}")
            return
        if write:
            self.known[ranges] = False
        expected = {StatusCode.ERR_CANCELLED} if cancelled else set()
        if deadline_s is not None:
            expected.add(StatusCode.ERR_TIMEOUT)
        disturbed = epoch % 2 == 1 or epoch != self.epoch or self.changed.is_set()
        if code not in expected and not (disturbed and code in DISTURBED):
            self.errors.append(f"{self.name}: {code.name} without a cause: {status.Message()}")
        if disturbed:
            time.sleep(0.01)
        if not write:  # terminal: nothing may land any more
            before = self.target[local].copy()
            time.sleep(0.001)
            if (before != self.target[local]).any():
                self.errors.append(f"{self.name}: written after {code.name}")


class Chaos(threading.Thread):
    """Disturbs a worker's peer now and then, one thing at a time."""

    def __init__(self, worker: Worker, seed: int) -> None:
        super().__init__(name="chaos")
        self.worker, self.rng = worker, np.random.default_rng(seed)
        self.done: dict[str, int] = {}

    def run(self) -> None:
        worker, peer = self.worker, self.worker.peer
        acts = ["renew", "backend"] + (["restart", "stop"] if isinstance(peer, Child) else [])
        while time.monotonic() + 8 < worker.until:
            time.sleep(float(self.rng.uniform(0.5, 3)))
            act = str(self.rng.choice(acts))
            self.done[act] = self.done.get(act, 0) + 1
            worker.epoch += 1
            try:
                self.act(act, peer)
            except MoriError as error:
                worker.errors.append(f"{worker.name}: {act} failed: {error!r}")
            time.sleep(0.3)  # what was lost is noticed
            worker.changed.set()
            while worker.changed.is_set() and worker.is_alive():
                time.sleep(0.005)
            worker.epoch += 1

    def act(self, act: str, peer: Any) -> None:
        if act == "renew":
            peer.renew()
        elif act == "restart":
            peer.restart()
        elif act == "stop":
            peer.stop_for(float(self.rng.uniform(0.1, 1.5)))
        else:
            name, options = self.worker.backends[0]
            self.worker.engine.remove_backend(name)
            time.sleep(0.05)
            self.worker.engine.create_backend(name, options)


def crews() -> list[tuple[str, type, list[Any]]]:
    faulty = {"fault_permille": 30, "chunk_bytes": 3000}
    rows: list[tuple[str, type, list[Any]]] = [
        ("shm", Child, [("shm", {})]),
        ("tcp", Child, [("tcp", {})]),
        ("both", Child, [("shm", {}), ("tcp", {})]),
        ("file", Child, [("file", {})]),
        ("loop", Inside, [("loopback", {**faulty, "mode": 1}), ("loopback2", faulty)]),
    ]
    probe = IOEngine("probe")
    if "rdma" in probe.backends():
        rows.append(("rdma", Child, [("rdma", {})]))
    probe.close()
    return rows


def soak(seconds: float, seed: int) -> dict[str, Any]:
    until = time.monotonic() + seconds
    owners, workers, chaos = [], [], []
    for i, (name, kind, backends) in enumerate(crews()):
        engine = make(f"near-{name}", backends)
        worker = Worker(engine, kind(f"far-{name}", backends), backends, seed * 100 + i, until)
        owners.append(engine)
        workers.append(worker)
        chaos.append(Chaos(worker, seed * 100 + 50 + i))
    for thread in (*workers, *chaos):
        thread.start()
    time.sleep(seconds * 0.3)
    early = usage()
    for thread in (*workers, *chaos):
        thread.join(seconds + 90)
    errors = [error for worker in workers for error in worker.errors]
    errors += [f"{thread.name} is stuck" for thread in (*workers, *chaos) if thread.is_alive()]
    late = usage()
    for what, slack in (("fds", 12), ("threads", 8), ("rss_mib", 48)):
        if late[what] > early[what] + slack:
            errors.append(f"{what} grew from {early[what]} to {late[what]}")
    faults = sum(int(engine.metrics()["engine"]["backend_faults"]) for engine in owners)
    if faults:
        errors.append(f"backends broke their contract {faults} times")
    report = {
        "seconds": seconds,
        "seed": seed,
        "transfers": {w.peer.engine.key: w.counts for w in workers},
        "mib_moved": sum(w.bytes for w in workers) >> 20,
        "disturbances": {c.worker.peer.engine.key: c.done for c in chaos},
        "usage": [early, late],
        "errors": errors,
    }
    for worker in workers:
        worker.peer.close()
    for engine in owners:
        engine.close()
    return report


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=1800)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--serve", nargs=3)
    chosen = parser.parse_args()
    if chosen.serve:
        serve(chosen.serve[0], json.loads(chosen.serve[1]), chosen.serve[2])
        sys.exit(0)
    faulthandler.dump_traceback_later(chosen.seconds + 150, exit=True)
    outcome = soak(chosen.seconds, chosen.seed)
    print(json.dumps(outcome, indent=1))
    sys.exit(1 if outcome["errors"] else 0)
