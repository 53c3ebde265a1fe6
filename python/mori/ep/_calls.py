# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""One dispatch or combine, checked and ready: everything that its kernels read stays alive in it between its halves."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

from mori import _core

if TYPE_CHECKING:
    import torch

    from mori.ep._leases import Lease
    from mori.ep._results import Received, RoutingHandle

__all__ = ["Call", "CombineCall", "DispatchCall"]


class Call:
    """Launched once as a whole, or once for each half."""

    verb: ClassVar[str]

    def launch(self, core: Any, stream: int, phases: int, kinds: Any) -> None:
        raise NotImplementedError

    def failed(self) -> None:
        """Gives back what the call had taken."""


@dataclasses.dataclass
class DispatchCall(Call):
    """What dispatch_send returns, for dispatch_recv."""

    verb = "dispatch"
    x: torch.Tensor
    scales: torch.Tensor | None
    handle: RoutingHandle
    lease: Lease
    received: Received
    load: torch.Tensor | None
    active: torch.Tensor | None
    blocks: int
    trace: torch.Tensor | None

    def launch(self, core: Any, stream: int, phases: int, kinds: Any) -> None:
        ids, weights = self.handle.copies, self.handle.topk_weights
        core.dispatch(
            stream,
            self.x.data_ptr(),
            ids.data_ptr(),
            _given(weights),
            _given(self.scales),
            self.handle.data.data_ptr(),
            self.handle.tokens,
            ids.element_size(),
            self.lease.index,
            load=_address(self.load),
            active=_address(self.active),
            trace=_address(self.trace),
            phases=phases,
            blocks=self.blocks,
        )

    def failed(self) -> None:
        self.lease.release()


@dataclasses.dataclass
class CombineCall(Call):
    """What combine_send returns, for combine_recv."""

    verb = "combine"
    rows: torch.Tensor
    routing: RoutingHandle
    apply_weights: bool
    bias: torch.Tensor | None
    out: torch.Tensor
    release: bool
    hidden: int
    row_count: int
    row_weights: int  # by expert: address of the received weights, applied there and not at the owner; 0 = none
    wire: Any
    active: torch.Tensor | None
    blocks: int
    trace: torch.Tensor | None

    def launch(self, core: Any, stream: int, phases: int, kinds: Any) -> None:
        ids = self.routing.copies
        core.combine(
            stream,
            self.rows.data_ptr(),
            self.out.data_ptr(),
            _address(self.bias),
            _address(self.routing.topk_weights if self.apply_weights and not self.row_weights else None),
            ids.data_ptr(),
            self.routing.data.data_ptr(),
            self.routing.tokens,
            ids.element_size(),
            self.hidden,
            min(self.row_count, 2**32 - 1),
            kinds[self.rows.dtype],
            active=_address(self.active),
            trace=_address(self.trace),
            phases=phases,
            blocks=self.blocks,
            row_weights=self.row_weights,
            wire=self.wire,
        )


def _address(tensor: torch.Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _given(tensor: torch.Tensor | None) -> int:
    """An address that is not 0 for a tensor that is there, if only without rows: ranks must agree on what is sent."""
    return 0 if tensor is None else tensor.data_ptr() or 1


def trace_buffer(device: torch.device) -> torch.Tensor:
    """An int64 tensor of zeros for `trace=`: for each block of a launch the device's clock, in ns, at each phase."""
    import torch

    return torch.zeros((_core.EP_MAX_BLOCKS, _core.EP_TRACE_WORDS), dtype=torch.int64, device=device)
