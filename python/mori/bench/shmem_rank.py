# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""What one rank of `mori bench shmem` does: each case verified, timed in turns with its limit, and verified again.

Times are nanoseconds of one operation. Kernels read the clock themselves; only the copy engine's copies are timed by
events. What ranks bring home: {(impl, case index): times}, "limit" for the limit.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import environment, set_environment
from .cores import bind
from .progress import Pulse
from .shmem_kernels import Place
from .shmem_settings import QUEUES, WORD, ShmemCase, ShmemSettings
from .verify import Mismatch

__all__ = ["LIMIT", "ShmemResult", "run_rank", "wire_bytes"]

LIMIT = "limit"
_TURNS = 4  # launches over which the samples of a case are spread, in turn with the limit's
_WARMUP = 2  # launches of one sample each, before
_MOST_COPIES = 64  # queued at a time

Times = dict[tuple[str, int], NDArray[np.float64]]


@dataclasses.dataclass(frozen=True)
class ShmemResult:
    times: Times
    device: str


def run_rank(rank: int, size: int, uid: Any, settings: ShmemSettings, devices: int, pulse: str) -> ShmemResult:
    """One rank from start to end. Raises verify.Mismatch for wrong bytes."""
    import torch

    import mori

    torch.set_num_threads(1)
    device = torch.device("cpu")
    if settings.on_gpu:
        device = torch.device("cuda", rank % devices)
        torch.cuda.set_device(device)
        stream: Any = torch.cuda.Stream
        torch.cuda.set_stream(stream(device))
    elif settings.over_queues:  # the NIC's thread finds a core of its own where there is one
        set_environment(environment() | {"MORI_IBGDA_QUEUES": str(QUEUES)})
    else:
        bind(rank)
    cases = settings.cases()
    room = max(64 * QUEUES, *(landing_bytes(case, size) for case in cases))
    with mori.init(
        uid=uid, rank=rank, world_size=size, device=device, heap_bytes=room + (16 << 20), transport=settings.transport
    ) as ctx:
        place = Place(ctx, room)
        place.load({case.kind for case in cases})
        bench = _Rank(ctx, place, settings)
        progress = Pulse(pulse if rank == 0 else "")
        progress.phase("cases", len(cases))
        times: Times = {}
        for index, case in enumerate(cases):
            times |= {(impl, index): np.asarray(ns) for impl, ns in bench.run(case).items()}
            progress.step()
        ctx.barrier()
        name = torch.cuda.get_device_name(device) if settings.on_gpu else "cpu"
        return ShmemResult(times, name)


def landing_bytes(case: ShmemCase, ranks: int) -> int:
    """Of one rank's part of the symmetric memory, and of its source."""
    return case.bytes * (ranks if case.op in ("fcollect", "alltoall") else 1)


def wire_bytes(case: ShmemCase, ranks: int) -> int:
    """That leave the rank which sends most."""
    if case.kind != "collective":
        return case.bytes
    if case.op == "reduce":
        return 2 * case.bytes * (ranks - 1) // ranks
    return case.bytes * (ranks - 1)


