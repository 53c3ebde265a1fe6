# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The Dispatcher: checks tensors, lends receive buffers, launches (src/ops/ep has the kernels)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mori import _core
from mori.context import Context
from mori.ep._leases import Leases
from mori.ep._results import Received, ReceiveLayout, RoutingHandle
from mori.errors import ConfigError, MoriError
from mori.mesh import check_same

if TYPE_CHECKING:
    import torch

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
    capacity: most rows a rank receives in one call (default: world_size x max_tokens, which cannot overflow).
    live_results: how many results of dispatch may be alive at once.
    expert_map: for each expert the rank that holds it (default: contiguous blocks, the first
        num_experts % world_size ranks one larger).
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
        capacity: int | None = None,
        live_results: int = 2,
        expert_map: Sequence[int] | None = None,
        blocks: int = 0,
        warps: int = 0,
    ) -> None:
        import torch

        ctx.ready()
        self.ctx = ctx
        self.dtype = torch.bfloat16 if dtype is None else dtype
        self.hidden, self.num_experts, self.topk, self.max_tokens = hidden, num_experts, topk, max_tokens
        for name in ("hidden", "num_experts", "topk", "max_tokens", "live_results"):
            value = locals()[name]
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value < 1 << 31:
                raise ConfigError(f"{name}={value!r} must be an integer of 1 to 2^31 - 1")
        if topk > num_experts:
            raise ConfigError(f"topk={topk} exceeds num_experts={num_experts}; a token can visit an expert once")
        elements = _elements(torch)
        if self.dtype not in _row_types(torch):
            raise ConfigError(f"dtype={self.dtype}: allowed are {_names(_row_types(torch))}")
        self.row_elements = hidden // 2 if self.dtype in _packed(torch) else hidden
        if self.dtype in _packed(torch) and hidden % 2:
            raise ConfigError(f"hidden={hidden} must be even for packed fp4")
        self.combine_dtype = combine_dtype or (self.dtype if self.dtype in elements else torch.bfloat16)
        if self.combine_dtype not in elements:
            raise ConfigError(f"combine_dtype={combine_dtype}: allowed are {_names(elements)}")
        for name, row_bytes in (
            ("a row", self.row_elements * self.dtype.itemsize),
            ("a combined row", hidden * self.combine_dtype.itemsize),
        ):
            if row_bytes % 16:
                raise ConfigError(f"hidden={hidden}: {name} has {row_bytes} bytes, it must be a multiple of 16")
        self.scales = scales
        scale_bytes = 0
        if scales is not None:
            good = isinstance(scales, tuple) and len(scales) == 2 and isinstance(scales[0], int)
            if not (good and 0 < scales[0] < 1 << 24 and isinstance(scales[1], torch.dtype)):
                raise ConfigError(f"scales={scales!r} must be (columns, dtype) with columns of 1 to 2^24 - 1")
            scale_bytes = scales[0] * scales[1].itemsize
        self.capacity = ctx.world_size * max_tokens if capacity is None else capacity
        if not isinstance(self.capacity, int) or not 1 <= self.capacity < 1 << 32:
            raise ConfigError(f"capacity={capacity!r} must be a number of rows, 1 to 2^32 - 1")
        for name, value in (("blocks", blocks), ("warps", warps)):
            if not isinstance(value, int) or not 0 <= value < 1 << 16:
                raise ConfigError(f"{name}={value!r} must be an integer of 0 to 2^16 - 1; 0 chooses")
        self.expert_map = _expert_map(expert_map, num_experts, ctx.world_size)
        config = _core.EpConfig(
            row_bytes=self.row_elements * self.dtype.itemsize,
            combine_row_bytes=hidden * self.combine_dtype.itemsize,
            capacity=self.capacity,
            world_size=ctx.world_size,
            num_experts=num_experts,
            topk=topk,
            max_tokens=max_tokens,
            scale_bytes=scale_bytes,
            live_results=live_results,
        )
        self._layout = _core.ep_layout(config)
        mine = {
            "hidden": hidden, "num_experts": num_experts, "topk": topk, "max_tokens": max_tokens,
            "dtype": str(self.dtype),
            "combine_dtype": str(self.combine_dtype), "scales": str(scales), "capacity": self.capacity,
            "live_results": live_results, "expert_map": str(self.expert_map),
        }  # fmt: skip
        check_same(ctx.mesh, "mori.ep.Dispatcher", mine, timeout=ctx.timeout)
        # The signals must be 0 before a peer can raise them; only the head of the memory holds any.
        self._memory = ctx.heap.allocate(self._layout.heap_bytes, purpose="mori.ep.Dispatcher")
        ctx.heap.core.fill(self._memory.offset, 0, self._layout.signal_bytes)
        ctx.mesh.barrier("mori.ep.Dispatcher", timeout=ctx.timeout)
        self._core: Any = _core.EpDispatcher(
            ctx.core,
            config,
            heap_offset=self._memory.offset,
            expert_rank=list(self.expert_map),
            blocks=blocks or ctx.default_blocks,
            warps=warps,
        )
        self._leases = Leases(ctx, self._memory, self._layout, live_results)
        receive = self._layout.receive
        self._receive = ReceiveLayout(
            rows=receive.rows,
            ids=receive.ids,
            weights=receive.weights,
            scales=receive.scales,
            sources=receive.sources,
            capacity=self.capacity,
            row_elements=self.row_elements,
            dtype=self.dtype,
            scale_kind=scales,
        )
        self._id_types = (torch.int32, torch.int64)
        self._elements = elements

    @property
    def routing_bytes(self) -> int:
        """Size of the `data` of a routing handle."""
        return int(self._layout.routing_bytes)

    def dispatch(
        self,
        x: torch.Tensor,
        topk_ids: torch.Tensor | None = None,
        topk_weights: torch.Tensor | None = None,
        *,
        scales: torch.Tensor | None = None,
        routing: RoutingHandle | None = None,
    ) -> Received:
        """Sends each row of x once to every rank that holds one of its experts. Collective, without tokens too.

        x: [tokens, hidden] of the dispatcher's dtype, contiguous, tokens <= max_tokens.
        topk_ids: int32 or int64 [tokens, topk], distinct global expert ids, -1 for none.
        topk_weights: float32 [tokens, topk] or None, on all ranks alike.
        scales: [tokens, columns] if the dispatcher has scales.
        routing: instead of ids and weights, go where an earlier dispatch went.

        Returns a Received. On the CPU its rows are there when the call returns, on a GPU when the stream gets there.
        Raises ConfigError for tensors that do not fit; CapacityError when live_results are alive, or when a rank would
        receive more than capacity rows (then nothing was sent); TimeoutError and PeerLost naming the peer. What the
        kernels of a GPU find is raised by ctx.synchronize() and ctx.check(); after a failed wait, by every call.
        Capturable in a CUDA graph: keep the result alive as long as the graph.
        """
        import torch

        self._check_usable()
        if routing is not None:
            if topk_ids is not None or topk_weights is not None:
                raise ConfigError("topk_ids and topk_weights come from routing; do not pass both")
            self._check_owner(routing)
            topk_ids, topk_weights = routing.topk_ids, routing.topk_weights
        if topk_ids is None:
            raise ConfigError("topk_ids is missing; pass it, or routing of an earlier dispatch")
        tokens = self._check_tensor("x", x, (None, self.row_elements), (self.dtype,))
        if tokens > self.max_tokens:
            raise ConfigError(f"x has {tokens} tokens, max_tokens is {self.max_tokens}")
        if routing is not None and tokens != routing.tokens:
            raise ConfigError(f"x has {tokens} tokens, routing is of {routing.tokens}")
        self._check_tensor("topk_ids", topk_ids, (tokens, self.topk), self._id_types)
        if topk_weights is not None:
            self._check_tensor("topk_weights", topk_weights, (tokens, self.topk), (torch.float32,))
        if (scales is not None) != (self.scales is not None):
            need = "has none" if self.scales is None else f"was made with {self.scales}"
            raise ConfigError(f"scales={'given' if scales is not None else None}: the dispatcher {need}")
        if scales is not None and self.scales is not None:
            self._check_tensor("scales", scales, (tokens, self.scales[0]), (self.scales[1],))
        lease = self._leases.take()
        handle = RoutingHandle(
            self,
            torch.empty(self.routing_bytes, dtype=torch.uint8, device=self.ctx.device),
            topk_ids,
            topk_weights,
        )
        self._leases.bind(lease, handle)
        received = Received(self._receive, lease.tensor, handle, lease.release)
        self._core.dispatch(
            self.ctx.stream(),
            x.data_ptr(),
            topk_ids.data_ptr(),
            topk_weights.data_ptr() if topk_weights is not None and tokens else int(topk_weights is not None),
            scales.data_ptr() if scales is not None and tokens else int(scales is not None),
            handle.data.data_ptr(),
            tokens,
            topk_ids.element_size(),
            lease.index,
        )
        if self.ctx.synchronous:
            try:
                self.ctx.check()
            except MoriError:
                lease.release()  # whoever holds the error would hold its frames, and in them the result
                raise
        return received

    def combine(
        self,
        rows: torch.Tensor,
        routing: RoutingHandle,
        *,
        apply_weights: bool = False,
        bias: torch.Tensor | None = None,
        out: torch.Tensor | None = None,
        release: bool = True,
    ) -> torch.Tensor:
        """Returns every received row to the rank of its token and sums them there. Collective.

        rows: [at least total, hidden] of bfloat16, float16 or float32 (no larger than combine_dtype), contiguous, in
            the order of Received.x.
        routing: of the dispatch that brought the rows; anything else is refused.
        apply_weights: multiply the row of each rank by the sum of the token's top-k weights whose experts live there.
        bias: [tokens, hidden] added first, such as a shared expert's output.
        out: where to put the result.
        release: give the memory of the received rows back afterwards.

        Returns [tokens, hidden] in the type of rows: the fp32 sum in ascending rank order, rounded once; zeros (or the
        bias) for a token that went nowhere. Bitwise repeatable. Raises as dispatch. Capturable in a CUDA graph.
        """
        import torch

        self._check_usable()
        self._check_owner(routing)
        tokens = routing.tokens
        count = self._check_tensor("rows", rows, (None, self.hidden), tuple(self._elements))
        if rows.dtype.itemsize > self.combine_dtype.itemsize:
            raise ConfigError(f"rows are {rows.dtype}, larger than combine_dtype={self.combine_dtype}")
        self._check_row_count(count, routing)
        if bias is not None:
            self._check_tensor("bias", bias, (tokens, self.hidden), (rows.dtype,))
        if apply_weights and routing.topk_weights is None:
            raise ConfigError("apply_weights=True: the dispatch had no topk_weights")
        if out is None:
            out = torch.empty((tokens, self.hidden), dtype=rows.dtype, device=rows.device)
        else:
            self._check_tensor("out", out, (tokens, self.hidden), (rows.dtype,))
        weights = routing.topk_weights if apply_weights else None
        self._core.combine(
            self.ctx.stream(),
            rows.data_ptr(),
            out.data_ptr(),
            bias.data_ptr() if bias is not None else 0,
            weights.data_ptr() if weights is not None else 0,
            routing.topk_ids.data_ptr(),
            routing.data.data_ptr(),
            tokens,
            routing.topk_ids.element_size(),
            self.hidden,
            min(count, 2**32 - 1),
            self._elements[rows.dtype],
        )
        if self.ctx.synchronous:
            self.ctx.check()  # a refused combine leaves the rows for another
        if release:
            self._leases.release_of(routing)
        return out

    def check_routing_tensors(
        self, data: torch.Tensor, topk_ids: torch.Tensor, topk_weights: torch.Tensor | None = None
    ) -> None:
        """Raises ConfigError unless the tensors have the form of a routing handle of this dispatcher. What they hold is
        looked at by combine."""
        import torch

        if isinstance(data, torch.Tensor) and data.dim() == 1:
            self._check_tensor("tensors[0]", data.view(1, -1), (1, self.routing_bytes), (torch.uint8,))
        else:
            raise ConfigError(f"tensors[0] must be a uint8 tensor of {self.routing_bytes} bytes")
        tokens = self._check_tensor("tensors[1]", topk_ids, (None, self.topk), self._id_types)
        if tokens > self.max_tokens:
            raise ConfigError(f"tensors[1] is of {tokens} tokens, max_tokens is {self.max_tokens}")
        if topk_weights is not None:
            self._check_tensor("tensors[2]", topk_weights, (tokens, self.topk), (torch.float32,))

    def close(self) -> None:
        """Gives the memory back once all ranks have closed and all results are dropped. Local."""
        self._core = None

    def __enter__(self) -> Dispatcher:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _check_usable(self) -> None:
        self.ctx.ready()
        if self._core is None:
            raise ConfigError("the dispatcher is closed")

    def _check_owner(self, routing: RoutingHandle) -> None:
        if not isinstance(routing, RoutingHandle):
            raise ConfigError(f"routing={type(routing).__name__}: pass recv.routing, the handle that dispatch returned")
        if routing._owner() is not self:
            raise ConfigError("routing belongs to another dispatcher")

    def _check_tensor(
        self, name: str, tensor: torch.Tensor, shape: tuple[int | None, int], dtypes: Sequence[torch.dtype]
    ) -> int:
        import torch

        if not isinstance(tensor, torch.Tensor):
            raise ConfigError(f"{name} must be a torch tensor, got {type(tensor).__name__}")
        if tensor.dtype not in dtypes:
            raise ConfigError(f"{name} is {tensor.dtype}; allowed: {_names(dtypes)}")
        got = tuple(tensor.shape)
        if len(got) != 2 or got[1] != shape[1] or (shape[0] is not None and got[0] != shape[0]):
            wanted = ("tokens" if shape[0] is None else shape[0], shape[1])
            raise ConfigError(f"{name} has shape {got}; wanted ({wanted[0]}, {wanted[1]})")
        if not tensor.is_contiguous():
            raise ConfigError(f"{name} has strides {tuple(tensor.stride())}; it must be contiguous")
        device = self.ctx.device
        if tensor.device != device:
            raise ConfigError(f"{name} is on {tensor.device}, the context on {device}")
        if got[0] and shape[1] * tensor.element_size() % 16 == 0 and tensor.data_ptr() % 16:
            raise ConfigError(f"{name} begins at {tensor.data_ptr():#x}; it must be aligned to 16 bytes")
        return int(got[0])

    def _check_row_count(self, count: int, routing: RoutingHandle) -> None:
        """On the CPU the number of rows is known; on a GPU only that capacity rows always suffice."""
        if self.ctx.synchronous:
            need = int(routing.total.item())
            if count < need:
                raise ConfigError(f"rows has {count} rows, the routing brought {need}")


