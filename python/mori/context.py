# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""One rank's view of its group: who takes part, their memory, and what went wrong.

    ctx = mori.init(group)                     # or init(comm=...), init(uid=..., rank=..., world_size=...)
    signals = ctx.empty((ctx.world_size,), torch.int64, fill=0)     # symmetric: at the same offset on all ranks
    ctx.barrier()

A failed wait makes a context unusable, since ranks may disagree about what has happened: every further call
raises the same error until `recover()`, which makes a context of those that are left.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
import time
import weakref
from collections.abc import Collection, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from mori import _core, config
from mori._absence import Absence
from mori._fabric import check_transport, connect
from mori._queue_errors import no_answer, queue_failure
from mori.bootstrap import rendezvous
from mori.errors import CapacityError, ConfigError, MoriError, PeerLost, TimeoutError
from mori.heap import Heap
from mori.mesh import Mesh, check_same

if TYPE_CHECKING:
    import torch

    from mori.shmem.structs import World

__all__ = ["Context", "init"]

_log = logging.getLogger("mori")
_OTHER_NEWS_S = 2.0  # how long a rank's death may take to be known when its NIC no longer answers


def init(
    group: Any = None,
    *,
    comm: Any = None,
    uid: bytes | None = None,
    rank: int | None = None,
    world_size: int | None = None,
    device: Any = None,
    timeout: float | None = None,
    heap_bytes: int | None = None,
    debug: bool | None = None,
    transport: str | None = None,
) -> Context:
    """Joins the ranks of a group and returns this rank's Context. Collective.

    group: a torch.distributed process group (any subgroup); or comm: an mpi4py communicator; or uid (128 bytes of
    `mori.unique_id()`, carried by any launcher) with rank and world_size; or nothing, under torchrun.
    device: "cpu", "cuda", "cuda:1" or a torch.device; by default the current GPU, and the CPU where there is none.
    timeout: seconds that any wait may last, 0 = for ever (default MORI_TIMEOUT_S). heap_bytes: symmetric memory to
    start with; it grows (default MORI_HEAP_BYTES). debug: poison and guard symmetric memory (default MORI_DEBUG).
    transport: how kernels reach other ranks: "p2p", "ibgda", or "auto", which chooses by where they are (default
    MORI_TRANSPORT).

    Raises ConfigError for arguments that cannot be right or differ between ranks, TimeoutError naming the ranks that
    did not come. Not capturable in a graph.
    """
    settings = config.load()
    timeout = settings.timeout_s if timeout is None else float(timeout)
    _log.setLevel(settings.log.upper())
    kind, ordinal = _parse_device(device)
    with rendezvous(group, comm=comm, uid=uid, rank=rank, world_size=world_size, timeout=timeout) as meeting:
        mesh = Mesh.connect(meeting, timeout=timeout)
    return Context(
        mesh,
        kind,
        ordinal,
        settings=settings,
        timeout=timeout,
        heap_bytes=settings.heap_bytes if heap_bytes is None else int(heap_bytes),
        debug=settings.debug if debug is None else bool(debug),
        transport=settings.transport if transport is None else transport,
    )


