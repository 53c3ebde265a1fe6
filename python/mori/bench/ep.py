# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""What one rank of `mori bench ep` does: make its tokens, dispatch, run the "expert", combine, check, time,
compare.

    verify -> dispatch and combine, timed apart beside the copy limit -> verify the last one -> each many times in one
    window -> both together -> times of every block, if asked -> peers

The library is driven through its public interface only. `opener` makes the context and the dispatcher; tests
give one of their own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from . import expert_peers, limit, peers, verify, verify_layouts
from .clock import EventClock, HostClock, SpinBarrier, repeated, steady, steady_rounds
from .cores import bind
from .progress import Pulse
from .settings import EpSettings
from .statistics import Spans
from .workload import Workload, make, payload, scales

__all__ = ["OPS", "RankResult", "open_mori", "run_rank"]

OPS = ("dispatch", "combine", "round_trip")
#: Graphs of single calls, of windows and the pass that checks hold results at the same time.
LIVE_RESULTS = 4
_FLUSH_BYTES = 256 << 20  # more than any GPU's cache
Opener = Callable[[int, int, Any, EpSettings, Any], tuple[Any, Any]]


@dataclasses.dataclass(frozen=True)
class RankResult:
    """What a rank brings home. Keys of `spans` are (implementation, operation); "copy" is the limit."""

    spans: dict[tuple[str, str], Spans]
    sms: int | None
    device: str
    notes: list[str]
    traces: dict[str, Any] = dataclasses.field(default_factory=dict)  # int64 [blocks, words] by operation


@dataclasses.dataclass(frozen=True)
class Extra:
    """Things that the launcher knows and the settings don't say."""

    devices: int = 0  # GPUs of this host
    pulse: str = ""  # path for Pulse
    store: str = ""  # file in which torch.distributed's peers meet; empty under torchrun, which has its own place
    threads: bool = False  # ranks are threads of one process


def open_mori(rank: int, world_size: int, uid: Any, settings: EpSettings, device: Any) -> tuple[Any, Any]:
    """A context and a dispatcher of MoRI. Without `uid` the ranks are torchrun's."""
    import torch

    import mori

    identity = {} if uid is None else {"uid": uid, "rank": rank, "world_size": world_size}
    form = settings.format
    scale_bytes = form.scale_bytes(settings.hidden)
    workload = make(settings)
    of_expert, slots = verify_layouts.capacities(settings, workload)
    by_layout: dict[str, dict[str, Any]] = {
        "rank": {},
        "expert": {"expert_capacity": of_expert, "align": settings.align},
        "grouped": {"slots": slots, "align": settings.align},
    }
    ctx = mori.init(**identity, device=device, heap_bytes=_heap_bytes(settings, of_expert, slots))
    moe = mori.ep.Dispatcher(
        ctx,
        hidden=settings.hidden,
        num_experts=settings.experts,
        topk=settings.topk,
        max_tokens=settings.tokens,
        dtype=getattr(torch, form.torch_dtype),
        scales=(scale_bytes, torch.uint8) if scale_bytes else None,
        expert_map=workload.owner.tolist(),
        layout=settings.layout,
        quantize=settings.quantize or None,
        live_results=LIVE_RESULTS,
        **by_layout[settings.layout],
    )
    return ctx, moe


