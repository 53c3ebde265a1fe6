# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""An all-gather over the store that a launcher left us; `bootstrap.rendezvous()` chooses between these."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, TypeVar

from ._deadline import Deadline, call_within
from ._ledger import StoreLedger
from .errors import ConfigError, MoriError, TimeoutError, TransportError

T = TypeVar("T")
Outcome = Callable[[], Exception]
_GRACE_S = 1.0  # for a call that has its own deadline to report it, before it is given up from outside


class Rendezvous:
    """Who we are, and an all-gather. This class is the world of one; the others derive from it."""

    def __init__(self, rank: int = 0, world_size: int = 1) -> None:
        self.rank, self.world_size = check_rank(rank, world_size)

    def exchange(self, tag: str, payload: bytes, *, timeout: float) -> list[bytes]:
        """Every rank's payload, by rank. TimeoutError.missing names the ranks that did not come."""
        return [bytes(payload)]

    def ledger(self, value_bytes: int) -> StoreLedger:
        """Where ranks of several hosts decide who is left; it may be used after close()."""
        return StoreLedger(None, "", value_bytes)

    def close(self) -> None:
        """Ends this rank's part; the last one to do so removes everything from the store."""

    def __enter__(self) -> Rendezvous:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class StoreRendezvous(Rendezvous):
    """Over a torch store. Every key lies under `prefix`, which no other context of the same store may share.

    One rank that finds a mistake leaves a note, so that the others need not wait for their deadline.
    """

    def __init__(self, store: Any, prefix: str, rank: int, world_size: int, *, deadline: Deadline, where: str) -> None:
        super().__init__(rank, world_size)
        self._store, self._prefix, self._where = store, prefix, where
        self._keys: list[str] = []
        self._round = 0
        self._open = True
        self._within(deadline, self._enter, lambda: self._silent("joining"))

    def _enter(self) -> None:
        """Claims the rank, and checks that all have the same idea of the world."""
        size = self._store.compare_set(self._key("world_size"), "", str(self.world_size)).decode()
        if int(size) != self.world_size:
            text = f"world_size differs: rank {self.rank} says {self.world_size}, another rank says {size}"
            self._fail("config", text)
            raise ConfigError(text)
        if self._store.add(self._key(f"claim/{self.rank}"), 1) > 1:
            text = (
                f"rank={self.rank} is taken: two callers say rank {self.rank} of {self.world_size}, "
                "or one id was used for two contexts (make one unique_id() for each)"
            )
            self._fail("config", text)
            raise ConfigError(text)
        self._keys += [self._key("world_size"), *(self._key(f"claim/{r}") for r in range(self.world_size))]

    def exchange(self, tag: str, payload: bytes, *, timeout: float) -> list[bytes]:
        if not self._open:
            raise ConfigError(f"exchange({tag!r}) on a closed rendezvous")
        deadline = Deadline(timeout)
        return self._within(deadline, lambda: self._gather(tag, payload, deadline), lambda: self._silent(tag))

    def _gather(self, tag: str, payload: bytes, deadline: Deadline) -> list[bytes]:
        keys = [self._key(f"{self._round}/{rank}") for rank in range(self.world_size)]
        self._round += 1
        self._keys += keys
        self._store.set(keys[self.rank], tag.encode() + b"\0" + payload)
        pause_s = 0.001
        while not self._store.check(keys):
            self._raise_note(tag)
            if deadline.expired():
                missing = [rank for rank, key in enumerate(keys) if not self._store.check([key])]
                if not missing:
                    break
                names = ", ".join(map(str, missing))
                text = (
                    f"rendezvous {tag!r}: {len(missing)} of {self.world_size} ranks did not come within "
                    f"{deadline.timeout:g} s: {names} ({self._where})"
                )
                self._fail("timeout", f"rank {self.rank} gave up: {text}", missing)
                raise TimeoutError(text, what=f"rendezvous {tag}", missing=missing)
            time.sleep(min(pause_s, deadline.remaining()))
            pause_s = min(pause_s * 1.5, 0.05)
        values = [bytes(value).partition(b"\0") for value in self._store.multi_get(keys)]
        for rank, (theirs, _, _) in enumerate(values):
            if theirs != tag.encode():
                where = f"rank {self.rank} is at {tag!r}, rank {rank} at {theirs.decode()!r}"
                raise ConfigError(f"ranks call different things: {where}")
        return [value for _, _, value in values]

    def ledger(self, value_bytes: int) -> StoreLedger:
        return StoreLedger(self._store, self._prefix, value_bytes)

    def close(self) -> None:
        if not self._open:
            return
        self._open = False
        with contextlib.suppress(MoriError):
            self._within(Deadline(_GRACE_S), self._leave, lambda: self._silent("leaving"))

    def _leave(self) -> None:
        left = self._key("left")
        if self._store.add(left, 1) == self.world_size:
            for key in (*self._keys, left, self._key("failed")):
                self._store.delete_key(key)

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}"

    def _fail(self, kind: str, text: str, missing: Sequence[int] = ()) -> None:
        self._store.set(self._key("failed"), json.dumps({"kind": kind, "text": text, "missing": list(missing)}))

    def _raise_note(self, tag: str) -> None:
        if not self._store.check([self._key("failed")]):
            return
        note = json.loads(self._store.get(self._key("failed")))
        if note["kind"] == "timeout":
            raise TimeoutError(note["text"], what=f"rendezvous {tag}", missing=note["missing"])
        raise ConfigError(note["text"])

    def _silent(self, doing: str) -> TimeoutError:
        return TimeoutError(f"{doing}: {self._where} does not answer", what=f"rendezvous {doing}")

    def _within(self, deadline: Deadline, call: Callable[[], T], late: Outcome) -> T:
        with store_errors(self._where):
            return call_within(deadline, call, late, grace_s=_GRACE_S)