class Context:
    """Made by `init()`; a context manager. Attributes: `rank`, `world_size`, `timeout` (seconds), `debug`, `transport`
    (how kernels reach other ranks: "p2p" or "ibgda")."""

    def __init__(
        self,
        mesh: Mesh,
        kind: str,
        ordinal: int,
        *,
        settings: config.Config,
        timeout: float,
        heap_bytes: int,
        debug: bool,
        transport: str = "auto",
    ) -> None:
        self.rank, self.world_size = mesh.rank, mesh.world_size
        self.timeout, self.debug = timeout, debug
        self.mesh = mesh
        self._settings, self._kind, self._ordinal, self._heap_bytes = settings, kind, ordinal, heap_bytes
        self._asked_transport = transport
        self._failure: MoriError | None = None
        self._lost: set[int] = set()
        self._excused: frozenset[int] = frozenset()
        self.absence = Absence(self)
        self._lock = threading.Lock()
        self._closed = False
        try:
            agreed = {"device kind": kind, "debug": debug, "heap_bytes": heap_bytes, "mori": _core.__version__}
            agreed |= {"transport": transport, "MORI_IBGDA_PROVIDER": settings.ibgda_provider}
            agreed |= {"MORI_IBGDA_QUEUES": settings.ibgda_queues, "MORI_IBGDA_MOVER": settings.ibgda_mover}
            check_same(mesh, "mori.init", agreed, timeout=timeout)
            self.transport = check_transport(transport, kind, mesh)
            lanes = settings.cpu_lanes if kind == "cpu" else 1
            self.core_device = _core.open_device(
                kind,
                ordinal,
                kernel_dir=settings.kernel_dir,
                cpu_lanes=lanes,
                cpu_threads=settings.cpu_threads or 1,
            )
            place = self.core_device.properties.pci_bus_id or f"rank {self.rank}"
            places = [m.payload for m in mesh.exchange("mori.device", place.encode(), timeout=timeout)]
            self.ranks_on_device = sum(places[peer] == place.encode() for peer in mesh.neighbours)
            self.heap = Heap(self.core_device, mesh, heap_bytes=heap_bytes, debug=debug, timeout=timeout)
            self.core = _core.Context(
                self.core_device,
                rank=self.rank,
                world_size=self.world_size,
                bases=self.heap.bases_address,
                timeout_ns=int(timeout * 1e9),
                ranks_on_device=self.ranks_on_device,
            )
            if self.transport != "p2p":
                self.heap.fabric = connect(self.heap, settings, self.transport)
                self.core.use_queues(self.heap.fabric)
            mesh.barrier("mori.init", timeout=timeout)
        except BaseException:
            mesh.close()
            raise
        mesh.watch(_Watch(self))

    @functools.cached_property
    def device(self) -> torch.device:
        """Where this rank's tensors live."""
        import torch

        return torch.device("cpu") if self._kind == "cpu" else torch.device("cuda", self._ordinal)

    @property
    def synchronous(self) -> bool:
        """Whether calls have happened when they return: on the CPU."""
        return self._kind == "cpu"

    @property
    def default_blocks(self) -> int:
        """Blocks of a communication kernel where nothing else is asked for; 0 leaves it to the product."""
        if self._kind == "cpu":
            return max(1, self._settings.cpu_threads) * (1 if self._settings.cpu_lanes == 1 else 2)
        return self._settings.sms

    @property
    def world(self) -> World:
        """What kernels are told of the group: a field of the argument struct of a kernel of your own."""
        from mori.shmem.structs import World

        return World.from_buffer_copy(self.core.world)

    @property
    def closed(self) -> bool:
        return self._closed

    def stream(self) -> int:
        """Handle of the stream that calls are queued on: torch's current one on a GPU, 0 on the CPU."""
        if self._kind == "cpu":
            return 0
        import torch

        raw = getattr(torch._C, "_cuda_getCurrentRawStream", None)  # a third of the price of the public way
        return int(raw(self._ordinal) if raw else torch.cuda.current_stream(self._ordinal).cuda_stream)

    def empty(self, shape: Sequence[int], dtype: torch.dtype, *, fill: int | None = None) -> torch.Tensor:
        """A symmetric tensor: contiguous, on this rank's device, at the same offset on every rank. Collective.

        Bytes are unspecified unless `fill` (0 to 255) is given. Raises ConfigError naming the ranks that ask for
        another shape, CapacityError when memory is out. Not capturable in a graph.
        """
        self.ready()
        return self.heap.empty(shape, dtype, fill=fill)

    def peer_tensor(self, tensor: torch.Tensor, peer: int) -> torch.Tensor:
        """`peer`'s copy of a symmetric tensor: loads and stores reach its memory. Orders nothing. Raises ConfigError
        where the peer is reached by a NIC only."""
        self.ready()
        if self.transport == "ibgda" and peer != self.rank:
            raise ConfigError(f"peer={peer} is reached by {self.transport}, not by load and store; use mori.shmem")
        return self.heap.peer_tensor(tensor, peer)

    def barrier(self, *, timeout: float | None = None) -> None:
        """Waits for this rank's stream, then for all ranks. Collective. Not capturable in a graph."""
        self.synchronize()
        self.mesh.barrier("ctx.barrier", timeout=self.timeout if timeout is None else timeout)

    def synchronize(self) -> None:
        """Waits for the current stream, and raises what its kernels recorded."""
        self.ready()
        self.core_device.synchronize(self.stream())
        self.check()

    def check(self) -> None:
        """Raises what kernels that have run recorded: TimeoutError, TransportError (of a NIC), PeerLost, CapacityError
        or ConfigError. Does not wait for any stream. After a refusal (capacity, arguments) the context goes on; after
        a failed wait it does not."""
        if self._failure is not None:
            raise self._failure.with_traceback(None)
        if self.core.is_clean():
            return
        word = self.core.error()
        if word.state == 2 and word.refusal != "none":
            self.core.clear_refusal()
            raise _refused(word)
        failure = self._waited(word)
        if failure is not None:
            self._failure = failure
            raise failure

    def ready(self) -> None:
        """Raises if the context cannot be used: closed, or failed and not recovered. Refusals are left to `check()`,
        so that all ranks hear of them at the same call."""
        if self._closed:
            raise ConfigError("the context is closed")
        if self._failure is None and self.core.is_clean():
            return
        word = self.core.error()
        if self._failure is not None or word.lost_peer >= 0 or (word.state == 2 and word.refusal == "none"):
            self.check()

    def excuse(self, ranks: Collection[int]) -> None:
        """Says whose death is no failure from now on: ranks that no call waits for, such as those that mori.ep leaves
        out by `active`. Local; replaces what was said before. Calls over all ranks (barrier, empty, making a product)
        still need them."""
        for rank in ranks:
            if not 0 <= rank < self.world_size or rank == self.rank:
                raise ConfigError(f"ranks={sorted(ranks)}: {rank} is not another rank of 0..{self.world_size - 1}")
        self._excused = frozenset(ranks)

    @property
    def left_out(self) -> frozenset[int]:
        """Ranks that products made with on_loss="mask" go without."""
        return self.absence.left_out

    def leave_out(self, *, timeout: float | None = None) -> frozenset[int]:
        """Agrees with the others on who is left, and goes on without the rest: what the next call of a product made
        with on_loss="mask" does by itself after PeerLost or TimeoutError. Gives `left_out`.

        Collective over the ranks that are left, which call it within `timeout` seconds (default: two deadlines of the
        context); a rank that comes later gets PeerLost until all call `readmit()`. ConfigError if a rank left out
        before may still write to memory that is needed. Not capturable in a graph. docs/absence.md.
        """
        self.absence.leave_out(self._failure, 2 * self.timeout if timeout is None else timeout)
        return self.left_out

    def readmit(self, *, timeout: float | None = None) -> None:
        """Takes in again whom `leave_out()` left out: afterwards all ranks take part. Collective over all ranks, those
        too; waits for the stream and for all ranks. Not capturable. Raises PeerLost if one has died since."""
        self.absence.readmit(self.timeout if timeout is None else timeout)

    @property
    def lost_a_rank(self) -> bool:
        """Whether a call has raised that a rank died or did not come."""
        return isinstance(self._failure, (PeerLost, TimeoutError))

    def forget_failure(self) -> None:
        """For those who have made new whatever the failed call used, on all ranks that go on: the context is usable
        again. No kernel of this rank may run."""
        self._failure = None
        self.core.clear_failure()
        for peer in self.mesh.lost():
            self._peer_lost(peer)

    def recover(self, *, timeout: float | None = None) -> Context:
        """A fresh context of all ranks that are left and call this within `timeout` seconds; closes this one.

        Collective. Ranks are numbered anew in the old order. Symmetric tensors and dispatchers of this context are not
        carried over. A rank that was stopped and comes too late gets PeerLost."""
        if self._closed:
            raise ConfigError("the context is closed")
        timeout = self.timeout if timeout is None else timeout
        with contextlib.suppress(MoriError):
            self.core_device.synchronize(self.stream())  # failed waits leave at once
        ranks = self.mesh.survivors(timeout=timeout)
        mesh = self.mesh.subset(ranks)
        self._release()
        _log.info("rank %d goes on as rank %d with ranks %s", self.rank, mesh.rank, ranks)
        return Context(
            mesh,
            self._kind,
            self._ordinal,
            settings=self._settings,
            timeout=self.timeout,
            heap_bytes=self._heap_bytes,
            debug=self.debug,
            transport=self._asked_transport,
        )

    def close(self) -> None:
        """Leaves the group. Local: peers that still need this rank get errors. Memory goes with the last tensor."""
        if not self._closed:
            self._release()
            self.mesh.close()

    def __repr__(self) -> str:
        way = self.transport
        if way == "mixed":
            way = f"load and store ({len(self.mesh.neighbours)} ranks of this host) and queues"
        if self.transport != "p2p":
            nic = self._settings.ibgda_nic or "software NIC"
            mover = "" if self._settings.ibgda_nic else f", {self._settings.ibgda_mover} mover"
            way += f" ({self._settings.ibgda_provider}, {nic}{mover}, {self._settings.ibgda_queues} queues per peer)"
        return f"<mori.Context rank {self.rank} of {self.world_size} on {self._kind}, peers by {way}>"

    def __enter__(self) -> Context:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _release(self) -> None:
        self._closed = True
        self.heap.close()

    def _peer_lost(self, peer: int) -> None:
        with self._lock:
            self._lost.add(peer)
        if peer not in self._excused | self.left_out:
            self.core.leave_waits(peer)

    def _lost_ranks(self) -> list[int]:
        with self._lock:
            return sorted(self._lost | self.mesh.lost())

    def _waited(self, word: _core.ErrorWord) -> MoriError | None:
        """The exception for a failed wait, or None while a kernel is still writing the word."""
        if word.state == 1:
            return None
        lost = self._lost_ranks()
        if word.wait == "ibgda.error" and no_answer(word):
            # Whose NIC does not answer may have died: that is told by the mesh, at about the same time.
            enough = time.monotonic() + _OTHER_NEWS_S
            while word.peer not in lost and time.monotonic() < enough:
                time.sleep(0.01)
                lost = self._lost_ranks()
        unknown = word.peer == _core.SHMEM_ANY_PE
        if word.state == 2 and word.peer not in lost:
            if word.wait == "ibgda.error":
                return queue_failure(word, self.heap.fabric.trouble(word.peer))
            return TimeoutError(
                f"{word.wait} of {'a rank' if unknown else f'rank {word.peer}'} did not come within {self.timeout:g} s "
                f"(rank {self.rank} expected {word.expected}, has seen {word.seen})",
                what=word.wait,
                peer=None if unknown else word.peer,
                expected=word.expected,
                seen=word.seen,
            )
        peer = word.peer if word.state == 2 else word.lost_peer
        during = f" during {word.wait}" if word.state == 2 else ""
        return PeerLost(f"rank {peer} died{during}", peer=peer)


