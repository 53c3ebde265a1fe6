# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The Dispatcher: checks tensors, lends receive buffers, launches (src/ops/ep has the kernels)."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mori import _core
from mori.context import Context
from mori.ep import _autograd, _ops
from mori.ep._calls import Call, CombineCall, DispatchCall
from mori.ep._check import check_launch_number, check_tensor
from mori.ep._experts import CopyChooser, Placement, place
from mori.ep._halves import make_half
from mori.ep._plan import Plan, make_plan, value_types
from mori.ep._prepare import prepare_combine, prepare_dispatch
from mori.ep._recipe import Quantize
from mori.ep._results import Received, RoutingHandle
from mori.errors import ConfigError, MoriError
from mori.mesh import check_same

if TYPE_CHECKING:
    import torch

    from mori.ep._debug import Inspector

__all__ = ["Dispatcher", "combine", "dispatch"]


class Dispatcher:
    """Sends tokens to the ranks of their experts and sums what comes back, for one MoE layer shape.

    hidden: elements of a token; its row must be a multiple of 16 bytes.
    num_experts, topk (1 to 32): of the router; a token visits an expert once.
    max_tokens: most tokens a rank dispatches in one call; equal on all ranks.
    dtype: of dispatched rows: bfloat16 (default), float16, float32, float8_e4m3fn, float8_e4m3fnuz, or
        float4_e2m1fn_x2 or uint8 for packed fp4 (hidden then counts fp4 values, a row has hidden / 2 bytes).
    combine_dtype: the largest type of returned rows, bfloat16, float16 or float32 (default: dtype where it is one
        of those, else bfloat16).
    scales: (columns, dtype) of the scales that travel beside each row, or None.
    quantize: narrows rows on their way: a name of mori.ep.RECIPES or a mori.ep.Quantize; None sends them as they are.
    layout: where received rows lie: "rank" (a row per token, in order of arrival), "expert" ([experts, capacity,
        hidden]) or "grouped" (sorted by expert, each group beginning at a multiple of `align` rows).
    capacity: most rows a rank receives in one call (default: world_size x max_tokens, which cannot overflow).
    expert_capacity: most rows of one expert, layout expert (default: capacity). slots: length of the receive buffer
        in rows, layout grouped (default: cannot overflow). zero_padding: write zeros behind the rows of each group up
        to the next one, layout grouped; else what lies there is unspecified.
    live_results: how many results of dispatch may be alive at once.
    expert_map: for each expert the rank that holds it, or the ranks that hold a copy each (default: contiguous blocks,
        the first num_experts % world_size ranks one larger).
    count_load: count every rank's selections of each expert on the device, see `load`.
    debug: look for mistakes: poison, guards, stamps of rows, see docs/ep_debug.md (default: as the context).
    on_loss: what follows the call that a rank's death or absence has ended: "raise", the same error from every call
        until ctx.recover(); or "mask", the next call leaves out whoever is gone (docs/absence.md), for twice the
        memory.
    blocks, warps: launch shape, 0 = chosen.

    Collective; arguments are compared between ranks. One stream at a time may use a dispatcher.
    Raises ConfigError naming the argument, CapacityError for want of memory. Not capturable in a graph.
    """

    def __init__(
        self,
        ctx: Context,
        hidden: int,
        num_experts: int,
        *,
        topk: int,
        max_tokens: int,
        dtype: torch.dtype | None = None,
        combine_dtype: torch.dtype | None = None,
        scales: tuple[int, torch.dtype] | None = None,
        quantize: Quantize | str | None = None,
        layout: str = "rank",
        align: int | None = None,
        capacity: int | None = None,
        expert_capacity: int | None = None,
        slots: int | None = None,
        zero_padding: bool = False,
        live_results: int = 2,
        expert_map: Sequence[int | Sequence[int]] | None = None,
        count_load: bool = False,
        debug: bool | None = None,
        on_loss: str = "raise",
        blocks: int = 0,
        warps: int = 0,
    ) -> None:
        import torch

        ctx.ready()
        if ctx.transport != "p2p":
            raise ConfigError(
                f"mori.ep reaches peers by load and store; this context has transport={ctx.transport!r}, not 'p2p'"
            )
        self.ctx = ctx
        self.plan: Plan = make_plan(
            ctx.world_size, hidden, num_experts, topk=topk, max_tokens=max_tokens, dtype=dtype,
            combine_dtype=combine_dtype, scales=scales, capacity=capacity, live_results=live_results,
            expert_map=expert_map, layout=layout, align=align, expert_capacity=expert_capacity, slots=slots,
            zero_padding=zero_padding, quantize=quantize,
        )  # fmt: skip
        for name, value in (("blocks", blocks), ("warps", warps)):
            check_launch_number(name, value)
        if on_loss not in ("raise", "mask"):
            raise ConfigError(f"on_loss={on_loss!r}: allowed are 'raise' and 'mask'")
        self.debug = ctx.debug if debug is None else bool(debug)
        self.on_loss = on_loss
        config = self.plan.core(ctx.world_size, guarded=self.debug)
        self._layout = _core.ep_layout(config)
        agreed = self.plan.digest() | {"debug": str(self.debug), "on_loss": on_loss}
        check_same(ctx.mesh, "mori.ep.Dispatcher", agreed, timeout=ctx.timeout)
        self._halves = tuple(
            make_half(ctx, self.plan, self._layout, config, debug=self.debug, live_results=live_results,
                      blocks=blocks, warps=warps)
            for _ in range(1 if on_loss == "raise" else 2)
        )  # fmt: skip
        ctx.mesh.barrier("mori.ep.Dispatcher", timeout=ctx.timeout)
        self._core: Any = None
        self._inspector: Inspector | None = None
        self._use(ctx.absence.half % len(self._halves))
        self.placement: Placement = self.plan.placement
        self.chooser: CopyChooser | None = None
        if self.placement.replicated:
            copies = len(self.placement.copy_rank)
            self.chooser = CopyChooser(ctx.rank, num_experts, copies, max_tokens, ctx.device)
            self.chooser.load(self.placement)
        self._load: torch.Tensor | None = None
        if count_load:
            self._load = torch.zeros(len(self.placement.copy_rank), dtype=torch.int64, device=ctx.device)
        self.map_generation = self.memory_generation = self._dispatched = 0
        self._open: dict[type[Call], Call] = {}
        self._id_types = (torch.int32, torch.int64)
        self._values = value_types()
        self._here: torch.Tensor | None = None  # mask of the ranks that take part; None: all
        if on_loss == "mask":
            ctx.absence.enlist(self)

    # -- what it was made with

    @property
    def hidden(self) -> int:
        return self.plan.hidden

    @property
    def num_experts(self) -> int:
        return self.plan.num_experts

    @property
    def topk(self) -> int:
        return self.plan.topk

    @property
    def max_tokens(self) -> int:
        return self.plan.max_tokens

    @property
    def capacity(self) -> int:
        return self.plan.capacity

    @property
    def dtype(self) -> torch.dtype:
        return self.plan.dtype

    @functools.cached_property
    def number(self) -> int:
        """By which torch.ops.mori.* know it, see mori.ep.register_ops."""
        return _ops.enlist(self)

    @property
    def local_experts(self) -> int:
        """Experts, or copies of them, that live on this rank."""
        return len(self.placement.local(self.ctx.rank))

    @property
    def routing_bytes(self) -> int:
        """Size of the `data` of a routing handle."""
        return int(self._layout.routing_bytes)

    @property
    def load(self) -> torch.Tensor:
        """int64 [num_experts] on the device: selections of each expert by this rank's tokens in all dispatches since
        construction or `load.zero_()`; the sum over ranks is the load of the experts. With replicated experts a new
        tensor; `copy_load` is what to set to 0 then."""
        import torch

        if self.chooser is None:
            return self.copy_load
        total = torch.zeros(self.num_experts + 1, dtype=torch.int64, device=self.ctx.device)
        return total.index_add_(0, self.chooser.expert_of[:-1], self.copy_load)[:-1]

    @property
    def copy_load(self) -> torch.Tensor:
        """The same for each copy of an expert, in order of expert, then of rank."""
        if self._load is None:
            raise ConfigError("load: the dispatcher was made with count_load=False")
        return self._load

    # -- calls

    def dispatch(
        self,
        x: torch.Tensor,
        topk_ids: torch.Tensor | None = None,
        topk_weights: torch.Tensor | None = None,
        *,
        scales: torch.Tensor | None = None,
        routing: RoutingHandle | None = None,
        active: torch.Tensor | None = None,
        blocks: int = 0,
        trace: torch.Tensor | None = None,
    ) -> Received:
        """Sends each row of x to every rank that holds one of its experts. Collective, without tokens too.

        x: [tokens, hidden] of the dispatcher's dtype, contiguous, tokens <= max_tokens.
        topk_ids: int32 or int64 [tokens, topk], distinct global expert ids, -1 for none.
        topk_weights: float32 [tokens, topk] or None, on all ranks alike.
        scales: [tokens, columns] if the dispatcher has scales.
        routing: instead of ids and weights, go where an earlier dispatch went.
        active: int64 [1] on the device, alike on all ranks: bit r says whether rank r takes part. Experts of other
            ranks are as id -1; those ranks need not call.
        blocks: at most so many blocks (SMs, CUs) for this call, 0 = as constructed.
        trace: int64 [EP_MAX_BLOCKS, EP_TRACE_WORDS] to fill with times, see mori.ep.trace_buffer.

        Returns a Received. On the CPU its rows are there when the call returns, on a GPU when the stream gets there.
        Differentiable in x and topk_weights (mori.ep._autograd says how).
        Raises ConfigError for tensors that do not fit; CapacityError when live_results are alive, or when a rank or
        expert would receive more than its capacity (then nothing was sent); TimeoutError and PeerLost naming the peer.
        What the kernels of a GPU find is raised by ctx.synchronize() and ctx.check(); after a failed wait, by every
        call. Capturable in a CUDA graph: keep the result alive as long as the graph.
        """
        call = prepare_dispatch(self, x, topk_ids, topk_weights, scales, routing, active, blocks, trace)
        weights = call.handle.topk_weights
        if _autograd.wanted(x, weights):
            return _autograd.dispatch(self, call, x, weights)
        self.launch(call, _core.EP_SEND | _core.EP_RECEIVE)
        return call.received

    def combine(
        self,
        rows: torch.Tensor,
        routing: RoutingHandle,
        *,
        apply_weights: bool = False,
        bias: torch.Tensor | None = None,
        out: torch.Tensor | None = None,
        release: bool = True,
        wire: str | None = None,
        active: torch.Tensor | None = None,
        blocks: int = 0,
        trace: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Returns every received row to the rank of its token and sums them there. Collective.

        rows: in the places of Received.x, bfloat16, float16 or float32 (no larger than combine_dtype), contiguous:
            [at least total, hidden] in layout rank, [local experts, expert_capacity, hidden] in layout expert,
            [at least the slots used, hidden] in layout grouped.
        routing: of the dispatch that brought the rows; anything else is refused.
        apply_weights: layout rank: multiply the row of each rank by the sum of the token's top-k weights whose experts
            live there. By expert: multiply each row by the weight of its selection.
        bias: [tokens, hidden] added first, such as a shared expert's output.
        out: where to put the result.
        release: give the memory of the received rows back afterwards.
        wire: as what rows go to other ranks: None as they are; of bfloat16 rows "fp8_block" (e4m3fn, a float32 scale
            for 128 elements) or "fp8" (e4m3fn without a scale, saturated at 448). Gradients pass as if they were wide.
        active, blocks, trace: as in dispatch; active must be that of the dispatch, or less.

        Returns [tokens, hidden] in the type of rows: the fp32 sum in ascending rank order, rounded once; zeros (or the
        bias) for a token that went nowhere. By expert, a rank first sums its rows of a token in top-k order, in fp32,
        and rounds once. Bitwise repeatable. Differentiable in rows, bias and, with apply_weights, the weights.
        Raises as dispatch. Capturable in a CUDA graph.
        """
        call = prepare_combine(self, rows, routing, apply_weights, bias, out, release, wire, active, blocks, trace)
        weights = routing.topk_weights if apply_weights else None
        if _autograd.wanted(rows, weights, bias):
            if out is not None:
                raise ConfigError("out: given with tensors that require gradients; leave it out")
            return _autograd.combine(self, call)
        self.launch(call, _core.EP_SEND | _core.EP_RECEIVE)
        return call.out

    def dispatch_send(
        self,
        x: torch.Tensor,
        topk_ids: torch.Tensor | None = None,
        topk_weights: torch.Tensor | None = None,
        *,
        scales: torch.Tensor | None = None,
        routing: RoutingHandle | None = None,
        active: torch.Tensor | None = None,
        blocks: int = 0,
    ) -> DispatchCall:
        """The first half of dispatch: this rank's rows are on their way. Arguments as dispatch; not differentiable.

        Pass the result to dispatch_recv; until then no other dispatch may begin on this dispatcher."""
        call = prepare_dispatch(self, x, topk_ids, topk_weights, scales, routing, active, blocks, None)
        self.launch(call, _core.EP_SEND)
        return call

    def dispatch_recv(self, pending: DispatchCall) -> Received:
        """The second half: everything has come. Raises as dispatch."""
        self._finish(pending, DispatchCall)
        return pending.received

    def combine_send(
        self,
        rows: torch.Tensor,
        routing: RoutingHandle,
        *,
        apply_weights: bool = False,
        bias: torch.Tensor | None = None,
        out: torch.Tensor | None = None,
        release: bool = True,
        wire: str | None = None,
        active: torch.Tensor | None = None,
        blocks: int = 0,
    ) -> CombineCall:
        """The first half of combine: the rows are on their way home. Arguments as combine; not differentiable.

        Pass the result to combine_recv; until then no other combine may begin on this dispatcher."""
        call = prepare_combine(self, rows, routing, apply_weights, bias, out, release, wire, active, blocks, None)
        self.launch(call, _core.EP_SEND)
        return call

    def combine_recv(self, pending: CombineCall) -> torch.Tensor:
        """The second half: the sums. Raises as combine."""
        self._finish(pending, CombineCall)
        return pending.out

    def set_expert_map(self, expert_map: Sequence[int | Sequence[int]]) -> None:
        """Says anew where experts live, from the next call on; captured graphs follow. Collective, waits for the
        stream and for all ranks; not capturable.

        As many copies in all as before; in layouts by expert no more on a rank than one had at construction. Routing
        handles of earlier dispatches are refused from then on. Raises ConfigError."""
        self._check_usable()
        placement = place(expert_map, self.num_experts, self.ctx.world_size)
        old, new = len(self.placement.copy_rank), len(placement.copy_rank)
        if old != new:
            raise ConfigError(f"expert_map has {new} copies of experts in all, the dispatcher was made for {old}")
        most = self.plan.placement.most_on_a_rank
        if self.plan.layout != "rank" and placement.most_on_a_rank > most:
            raise ConfigError(
                f"expert_map puts {placement.most_on_a_rank} experts on a rank, the dispatcher was made for {most}"
            )
        held = {"expert_map": str(placement.held_by)}
        check_same(self.ctx.mesh, "mori.ep.set_expert_map", held, timeout=self.ctx.timeout)
        self.ctx.barrier()
        for half in self._halves:
            half.core.place_experts(list(placement.copy_rank))
        if self.chooser is not None:
            self.chooser.load(placement)
        self.placement = placement
        self.map_generation += 1
        self.ctx.barrier()

    def readmit(self) -> None:
        """Brings ranks that were left out by `active` back into step: afterwards all may take part again. Collective
        over all ranks, those too; waits for the stream and for all ranks; not capturable. No call may be half done.
        After ranks were left out by on_loss="mask" it is `ctx.readmit()` instead."""
        self._check_usable(DispatchCall)
        self._check_usable(CombineCall)
        self.ctx.barrier()
        epochs = (ctypes.c_uint64 * 2)()
        self.ctx.core_device.copy(ctypes.addressof(epochs), self._core.local_address, 16)
        told = self.ctx.mesh.exchange("mori.ep.readmit", bytes(epochs), timeout=self.ctx.timeout)
        counted = [(ctypes.c_uint64 * 2).from_buffer_copy(message.payload) for message in told]
        self._core.start_at(max(c[0] for c in counted), max(c[1] for c in counted))
        self.ctx.barrier()

    def check_memory(self) -> None:
        """Debug mode: raises MoriError naming the parts of this rank's memory behind which somebody wrote. On the CPU
        every call ends with it; on a GPU it waits for the stream."""
        if self._inspector is None:
            raise ConfigError("check_memory: the dispatcher was made with debug=False, or is closed")
        self._inspector.check_memory()

    # -- ranks that are gone, see mori._absence

    def make_new(self, half: int, generation: int) -> None:
        if self._halves:  # not closed
            self._halves[half].make_new(generation)

    def turn_to(self, half: int, left_out: frozenset[int]) -> None:
        import torch

        if not self._halves:
            return
        self._use(half)
        self._open.clear()
        self.memory_generation += 1
        here = sum(1 << rank for rank in range(self.ctx.world_size) if rank not in left_out)
        here -= 1 << 64 if here >= 1 << 63 else 0
        self._here = torch.tensor([here], dtype=torch.int64, device=self.ctx.device) if left_out else None

    # -- handles

    def handle(self, data: torch.Tensor, topk_ids: torch.Tensor, topk_weights: torch.Tensor | None) -> RoutingHandle:
        """A routing handle over these tensors."""
        copies = None if self.chooser is None else self.chooser.copies(topk_ids)
        return RoutingHandle(self, data, topk_ids, topk_weights, copies)

    def check_routing_tensors(
        self, data: torch.Tensor, topk_ids: torch.Tensor, topk_weights: torch.Tensor | None = None
    ) -> None:
        """Raises ConfigError unless the tensors have the form of a routing handle of this dispatcher. What they hold is
        checked by the call that uses them."""
        import torch

        if not isinstance(data, torch.Tensor) or data.dtype != torch.uint8 or data.shape != (self.routing_bytes,):
            what = f"{data.dtype} {tuple(data.shape)}" if isinstance(data, torch.Tensor) else type(data).__name__
            raise ConfigError(f"tensors[0] is {what}; wanted uint8 ({self.routing_bytes},)")
        if data.device != self.ctx.device:
            raise ConfigError(f"tensors[0] is on {data.device}, the context on {self.ctx.device}")
        tokens = self._check("tensors[1]", topk_ids, (None, self.topk), self._id_types)
        if tokens > self.max_tokens:
            raise ConfigError(f"tensors[1] is of {tokens} tokens, max_tokens is {self.max_tokens}")
        if topk_weights is not None:
            self._check("tensors[2]", topk_weights, (tokens, self.topk), (torch.float32,))

    # -- life

    def close(self) -> None:
        """Gives the memory back once all ranks have closed and all results are dropped. Local."""
        self._core = self._inspector = None
        self._halves = ()

    def __enter__(self) -> Dispatcher:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- inside

    def _use(self, which: int) -> None:
        half = self._halves[which]
        self._memory, self._leases, self._inspector = half.memory, half.leases, half.inspector
        self._core = half.core

    def launch(self, call: Call, phases: int) -> None:
        """Runs a call, or half of one. What it raises leaves memory and handles as if it had not been made."""
        inspector = self._inspector
        try:
            if inspector is not None and phases & _core.EP_SEND:
                inspector.before(call, self._core)
            if phases == _core.EP_SEND:
                self._open[type(call)] = call
            call.launch(self._core, self.ctx.stream(), phases, self._values)
            if self.ctx.synchronous:
                self.ctx.check()
            if inspector is not None and phases & _core.EP_RECEIVE:
                inspector.after(call, self._core)
        except MoriError:
            call.failed()  # whoever holds the error would hold its frames, and in them the result
            raise
        if phases & _core.EP_RECEIVE and isinstance(call, CombineCall) and call.release:
            self._leases.release_of(call.routing)

    def _finish(self, pending: Any, kind: type[Call]) -> None:
        self._check_usable()
        if not isinstance(pending, kind) or self._open.get(kind) is not pending:
            what = f"{kind.verb}_send"
            raise ConfigError(f"pending={type(pending).__name__}: pass what {what} returned, once, to its dispatcher")
        del self._open[kind]
        self.launch(pending, _core.EP_RECEIVE)

    def _check_usable(self, kind: type[Call] | None = None) -> None:
        if self.on_loss == "mask" and self._core is not None and self.ctx.lost_a_rank:
            self.ctx.leave_out()
        self.ctx.ready()
        if self._core is None:
            raise ConfigError("the dispatcher is closed")
        if kind is not None and kind in self._open:
            raise ConfigError(f"{kind.verb}_send was called and {kind.verb}_recv was not; finish that call first")

    def check_combine(self, routing: RoutingHandle) -> None:
        """Whether rows of this dispatch can be combined now."""
        self._check_usable(CombineCall)
        self._check_owner(routing)

    def _check_owner(self, routing: RoutingHandle) -> None:
        if not isinstance(routing, RoutingHandle):
            raise ConfigError(f"routing={type(routing).__name__}: pass recv.routing, the handle that dispatch returned")
        if routing._owner() is not self:
            raise ConfigError("routing belongs to another dispatcher")
        if routing.map_generation != self.map_generation:
            raise ConfigError("routing is of a dispatch before set_expert_map; its experts may have moved")
        if routing.memory_generation != self.memory_generation:
            raise ConfigError("routing is of a dispatch before ranks were left out or taken in again; dispatch anew")

    def _check(self, name: str, tensor: torch.Tensor, shape: Sequence[int | None], dtypes: Any) -> int:
        return check_tensor(self.ctx.device, name, tensor, shape, dtypes)


def dispatch(moe: Dispatcher, *args: Any, **kwargs: Any) -> Received:
    """`moe.dispatch(...)` as a function."""
    return moe.dispatch(*args, **kwargs)


def combine(moe: Dispatcher, *args: Any, **kwargs: Any) -> torch.Tensor:
    """`moe.combine(...)` as a function."""
    return moe.combine(*args, **kwargs)
