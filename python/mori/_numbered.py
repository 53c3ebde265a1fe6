# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Objects by number, for as long as they live: operators of torch cannot hold objects."""

from __future__ import annotations

import threading
import weakref
from typing import Generic, TypeVar

from mori.errors import ConfigError

__all__ = ["Numbered"]

T = TypeVar("T")


class Numbered(Generic[T]):
    """`what` is the name of operators' argument."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._lock = threading.Lock()
        self._last = 0
        self._objects: weakref.WeakValueDictionary[int, T] = weakref.WeakValueDictionary()

    def enlist(self, thing: T) -> int:
        with self._lock:
            self._last += 1
            self._objects[self._last] = thing
            return self._last

    def find(self, number: int) -> T:
        thing = self._objects.get(number)
        if thing is None:
            raise ConfigError(f"{self._what}={number} is not the number of a {self._what} that exists")
        return thing