class _Watch:
    """Tells a context of a lost peer without keeping it alive."""

    def __init__(self, context: Context) -> None:
        self._context = weakref.ref(context)

    def __call__(self, peer: int) -> None:
        context = self._context()
        if context is not None and not context.closed:
            context._peer_lost(peer)


def _refused(word: _core.ErrorWord) -> MoriError:
    if word.refusal == "capacity":
        return CapacityError(
            f"rank {word.peer} would receive {word.seen} rows, its capacity is {word.expected}; nothing was sent"
        )
    if word.refusal == "expert_capacity":
        return CapacityError(
            f"rank {word.peer} would need {word.seen} slots for the rows of an expert, or of all of its experts; "
            f"it has {word.expected}; nothing was sent"
        )
    if word.refusal == "expert_id":
        seen = word.seen - (1 << 32) if word.seen >= 1 << 31 else word.seen
        return ConfigError(
            f"topk_ids of rank {word.peer} hold {seen}; allowed are 0 to {word.expected - 1}, and -1 for none; "
            "nothing was sent"
        )
    if word.refusal == "unreachable":
        why = "is not one" if word.peer >= word.expected else "cannot be reached from here"
        return ConfigError(f"pe={word.peer} of {word.expected} PEs {why}; nothing was written")
    if word.refusal == "workspace":
        return ConfigError(
            f"workspace_bytes={word.seen} of a team is too little for a reduction, which needs {word.expected}; "
            "nothing was written"
        )
    if word.refusal == "unregistered":
        return ConfigError(
            f"{word.expected} bytes at {word.seen:#x} of rank {word.peer} are not registered with its NIC: memory of "
            "the heap is, other memory after ctx.heap.register(tensor); nothing was sent"
        )
    if word.refusal == "stale":
        return ConfigError(
            "routing: its dispatch was refused or failed, or it is of a dispatcher made with other arguments; "
            "there is nothing to combine"
        )
    return ConfigError(
        f"rank {word.peer} makes this call with other settings (routing of another dispatch, row bytes, experts, "
        "top-k, id type, weights, scales or dtype); no result was written"
    )


def _parse_device(device: Any) -> tuple[str, int]:
    """("cpu" | "cuda" | "hip", ordinal) of whatever names a device."""
    if device is None:
        device = "cuda" if _core.device_count("cuda")[0] or _core.device_count("hip")[0] else "cpu"
    kind, _, index = str(device).partition(":")
    if kind not in ("cpu", "cuda", "hip") or (index and not index.isdigit()):
        raise ConfigError(f"device={device!r}: allowed are 'cpu', 'cuda' and 'cuda:N'")
    if kind == "cpu":
        return "cpu", 0
    import torch

    if getattr(torch.version, "hip", None):
        kind = "hip"  # torch says "cuda" for AMD GPUs too
    ordinal = int(index) if index else torch.cuda.current_device()
    count, why = _core.device_count(kind)
    if ordinal >= count:
        raise ConfigError(f"device={device!r}: {why or f'there are {count} devices'}")
    return kind, ordinal
