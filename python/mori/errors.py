# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The exceptions of MoRI, one family.

    MoriError
    |- ConfigError      (ValueError)     refused before anything ran: a bad argument, or ranks that disagree
    |- CapacityError                     more rows, results or bytes than were set aside at construction
    `- TransportError                    something went wrong between ranks
       |- TimeoutError  (TimeoutError)   a wait reached its deadline; `.what .peer .expected .seen .missing`
       `- PeerLost                       a rank died or left; `.peer`

All of them survive pickling with their fields, so they can travel from a worker process to its parent.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterable
from typing import Any

__all__ = ["CapacityError", "ConfigError", "MoriError", "PeerLost", "TimeoutError", "TransportError"]


class MoriError(Exception):
    """Base of everything MoRI raises on purpose."""


class ConfigError(MoriError, ValueError):
    """A call or a configuration that cannot be right; nothing was executed."""


class CapacityError(MoriError):
    """A buffer set aside at construction is too small for what was asked."""


class TransportError(MoriError):
    """Ranks could not exchange something."""


class TimeoutError(TransportError, builtins.TimeoutError):
    """A wait reached its deadline.

    `what` names the wait, `peer` the rank waited for (the first one, if several), `expected` and `seen` the
    values of the signal where there is one, and `missing` all ranks that did not come.
    """

    def __init__(
        self,
        message: str = "",
        *,
        what: str = "",
        peer: int | None = None,
        expected: int | None = None,
        seen: int | None = None,
        missing: Iterable[int] = (),
    ) -> None:
        self.what = what
        self.missing = tuple(missing)
        self.peer = self.missing[0] if peer is None and self.missing else peer
        self.expected = expected
        self.seen = seen
        super().__init__(message or self._describe())

    def _describe(self) -> str:
        text = f"{self.what or 'a wait'} reached its deadline"
        if len(self.missing) > 1:
            text += f"; ranks {', '.join(map(str, self.missing))} did not come"
        elif self.peer is not None:
            text += f" waiting for rank {self.peer}"
        if self.expected is not None or self.seen is not None:
            text += f" (expected {self.expected}, seen {self.seen})"
        return text

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        fields = {name: getattr(self, name) for name in ("what", "peer", "expected", "seen", "missing")}
        return _rebuild, (type(self), str(self), fields)


class PeerLost(TransportError):
    """Rank `peer` died, or left while it was still needed."""

    def __init__(self, message: str = "", *, peer: int | None = None) -> None:
        self.peer = peer
        super().__init__(message or (f"rank {peer} is gone" if peer is not None else "a rank is gone"))

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _rebuild, (type(self), str(self), {"peer": self.peer})


def _rebuild(kind: type[MoriError], message: str, fields: dict[str, Any]) -> MoriError:
    return kind(message, **fields)
