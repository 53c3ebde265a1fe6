# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""A point in time that every wait of the control plane is measured against.

A timeout is a number of seconds; 0 (or infinity) waits for ever, which is meant for debuggers.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from .errors import ConfigError

T = TypeVar("T")


class Deadline:
    """`timeout` seconds from its construction."""

    def __init__(self, timeout: float) -> None:
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or math.isnan(timeout) or timeout < 0:
            raise ConfigError(f"timeout={timeout!r} is not a number of seconds >= 0 (0 waits for ever)")
        self.timeout = float(timeout)
        self._end = math.inf if timeout == 0 else time.monotonic() + timeout

    @property
    def forever(self) -> bool:
        return self._end == math.inf

    def remaining(self) -> float:
        """Seconds left, never negative; infinity when it waits for ever."""
        return max(0.0, self._end - time.monotonic())

    def as_timeout(self) -> float:
        """The time left as a timeout for somebody else: positive, or 0 for ever."""
        return 0.0 if self.forever else max(self.remaining(), 0.001)

    def expired(self) -> bool:
        return time.monotonic() >= self._end

    def poll_ms(self, limit_s: float = 3600.0) -> int:
        """What to give to poll(): the time left, at most `limit_s`, rounded up so that it never spins."""
        return math.ceil(min(self.remaining(), limit_s) * 1000)


def call_within(deadline: Deadline, call: Callable[[], T], late: Callable[[], Exception], grace_s: float = 0.0) -> T:
    """Runs `call` in a daemon thread and gives its result or exception; raises `late()` if it outlasts the
    deadline.

    For calls into libraries whose own waits cannot be bounded, such as a store whose server is stopped. The
    thread of a call given up stays blocked, and ends with the process.
    """
    if deadline.forever:
        return call()
    outcome: list[Any] = []
    done = threading.Event()

    def body() -> None:
        try:
            outcome.append((call(), None))
        except BaseException as error:
            outcome.append((None, error))
        done.set()

    threading.Thread(target=body, name="mori-bounded-call", daemon=True).start()
    if not done.wait(deadline.remaining() + grace_s):
        raise late()
    value, error = outcome[0]
    if error is not None:
        raise error
    return value  # type: ignore[no-any-return]