class _Rank:
    def __init__(self, ctx: Any, place: Place, settings: ShmemSettings) -> None:
        self.ctx, self.place, self.settings = ctx, place, settings
        self.rank, self.ranks = ctx.rank, ctx.world_size
        self.peer = 1 if ctx.rank == 0 else 0

    def run(self, case: ShmemCase) -> dict[str, Any]:
        """By implementation; empty on a rank that does nothing in this case."""
        kinds = {
            "bandwidth": self._bandwidth, "latency": self._latency, "atomic": self._atomic,
            "round_trip": self._round_trip, "rate": self._rate,
            "meeting": self._meeting, "collective": self._collective,
        }  # fmt: skip
        found = kinds[case.kind](case)
        self.ctx.barrier()
        if self.place.wrong():
            raise Mismatch(f"{case.label}: {self.place.wrong()} words were not what they should be")
        return found

    # Bandwidth: rank 0 moves, rank 1 has the memory.

    def _bandwidth(self, case: ShmemCase) -> dict[str, Any]:
        self._moved(case, salt=1)
        times: dict[str, list[float]] = {"mori": [], LIMIT: []}
        if self.rank == 0:
            for turn in range(-_WARMUP, self.settings.iters):
                ns = self._move(case, case.rounds)
                limit = self._copy(case.bytes, case.rounds, case.op == "get", self.peer, case.blocks)
                if turn >= 0:
                    times["mori"].append(ns)
                    times[LIMIT].append(limit)
        self.ctx.barrier()
        self._moved(case, salt=2)
        return dict(times) if self.rank == 0 else {}

    def _move(self, case: ShmemCase, rounds: int) -> float:
        self.place.launch("rma", f"bench_{case.op}", case, rounds=rounds, nbytes=case.bytes, peer=self.peer)
        lanes = self.ctx.core_device.properties.warp_size
        groups = case.blocks * {"block": 1, "warp": case.warps, "thread": case.warps * lanes}[case.scope]
        return self.place.span_ns(groups) / rounds

    def _copy(self, nbytes: int, rounds: int, get: bool, peer: int, blocks: int = 1) -> float:
        """The limit: bytes from private memory into the peer's, or back, by the C library or a copy engine."""
        if self.settings.on_gpu:
            return self._copy_engine(nbytes, min(rounds, _MOST_COPIES), get, peer)
        case = ShmemCase("copy", "bandwidth", nbytes, "thread", blocks)
        self.place.launch("rma", "bench_copy", case, rounds=rounds, nbytes=nbytes, peer=peer, check=get)
        return self.place.span_ns(blocks) / rounds

    def _copy_engine(self, nbytes: int, rounds: int, get: bool, peer: int) -> float:
        import torch

        theirs, mine = self.ctx.peer_tensor(self.place.landing, peer)[:nbytes], self.place.source[:nbytes]
        target, source = (mine, theirs) if get else (theirs, mine)
        event: Any = torch.cuda.Event
        hold: Any = torch.cuda._sleep
        before, after = event(enable_timing=True), event(enable_timing=True)
        hold(1_000_000)  # cycles in which the copies are queued
        before.record()
        for _ in range(rounds):
            target.copy_(source, non_blocking=True)
        after.record()
        self.ctx.synchronize()
        return float(before.elapsed_time(after)) * 1e6 / rounds

    def _moved(self, case: ShmemCase, salt: int) -> None:
        """Moves fresh data once and compares every byte where it came to."""
        here, there = (
            (self.place.source, self.place.landing) if case.op == "put" else (self.place.landing, self.place.source)
        )
        giver, taker = (0, 1) if case.op == "put" else (1, 0)
        data = self._data(case.bytes, giver, salt)
        if self.rank == giver:
            self._fill(here, data)
        if self.rank == taker:
            there[: case.bytes].fill_(0xA5)
        self.ctx.barrier()
        if self.rank == 0:
            self._move(case, 1)
        self.ctx.barrier()
        if self.rank == taker:
            self._same(case, there, data)
        self.ctx.barrier()

    # Latency: ranks 0 and 1 throw and catch; half a round is one way.

    def _latency(self, case: ShmemCase) -> dict[str, Any]:
        place, paired = self.place, case.op == "put_signal_paired"
        target = place.pair[:1] if paired else place.landing
        signals = place.pair[1:] if paired else place.signals
        kernel = "bench_p" if case.op == "p" else "bench_put_signal"
        data = self._data(case.bytes, self.peer, 3)
        if not paired:
            self._fill(place.source, self._data(case.bytes, self.rank, 3))

        def go(samples: int, check: bool = False) -> None:
            place.launch(
                "latency", kernel, case, rounds=case.rounds, samples=samples, nbytes=case.bytes, peer=self.peer,
                target=target, signals=signals, in_shared=paired, check=check,
            )  # fmt: skip

        def bare(samples: int) -> None:
            place.launch("latency", "bench_bare", case, rounds=case.rounds, samples=samples, peer=self.peer)

        self.ctx.barrier()
        if self.rank <= 1:
            if case.op != "p":
                go(1, check=True)
            if not paired:
                self._fill(place.source, self._data(case.bytes, self.rank, 3))  # the check has written in it
            times = self._turns(go, bare, 2 * case.rounds)
        else:
            place.advance(case.rounds * ((case.op != "p") + 2 * self._samples() * _TURNS))
            times = {}
        self.ctx.barrier()
        if self.rank <= 1 and case.op == "put_signal":
            self._same(case, place.landing, data)
        return times if self.rank == 0 else {}

    def _samples(self) -> int:
        """Of one launch: its first is left out."""
        return -(-self.settings.iters // _TURNS) + 1

    def _turns(self, go: Any, limit: Any, operations: int) -> dict[str, Any]:
        count = self._samples()
        times: dict[str, list[NDArray[np.float64]]] = {"mori": [], LIMIT: []}
        for _ in range(_TURNS):
            for name, body in (("mori", go), (LIMIT, limit)):
                body(count)
                times[name].append(self.place.samples_ns(count) / operations)
        return {name: np.concatenate(parts) for name, parts in times.items()}

    # Over queues: rank 0 puts words into rank 1's memory.

    def _round_trip(self, case: ShmemCase) -> dict[str, Any]:
        """Limit: a word there and back, both ranks' processors looking for it."""
        place, words = self.place, self._words(case)
        go = self._only_first(
            lambda n: place.launch("rma", "bench_put_quiet", case, rounds=case.rounds, samples=n, peer=1)
        )

        def bare(samples: int) -> None:
            if self.rank <= 1:
                place.launch("latency", "bench_bare", case, rounds=case.rounds, samples=samples, peer=self.peer)
            else:
                place.advance(case.rounds * samples)

        times = self._turns(go, bare, case.rounds)
        self._landed(case, words)
        return times if self.rank == 0 else {}

    def _rate(self, case: ShmemCase) -> dict[str, Any]:
        words = self._words(case)
        times: dict[str, list[float]] = {"mori": [], LIMIT: []}
        for turn in range(-_WARMUP, self.settings.iters):
            for name, kernel in (("mori", "bench_put_rate"), (LIMIT, "bench_bare_put")):
                if self.rank == 0:
                    self.place.launch("rma", kernel, case, rounds=case.rounds, peer=1)
                    if turn >= 0:
                        times[name].append(self.place.span_ns(1) / case.rounds)
        self._landed(case, words)
        return dict(times) if self.rank == 0 else {}

    def _only_first(self, body: Any) -> Any:
        return lambda samples: body(samples) if self.rank == 0 else None

    def _words(self, case: ShmemCase) -> NDArray[np.uint8]:
        """What rank 0 puts into each of rank 1's words."""
        data = self._data(WORD, 0, 6 + case.queues)
        self._fill(self.place.source, data)
        self.place.landing.fill_(0xA5)
        self.ctx.barrier()
        return data

    def _landed(self, case: ShmemCase, word: NDArray[np.uint8]) -> None:
        self.ctx.barrier()
        if self.rank == 1:
            for queue in range(case.queues):
                self._same(case, self.place.landing[64 * queue :], word)

    # Atomics: rank 0 adds to a word of rank 1.

    def _atomic(self, case: ShmemCase) -> dict[str, Any]:
        place = self.place
        if self.rank == 1:
            place.landing[:8].fill_(0)
        self.ctx.barrier()
        one = case.blocks * case.warps == 1  # then one lane of the warp
        lanes = 1 if one else case.blocks * case.warps * self.ctx.core_device.properties.warp_size
        case = dataclasses.replace(case, scope="thread" if one else "block")
        turns = range(-_WARMUP, self.settings.iters)
        times: dict[str, list[float]] = {"mori": [], LIMIT: []}
        if self.rank == 0:
            fetches = case.op == "atomic_fetch_add"
            for turn in turns:
                for name, kernel in (("mori", f"bench_{case.op}"), (LIMIT, "bench_bare_add")):
                    place.launch("atomics", kernel, case, rounds=case.rounds, peer=1, check=fetches)
                    if turn >= 0:
                        times[name].append(place.span_ns(lanes) / case.rounds)
        self.ctx.barrier()
        if self.rank == 1:
            import torch

            found, expected = int(place.landing[:8].view(torch.int64).item()), 2 * len(turns) * case.rounds * lanes
            if found != expected:
                raise Mismatch(f"{case.label}: the word is {found} after {expected} additions")
        return dict(times) if self.rank == 0 else {}

    # All ranks.

    def _meeting(self, case: ShmemCase) -> dict[str, Any]:
        def go(samples: int, check: bool = False) -> None:
            self.place.launch("collectives", f"bench_{case.op}", case, rounds=case.rounds, samples=samples, check=check)

        if case.op == "barrier":
            go(1, check=True)
        return self._turns(go, lambda samples: self._exchange(case, samples), case.rounds)

    def _exchange(self, case: ShmemCase, samples: int) -> None:
        """The limit of meeting: bare words from everybody to everybody."""
        self.place.launch("collectives", "bench_exchange", case, rounds=case.rounds, samples=samples)

    def _collective(self, case: ShmemCase) -> dict[str, Any]:
        sends = case.op != "broadcast" or self.rank == 0
        self._together(case, salt=4)
        count = self._samples()
        times: dict[str, list[NDArray[np.float64]]] = {"mori": [], LIMIT: []}
        for _ in range(_TURNS):
            self._collect(case, count)
            times["mori"].append(self.place.samples_ns(count) / case.rounds)
            self._exchange(case, count)
            hops = self.place.samples_ns(count) / case.rounds * (2 if case.op == "reduce" else 1)
            copies = [self._plain(case) for _ in range(count - 1)] if sends else [0.0] * (count - 1)
            times[LIMIT].append(hops + np.array(copies))
            self.ctx.barrier()
        self._together(case, salt=5)
        return {name: np.concatenate(parts) for name, parts in times.items()}

    def _plain(self, case: ShmemCase) -> float:
        """A collective's bytes, copied to the right neighbour."""
        nbytes = wire_bytes(case, self.ranks)
        within = min(nbytes, landing_bytes(case, self.ranks))  # what lands may be more than there is room for
        return self._copy(within, case.rounds, False, (self.rank + 1) % self.ranks) * nbytes / within

    def _collect(self, case: ShmemCase, samples: int, rounds: int = 0) -> None:
        self.place.launch(
            "collectives", f"bench_{case.op}", case, rounds=rounds or case.rounds, samples=samples, nbytes=case.bytes
        )

    def _together(self, case: ShmemCase, salt: int) -> None:
        """One collective of fresh data, compared with what numpy makes of it."""
        everybody = [self._contribution(case, rank, salt) for rank in range(self.ranks)]
        self._fill(self.place.source, everybody[self.rank])
        self.place.landing.fill_(0xA5)
        self.ctx.barrier()
        self._collect(case, 1, 1)
        self.ctx.barrier()
        if case.op == "broadcast":
            expected = everybody[0]
        elif case.op == "fcollect":
            expected = np.concatenate(everybody)
        elif case.op == "alltoall":
            mine = slice(self.rank * case.bytes, (self.rank + 1) * case.bytes)
            expected = np.concatenate([part[mine] for part in everybody])
        else:
            numbers = np.stack([part.view(np.float32) for part in everybody])
            expected = np.asarray(numbers.sum(axis=0, dtype=np.float32)).view(np.uint8)
        self._same(case, self.place.landing, expected)
        self.ctx.barrier()

    def _contribution(self, case: ShmemCase, rank: int, salt: int) -> NDArray[np.uint8]:
        if case.op == "reduce":  # whole numbers, whose sums are exact
            random = np.random.default_rng((self.settings.seed, rank, salt))
            return random.integers(-512, 512, case.bytes // 4).astype(np.float32).view(np.uint8)
        return self._data(case.bytes * (self.ranks if case.op == "alltoall" else 1), rank, salt)

    def _data(self, nbytes: int, rank: int, salt: int) -> NDArray[np.uint8]:
        return np.frombuffer(np.random.default_rng((self.settings.seed, rank, salt)).bytes(nbytes), np.uint8)

    def _fill(self, tensor: Any, data: NDArray[np.uint8]) -> None:
        import torch

        tensor[: data.size].copy_(torch.from_numpy(data.copy()))

    def _same(self, case: ShmemCase, tensor: Any, expected: NDArray[np.uint8]) -> None:
        found = tensor[: expected.size].cpu().numpy()
        different = np.flatnonzero(found != expected)
        if different.size:
            first = int(different[0])
            raise Mismatch(
                f"{case.label}: rank {self.rank}: {different.size} bytes differ, the first at {first}: "
                f"{found[first]} instead of {expected[first]}"
            )