def _heap_bytes(settings: EpSettings, of_expert: int, slots: int) -> int:
    """Room for the results that live at once and for what comes back."""
    row = max(settings.wire.row_bytes(settings.hidden), settings.combine_format.row_bytes(settings.hidden))
    rows = settings.ranks * settings.tokens
    most_experts = -(-settings.experts // settings.ranks)
    slots = {"rank": 0, "expert": most_experts * (of_expert + settings.align), "grouped": slots}[settings.layout]
    return (LIVE_RESULTS + 2) * rows * (row + 24 * settings.topk + 64) + LIVE_RESULTS * slots * row + (64 << 20)


def run_rank(
    rank: int, world_size: int, uid: Any, settings: EpSettings, extra: Extra, opener: Opener = open_mori
) -> RankResult:
    """Runs one rank from start to end. Raises verify.Mismatch where a result differs from the reference."""
    import torch

    torch.set_num_threads(1)  # the ranks are the parallelism; more threads would only take turns with them
    pulse = Pulse(extra.pulse if rank == 0 else "")
    device = torch.device("cpu")
    if settings.device == "cpu":
        bind(rank)
    else:
        device = torch.device("cuda", rank % extra.devices)
        torch.cuda.set_device(device)
        stream: Any = torch.cuda.Stream
        torch.cuda.set_stream(stream(device))
    ctx, moe = opener(rank, world_size, uid, settings, device)
    try:
        with torch.inference_mode():
            return _Rank(ctx, moe, settings, extra, device, pulse).run()
    finally:
        moe.close() if hasattr(moe, "close") else None
        ctx.close()


class _Rank:
    def __init__(self, ctx: Any, moe: Any, settings: EpSettings, extra: Extra, device: Any, pulse: Pulse) -> None:
        import torch

        self.ctx, self.moe, self.settings, self.extra, self.device, self.pulse = (
            ctx,
            moe,
            settings,
            extra,
            device,
            pulse,
        )
        self.workload: Workload = make(settings)
        form = settings.format
        row, scale_row = (form.payload_bytes(settings.hidden), form.scale_bytes(settings.hidden))
        self.tokens = torch.zeros((settings.tokens, row), dtype=torch.uint8, device=device)
        self.x = self.tokens.view(getattr(torch, form.torch_dtype))
        self.scales: Any = None
        if scale_row:
            self.scales = torch.zeros((settings.tokens, scale_row), dtype=torch.uint8, device=device)
        self._renew(self._fresh())
        self.ids = torch.from_numpy(self.workload.ids[ctx.rank]).to(device)
        self.weights = torch.from_numpy(self.workload.weights[ctx.rank]).to(device)
        self.rows: Any = None
        self.by_expert = settings.layout != "rank"
        self.factors: Any = verify_layouts.local_factors(self.workload, ctx.rank, device) if self.by_expert else None
        self.options: dict[str, Any] = {"blocks": settings.blocks} if settings.blocks else {}
        self.dispatch: Callable[[], Any] = self._dispatch
        self.combine: Callable[[Any], Any] = self._combine
        self.clock: Any = self._make_clock()

    def run(self) -> RankResult:
        if self.device.type != "cpu":
            self._load_kernels()
        spans: dict[tuple[str, str], Spans] = {}
        self.pulse.phase("verifying")
        self._verified_pass()
        if self.settings.graph:
            self._capture()
        spans.update(self._phases())
        if self.device.type == "cpu" or self.settings.graph:
            spans.update(self._steady())
        spans.update(self._round_trips())
        traces = self._traced() if self.settings.trace else {}
        notes: list[str] = []
        self.pulse.phase("peers", len(self.settings.peers))
        for peer in self.settings.peers:
            if peer == "mpi":
                continue  # a run of its own, under mpirun
            run = expert_peers.run if peer in expert_peers.PEERS else peers.torch_peer
            found, note = run(peer, self.ctx, self.settings, self.workload, self.extra, self.device, self.clock)
            spans.update({(peer, op): value for op, value in found.items()})
            notes += [note] if note else []
            self.pulse.step()
        self.ctx.barrier()  # nobody leaves while another still needs it
        sms = self.settings.blocks or None
        return RankResult(spans, sms, _device_name(self.device), notes, traces)

    def _load_kernels(self) -> None:
        """Runs once each of torch's kernels that is used between calls. CUDA loads a kernel at its first use
        and may wait for the GPU then: a deadlock while a kernel of another rank on it waits for this rank.
        """
        import torch

        dtype = getattr(torch, self.settings.combine_format.torch_dtype)
        rows = torch.zeros((1, self.settings.hidden), dtype=dtype, device=self.device)
        width = self.settings.wire.payload_bytes(self.settings.hidden)
        x = torch.zeros((1, width), dtype=torch.uint8, device=self.device)
        verify.expert_torch(self.settings, x, verify.factor(self.ctx.rank), rows)
        rows.fill_(verify.factor(self.ctx.rank))
        if self.by_expert:  # and those that find the factor of a slot
            place = torch.arange(8, device=self.device)
            group = torch.bucketize(place, torch.arange(1, 9, dtype=torch.int32, device=self.device).long())
            rows * self.factors[group.clamp(max=len(self.factors) - 1)].unsqueeze(1)[:1]
        if self.settings.flush:
            self.flushed = torch.zeros(_FLUSH_BYTES, dtype=torch.uint8, device=self.device)
        self.ctx.barrier()

    def _make_clock(self) -> Any:
        if self.device.type != "cpu":
            return EventClock(self.ctx.barrier)
        return HostClock(self.ctx.barrier if self.extra.threads else SpinBarrier(self.ctx))

    def _fresh(self) -> tuple[EpSettings, list[Any]]:
        """Tokens and scales not sent before, on the device, and the settings that they follow from."""
        import torch

        settings = dataclasses.replace(self.settings, seed=self.settings.seed + 1)
        shape = (settings.format, settings.hidden, settings.tokens, self.ctx.rank, settings.seed)
        parts = [payload(*shape), *([scales(*shape).copy()] if self.scales is not None else [])]
        return settings, [torch.from_numpy(part).to(self.device) for part in parts]

    def _renew(self, fresh: tuple[EpSettings, list[Any]]) -> None:
        """Puts them in the place of the old ones: results left over from earlier calls are wrong then."""
        self.settings, parts = fresh
        for target, part in zip((self.tokens, self.scales), parts, strict=False):
            target.copy_(part)

    # -- the library

    def _dispatch(self) -> Any:
        if self.scales is None:
            return self.moe.dispatch(self.x, self.ids, self.weights, **self.options)
        return self.moe.dispatch(self.x, self.ids, self.weights, scales=self.scales, **self.options)

    def _combine(self, recv: Any) -> Any:
        return self.moe.combine(self.rows, recv.routing, **self.options)

    def _expert(self, recv: Any) -> None:
        """Fills `rows` with what the expert makes of the received ones, without waiting for a GPU."""
        import torch

        if self.rows is None:
            dtype = getattr(torch, self.settings.combine_format.torch_dtype)
            shape = (*recv.x.shape[:-1], self.settings.hidden)
            self.rows = torch.zeros(shape, dtype=dtype, device=self.device)
        if self.by_expert:
            return self._experts(recv)
        count = int(recv.total) if self.device.type == "cpu" else recv.x.shape[0]
        by = verify.factor(self.ctx.rank)
        verify.expert_torch(self.settings, recv.x[:count].view(torch.uint8), by, self.rows[:count])

    def _experts(self, recv: Any) -> None:
        """The same for the layouts by expert; on a CPU of the rows that are there only."""
        import torch

        if self.device.type != "cpu":
            by = verify_layouts.slot_factors(recv, self.factors)
            return verify.expert_torch(self.settings, recv.x.view(torch.uint8), by, self.rows)
        starts, counts = recv.expert_offsets.tolist(), recv.expert_counts.tolist()
        x, rows = (t.view(-1, t.shape[-1]) for t in (recv.x.view(torch.uint8), self.rows))
        for start, count, by in zip(starts, counts, self.factors.tolist(), strict=False):
            verify.expert_torch(self.settings, x[start : start + count], by, rows[start : start + count])

    def _capture(self) -> None:
        """Replaces dispatch and combine by replays of a graph of each. Ranks take turns: beginning a capture
        waits for the whole GPU, which must not be in another rank's capture.
        """
        import torch

        first, second = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        kept: list[Any] = []

        def capture() -> None:
            kept.append(_captured(first, self._dispatch))
            # The graph goes on receiving in this buffer: it must not be lent to a call outside.
            kept.append(
                _captured(second, lambda: self.moe.combine(self.rows, kept[0].routing, release=False, **self.options))
            )

        self._by_turns(capture)
        replay = _replayer(second, kept[1])
        self.dispatch, self.combine = _replayer(first, kept[0]), lambda _: replay()

    # -- phases

    def _verified_pass(self) -> None:
        """One dispatch and combine, everything checked."""
        recv = self.dispatch()
        self._check_dispatch(recv)
        self._expert(recv)
        self._check_combine(self.combine(recv))

    def _phases(self) -> dict[tuple[str, str], Spans]:
        """Dispatch, combine and the plain copies that limit them, in turn: a busy machine slows all."""
        settings = self.settings
        copies, fresh = self._copies(), self._fresh()
        self.pulse.phase("dispatch and combine", settings.warmup + settings.iters)
        self.clock.drop()
        for iteration in range(-settings.warmup, settings.iters):
            if iteration == 0:
                self.clock.drop(steps=settings.iters * (3 + len(copies)))
            if iteration == settings.iters - 1:
                self._renew(fresh)
            self._flush()
            recv = self.clock.time("dispatch", self.dispatch)
            self._expert(recv)
            self._flush()
            y = self.clock.time("combine", lambda recv=recv: self.combine(recv))
            for op, copy in copies.items():
                self.clock.time(f"copy {op}", copy)
            self.pulse.step()
        found = self.clock.spans()
        self._check_combine(y)
        self._renew(self._fresh())
        self._verified_pass()
        keys = {f"copy {op}": ("copy", op) for op in copies}
        return {keys.get(name, ("mori", name)): value for name, value in found.items()}

    def _flush(self) -> None:
        if self.settings.flush:
            self.flushed.zero_()

    def _steady(self) -> dict[tuple[str, str], Spans]:
        """Many calls of one kind in one window, divided by their number: what a call costs in a stream of them."""
        import torch

        recv = self._dispatch()
        self._expert(recv)

        windows: dict[str, Callable[[], Any]] = {
            "dispatch": repeated(lambda: self._dispatch().release()),
            "combine": repeated(lambda: self.moe.combine(self.rows, recv.routing, release=False, **self.options)),
        }
        if self.settings.graph:
            graphs = {name: torch.cuda.CUDAGraph() for name in windows}
            kept: dict[str, Any] = {}
            self._by_turns(lambda: kept.update({n: _captured(g, windows[n]) for n, g in graphs.items()}))
            windows = {n: _replayer(g, kept[n]) for n, g in graphs.items()}
        self.pulse.phase("back to back", steady_rounds(self.settings.iters))
        found, results = steady(self.clock, windows, self.settings.iters, self.pulse.step)
        self._check_combine(results["combine"])
        recv.release()
        return {("mori", name): value for name, value in found.items()}

    def _by_turns(self, work: Callable[[], Any]) -> None:
        """Ranks one after the other: beginning a capture waits for the whole GPU."""
        for turn in range(self.ctx.world_size):
            if turn == self.ctx.rank:
                work()
            self.ctx.barrier()

    def _traced(self) -> dict[str, Any]:
        """When each block came to each phase in one dispatch and one combine, after some without."""
        from ..ep import trace_buffer

        buffers = {op: trace_buffer(self.device) for op in ("dispatch", "combine")}
        options = self.options
        for traced in (False, False, True):
            self.options = {**options, "trace": buffers["dispatch"]} if traced else options
            recv = self._dispatch()
            self._expert(recv)
            self.options = {**options, "trace": buffers["combine"]} if traced else options
            self._combine(recv)
            self.ctx.barrier()
        self.options = options
        return {op: buffer.cpu().numpy() for op, buffer in buffers.items()}

    def _round_trips(self) -> dict[tuple[str, str], Spans]:
        """Dispatch and combine with nothing between. What is combined are constants, doubled at last."""
        settings = self.settings
        self.pulse.phase("round trip", settings.warmup + settings.iters)
        self.clock.drop()
        for iteration in range(-settings.warmup, settings.iters):
            if iteration == 0:
                self.clock.drop(steps=settings.iters)
            constant = 2.0 if iteration == settings.iters - 1 else 1.0
            self.rows.fill_(constant * verify.factor(self.ctx.rank))
            y = self.clock.time("round_trip", lambda: self.combine(self.dispatch()))
            self.pulse.step()
        found = self.clock.spans()
        self._check_combine(y, constant=constant)
        return {("mori", op): value for op, value in found.items()}

    def _copies(self) -> dict[str, Callable[[], None]]:
        """The plain copy of each operation's bytes; none where there is nobody to copy to."""
        settings, rows = self.settings, self.workload.rows()
        if self.ctx.world_size == 1:
            return {}
        out = settings.format.row_bytes(settings.hidden) * rows
        back = settings.combine_format.row_bytes(settings.hidden) * rows.T
        return {
            "dispatch": limit.plain_copy(self.ctx, out, consecutive=False, device=self.device),
            "combine": limit.plain_copy(self.ctx, back, consecutive=True, device=self.device),
        }

    # -- checks

    def _check_dispatch(self, recv: Any) -> None:
        self.ctx.synchronize()
        self._agree(lambda: verify.check_dispatch(self.settings, self.workload, self.ctx.rank, self._on_the_host(recv)))

    def _on_the_host(self, recv: Any) -> verify.Received:
        """The rows that arrived; by expert, after a look at where they lie, one slot of each."""
        import torch

        total, form, hidden = int(recv.total), self.settings.wire, self.settings.hidden
        x, scales_ = recv.x, recv.scales
        if self.by_expert:
            first = verify_layouts.check_slots(recv, total, self.ctx.rank)
            x = recv.x.reshape(-1, recv.x.shape[-1]).view(torch.uint8)[first]
            scales_ = scales_ if scales_ is None else scales_.reshape(-1, scales_.shape[-1])[first]

        def host(tensor: Any) -> Any:
            return tensor[:total].cpu().numpy()

        def raw(tensor: Any, width: int) -> Any:
            return tensor[:total].contiguous().view(torch.uint8).reshape(total, width).cpu().numpy()

        width = form.scale_bytes(hidden)
        return verify.Received(
            x=raw(x, form.payload_bytes(hidden)),
            scales=raw(scales_, width) if width else np.zeros((total, 0), dtype=np.uint8),
            topk_ids=host(recv.topk_ids),
            topk_weights=host(recv.topk_weights),
            src=host(recv.src),
            counts=recv.counts.cpu().numpy(),
        )

    def _check_combine(self, y: Any, *, constant: float = 0.0) -> None:
        import torch

        self.ctx.synchronize()
        case = (self.settings, self.workload, self.ctx.rank)
        if self.by_expert:
            return self._agree(lambda: verify_layouts.check_sums(*case, y, constant=constant))
        got = y.contiguous().view(torch.uint8).cpu().numpy()
        self._agree(lambda: verify.check_combine(*case, got, constant=constant))

    def _agree(self, check: Callable[[], None]) -> None:
        """Raises on all ranks what the first of them has found, so that none is left waiting for it."""
        fault = ""
        try:
            check()
        except verify.Mismatch as error:
            fault = str(error)
        faults = [message.payload.decode() for message in self.ctx.mesh.exchange("bench verify", fault.encode())]
        if any(faults):
            raise verify.Mismatch(next(filter(None, faults)))


def _captured(graph: Any, work: Callable[[], Any]) -> Any:
    """What `work` returns when it is captured into the graph."""
    import torch

    with torch.cuda.graph(graph, stream=torch.cuda.current_stream(), capture_error_mode="thread_local"):
        return work()


def _replayer(graph: Any, result: Any) -> Callable[[], Any]:
    def replay() -> Any:
        graph.replay()
        return result

    return replay


def _device_name(device: Any) -> str:
    if device.type == "cpu":
        return "cpu"
    import torch

    return str(torch.cuda.get_device_name(device))