def dispatch(moe: Dispatcher, *args: Any, **kwargs: Any) -> Received:
    """`moe.dispatch(...)` as a function."""
    return moe.dispatch(*args, **kwargs)


def combine(moe: Dispatcher, *args: Any, **kwargs: Any) -> torch.Tensor:
    """`moe.combine(...)` as a function."""
    return moe.combine(*args, **kwargs)


def _expert_map(given: Sequence[int] | None, num_experts: int, world_size: int) -> tuple[int, ...]:
    if given is None:
        each, larger = divmod(num_experts, world_size)
        sizes = [each + (rank < larger) for rank in range(world_size)]
        return tuple(rank for rank, size in enumerate(sizes) for _ in range(size))
    try:
        ranks = tuple(int(rank) for rank in given)
    except (TypeError, ValueError):
        raise ConfigError(f"expert_map={given!r} must hold the rank of each expert") from None
    if len(ranks) != num_experts:
        raise ConfigError(f"expert_map has {len(ranks)} entries, num_experts is {num_experts}")
    for expert, rank in enumerate(ranks):
        if not 0 <= rank < world_size:
            raise ConfigError(f"expert_map[{expert}]={rank} is not a rank of 0..{world_size - 1}")
    return ranks


def _elements(torch: Any) -> dict[Any, Any]:
    kinds = _core.Element
    return {torch.bfloat16: kinds.bf16, torch.float16: kinds.fp16, torch.float32: kinds.fp32}


def _packed(torch: Any) -> tuple[Any, ...]:
    """Types that hold two fp4 values in a byte."""
    return tuple(t for t in (torch.uint8, getattr(torch, "float4_e2m1fn_x2", None)) if t is not None)


def _row_types(torch: Any) -> tuple[Any, ...]:
    plain = (torch.bfloat16, torch.float16, torch.float32, torch.float8_e4m3fn, torch.float8_e4m3fnuz)
    return (*plain, *_packed(torch))


def _names(dtypes: Any) -> str:
    return ", ".join(str(t).removeprefix("torch.") for t in dtypes)