class GatherRendezvous(Rendezvous):
    """Over all_gather_object, for a group whose store cannot be reached. It cannot name who is missing."""

    def __init__(self, group: Any, rank: int, world_size: int) -> None:
        super().__init__(rank, world_size)
        self._group = group

    def exchange(self, tag: str, payload: bytes, *, timeout: float) -> list[bytes]:
        import torch.distributed as dist

        found: list[Any] = [None] * self.world_size
        with store_errors("all_gather_object"):
            call_within(
                Deadline(timeout),
                lambda: dist.all_gather_object(found, (tag, bytes(payload)), group=self._group),
                lambda: TimeoutError(
                    f"rendezvous {tag!r}: not all ranks came in {timeout:g} s", what=f"rendezvous {tag}"
                ),
            )
        for rank, (theirs, _) in enumerate(found):
            if theirs != tag:
                raise ConfigError(
                    f"ranks call different things: rank {self.rank} is at {tag!r}, rank {rank} at {theirs!r}"
                )
        return [value for _, value in found]


def check_rank(rank: object, world_size: object) -> tuple[int, int]:
    """Both as ints, or a ConfigError."""
    for name, value in (("rank", rank), ("world_size", world_size)):
        if isinstance(value, bool) or not hasattr(value, "__index__"):
            raise ConfigError(f"{name}={value!r} is not an int")
    me, size = int(rank), int(world_size)  # type: ignore[call-overload]
    if size < 1:
        raise ConfigError(f"world_size={size} is less than 1")
    if not 0 <= me < size:
        raise ConfigError(f"rank={me} is outside 0..{size - 1} (world_size={size})")
    return me, size


@contextlib.contextmanager
def store_errors(where: str) -> Iterator[None]:
    """torch's stores raise RuntimeError of several kinds."""
    try:
        yield
    except MoriError:
        raise
    except (RuntimeError, OSError) as error:
        raise TransportError(f"{where} failed: {str(error).splitlines()[0]}") from error
