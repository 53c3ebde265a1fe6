# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The engine: one process's end of all its transfers. docs/io_guide.md shows its use."""

from __future__ import annotations

import dataclasses
import logging
import os
import socket
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from mori._core import io as _io

from .. import config as _config
from ..errors import CapacityError, ConfigError, TransportError
from ._configs import IOEngineConfig, RdmaBackendConfig, backend_name, backend_options
from ._descriptors import EngineDesc, MemoryDesc
from ._places import gpu_place
from ._session import Explanation, IOEngineSession, positive
from ._status import StatusCode, TransferStatus

__all__ = ["IOEngine", "Notification", "TraceEvent"]

MemoryLocationType = _io.MemoryLocationType
_log = logging.getLogger("mori.io")
_DEVICES = ("p2p", "rdma")  # may be absent: their transfers then go by other backends


class Notification(NamedTuple):
    """A message of a peer: sent with a transfer (after its bytes) or alone."""

    engine_key: str
    transfer_uid: int
    message: bytes


class TraceEvent(NamedTuple):
    """One step of one transfer. `ns` is of the monotonic clock; `kind` is started, carried, attempt_ended or ended."""

    ns: int
    kind: str
    transfer: int
    op: str
    bytes: int
    segments: int
    code: str
    backend: str
    thread: int


class IOEngine:
    """One end of transfers: it registers this process's memory, and reads and writes that of other engines.

    `key` names it among all engines. Use it as a context manager or `close()` it: transfers end, peers let go of its
    memory. All methods may be called from any thread; none works in a child made by fork().
    """

    def __init__(self, key: str, config: IOEngineConfig | None = None) -> None:
        config = dataclasses.replace(config) if config is not None else IOEngineConfig()
        if not isinstance(key, str) or not 1 <= len(key.encode()) <= 255:
            raise ConfigError(f"key={key!r}; an engine's key is text of 1 to 255 bytes")
        if not isinstance(config.port, int) or not 0 <= config.port < 1 << 16:
            raise ConfigError(f"port={config.port!r}; it takes 0 (a free one) to 65535")
        settings = _config.load()
        timeout_s = settings.timeout_s if config.timeout_s is None else config.timeout_s
        for name, value in (
            ("timeout_s", timeout_s),
            ("trace_events", config.trace_events),
            ("retries", config.retries),
        ):
            if not 0 <= value < 1 << 32:
                raise ConfigError(f"{name}={value!r} is out of range; 0 to 2**32")
        secret = settings.io_secret if config.secret is None else config.secret
        insecure = settings.io_allow_insecure if config.allow_insecure is None else config.allow_insecure
        self._config = config
        self._core = _io.Engine(
            key,
            host=config.host,
            port=config.port,
            secret=secret or None,
            allow_insecure=insecure,
            same_host=config.same_host,
            connect_timeout_s=positive(config.connect_timeout_s),
            close_timeout_s=positive(config.close_timeout_s),
            transfer_timeout_s=timeout_s,
            retries=config.retries,
            trace_events=config.trace_events,
        )
        self._lock = threading.Lock()
        self._complete = False  # whether the automatic backends were tried
        self._announce = False
        self._sessions: dict[tuple[int, MemoryDesc], IOEngineSession] = {}
        self._desc = EngineDesc(
            key=key,
            node_id=_node_id(),
            hostname=socket.gethostname(),
            host=self._core.host,
            port=self._core.port,
            pid=os.getpid(),
            incarnation=self._core.incarnation,
        )
        for name in config.backends or ():
            self._core.add_backend(backend_name(name), {})

    def __enter__(self) -> IOEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._core.closed else f"{self._desc.host}:{self._desc.port}"
        return f"<IOEngine {self._desc.key!r} {state}>"

    @property
    def key(self) -> str:
        return self._desc.key

    def close(self) -> None:
        """Ends transfers in flight (ERR_BAD_STATE), takes this engine's memory back from peers, joins its threads."""
        self._sessions.clear()
        self._core.close()

    def get_engine_desc(self) -> EngineDesc:
        """What peers need to reach this engine."""
        return self._desc

    # ---- backends -----------------------------------------------------------------------------------

    def create_backend(self, type: Any, config: Any = None) -> None:
        """Adds a backend, a `BackendType` or a name, with its settings (a config class, a dict, or None).

        Memory registered before is served, too. Absent devices: see `IOEngineConfig.fallback`.
        """
        name = backend_name(type)
        try:
            if name in _DEVICES and name not in {row[0] for row in _io.backend_table()}:
                raise TransportError("this build has no such backend")
            self._core.add_backend(name, backend_options(config))
        except TransportError as error:
            if name not in _DEVICES or not self._config.fallback or self._config.backends is not None:
                raise
            _log.warning("no %s backend (%s); other backends carry its transfers", name, error)
        if name == "rdma":
            self._announce = (config or RdmaBackendConfig()).enable_notification
        if self._config.fallback:
            self._add_automatic()

    def remove_backend(self, type: Any) -> None:
        """Ends the backend's transfers (ERR_BAD_STATE); later ones take another route."""
        self._core.remove_backend(backend_name(type))

    def backends(self) -> list[str]:
        """Names of the backends, in the order of preference."""
        self._add_automatic()
        return list(self._core.backends())

    def _add_automatic(self) -> None:
        if self._complete:
            return
        with self._lock:
            if self._complete:
                return
            if self._config.backends is None and (self._config.fallback or not self._core.backends()):
                there = set(self._core.backends()) | {name for name, _ in self._core.missing_backends()}
                for name, automatic in _io.backend_table():
                    if automatic and name not in there:
                        try:
                            self._core.add_backend(
                                name, backend_options(RdmaBackendConfig() if name == "rdma" else None)
                            )
                        except TransportError as error:
                            _log.debug("no %s backend: %s", name, error)
            self._complete = True

    # ---- this engine's memory -----------------------------------------------------------------------

    def register_memory(self, ptr: int, size: int, device_id: int, mem_loc: Any) -> MemoryDesc:
        """Lets peers that get the descriptor read and write `size` bytes at `ptr`.

        `device_id` is the GPU's index, -1 for host memory. A range inside a registered one costs next to nothing.
        """
        return self.register_memories([(ptr, size, device_id, mem_loc)])[0]

    def register_memories(self, ranges: Iterable[tuple[int, int, int, Any]]) -> list[MemoryDesc]:
        """`register_memory` for many ranges, pinned in parallel where that takes time."""
        specs = [_checked_range(*entry) for entry in ranges]
        self._add_automatic()
        added = self._core.register_memory([(*spec, -1, "") for spec in specs])
        return [
            MemoryDesc(
                engine_key=self._desc.key,
                id=name,
                device_id=device,
                device_bus_id=gpu_place(device)[0],
                numa_node=gpu_place(device)[1],
                data=ptr,
                size=size,
                loc=loc,
                incarnation=self._desc.incarnation,
                region_key=key,
            )
            for (ptr, size, device, loc), (name, key) in zip(specs, added, strict=True)
        ]

    def register_torch_tensor(self, tensor: Any) -> MemoryDesc:
        """Registers a contiguous tensor's memory (on the CPU or a GPU). Keep the tensor until it is deregistered."""
        if not tensor.is_contiguous():
            raise RuntimeError("the tensor is not contiguous; register tensor.contiguous() or its base")
        kind = tensor.device.type
        if kind not in ("cpu", "cuda"):
            raise ConfigError(f"a tensor on {tensor.device} cannot be registered; cpu and cuda can")
        gpu = kind == "cuda"
        size = tensor.numel() * tensor.element_size()
        device = tensor.device.index if gpu else -1
        return self.register_memory(
            tensor.data_ptr(), size, device, MemoryLocationType.GPU if gpu else MemoryLocationType.CPU
        )

    def register_buffer(self, buffer: Any) -> MemoryDesc:
        """Registers the memory of a numpy array or of anything writable with a contiguous buffer."""
        view = memoryview(buffer)
        if view.readonly or not view.c_contiguous:
            raise ConfigError("the buffer must be writable and contiguous")
        address = _address(view)
        return self.register_memory(address, view.nbytes, -1, MemoryLocationType.CPU)

    def register_file(
        self,
        path: str | os.PathLike[str],
        bytes: int | None = None,
        *,
        writable: bool = True,
        direct: bool | None = None,
        durable: bool = False,
    ) -> MemoryDesc:
        """Lets this engine and peers on this host read and write a file as the remote memory of a session.

        `bytes` is how much of it, from its start (default: all); a writable file is created and enlarged as needed.
        `direct`: past the page cache (default: where the file system can). `durable`: a write has succeeded when it is
        on the medium. docs/io_file.md.
        """
        if bytes is not None and (isinstance(bytes, bool) or not isinstance(bytes, int) or not 0 < bytes < 1 << 63):
            raise ConfigError(f"bytes={bytes!r}; a file's region has 1 to 2**63 - 1 bytes")
        self._add_automatic()
        fd, name, size = _io.open_file(os.fspath(path), bytes=bytes, writable=writable, direct=direct, durable=durable)
        loc = MemoryLocationType.FILE
        ((id, key),) = self._core.register_memory([(0, size, -1, loc, fd, name)])
        return MemoryDesc(
            engine_key=self._desc.key,
            id=id,
            device_id=-1,
            data=0,
            size=size,
            loc=loc,
            incarnation=self._desc.incarnation,
            region_key=key,
        )

    def allocate(self, bytes: int, *, prefault: bool = False) -> Any:
        """Host memory that engines on this host can map: a buffer for numpy.frombuffer, torch.frombuffer and
        `register_buffer()`. `mori.io.empty` makes arrays of it."""
        return _io.SharedMemory(bytes, prefault=prefault)

    def deregister_memory(self, desc: MemoryDesc) -> None:
        """Takes the memory back: ends the transfers that use it, waits until peers have let go of it.

        Raises TimeoutError if some did not within the close timeout; their connection was cut.
        """
        self._own(desc)
        with self._lock:
            for name in [n for n in self._sessions if n[0] == desc.id]:
                del self._sessions[name]
        self._core.deregister_memory(desc.id)

    def _own(self, desc: Any) -> int:
        if not isinstance(desc, MemoryDesc):
            raise ConfigError(f"{desc!r} is no MemoryDesc")
        if desc.engine_key != self._desc.key or desc.incarnation != self._desc.incarnation:
            raise ConfigError(f"memory {desc.id} is of engine {desc.engine_key!r}, not of this one, {self._desc.key!r}")
        return desc.id

    # ---- other engines ------------------------------------------------------------------------------

    def register_remote_engine(self, desc: EngineDesc) -> None:
        """Introduces a peer. The descriptor of a restarted one replaces it: old memory descriptors are refused."""
        if not isinstance(desc, EngineDesc):
            raise ConfigError(f"{desc!r} is no EngineDesc")
        if desc.port == 0:
            raise ConfigError("port=0 of an EngineDesc cannot be connected to")
        self._core.introduce(desc.key, desc.incarnation, desc.host, desc.port)

    def deregister_remote_engine(self, desc: EngineDesc) -> None:
        """Ends transfers with the peer (ERR_BAD_STATE), lets go of its memory and closes the connection."""
        with self._lock:
            for name in [n for n in self._sessions if n[1].engine_key == desc.key]:
                del self._sessions[name]
        self._core.forget(desc.key)

    def alive(self, remote_key: str, timeout_s: float = 1.0) -> bool:
        """Whether that peer answers within `timeout_s`."""
        return bool(self._core.alive(remote_key, positive(timeout_s)))

    def create_session(self, local: MemoryDesc, remote: MemoryDesc) -> IOEngineSession:
        """A pair of memories for transfers. Asks nobody: the first transfer (or `open()`) finds the route."""
        local_id = self._own(local)
        if not isinstance(remote, MemoryDesc):
            raise ConfigError(f"{remote!r} is no MemoryDesc")
        if len(remote.region_key) != 16:
            raise ConfigError("the remote memory descriptor has no key; pack() and unpack() the owner's")
        self._add_automatic()
        core = self._core.session(
            local_id,
            remote.engine_key,
            remote.incarnation,
            remote.id,
            remote.region_key,
            remote.loc,
            remote.device_id,
            remote.device_bus_id,
            remote.numa_node,
            remote.data,
            remote.size,
            self._announce,
        )
        return IOEngineSession(core, local, remote, self._core.missing_backends)

    def _session(self, local: MemoryDesc, remote: MemoryDesc) -> IOEngineSession:
        name = (local.id, remote) if isinstance(local, MemoryDesc) else None
        session = self._sessions.get(name) if name else None
        if session is None or session.local != local:
            session = self.create_session(local, remote)
            with self._lock:
                if len(self._sessions) >= 1 << 16:
                    self._sessions.clear()  # they are cheap to make again
                self._sessions[(local.id, remote)] = session
        return session

    def explain(self, local: MemoryDesc, remote: MemoryDesc, timeout_s: float = 5.0) -> Explanation:
        """Which backend carries bytes between the two, and why not the others."""
        return self._session(local, remote).explain(timeout_s)

    # ---- transfers ----------------------------------------------------------------------------------

    def allocate_transfer_uid(self) -> int:
        """A number that this engine has not given out before."""
        return int(self._core.allocate_transfer_uid())

    def read(
        self,
        local_mem: MemoryDesc,
        local_offset: int,
        remote_mem: MemoryDesc,
        remote_offset: int,
        size: int,
        uid: int = 0,
    ) -> Any:
        """Remote bytes to here; one `TransferStatus`."""
        return self._one("read", local_mem, local_offset, remote_mem, remote_offset, size, uid)

    def write(
        self,
        local_mem: MemoryDesc,
        local_offset: int,
        remote_mem: MemoryDesc,
        remote_offset: int,
        size: int,
        uid: int = 0,
    ) -> Any:
        """Local bytes to there; one `TransferStatus`."""
        return self._one("write", local_mem, local_offset, remote_mem, remote_offset, size, uid)

    def batch_read(
        self,
        local_mems: Sequence[MemoryDesc],
        local_offsets: Sequence[Any],
        remote_mems: Sequence[MemoryDesc],
        remote_offsets: Sequence[Any],
        sizes: Sequence[Any],
        uids: Sequence[int],
    ) -> list[Any]:
        """One batch for each pair of memories; a list of one `TransferStatus` each, all of them posted."""
        return self._batch("batch_read", local_mems, local_offsets, remote_mems, remote_offsets, sizes, uids)

    def batch_write(
        self,
        local_mems: Sequence[MemoryDesc],
        local_offsets: Sequence[Any],
        remote_mems: Sequence[MemoryDesc],
        remote_offsets: Sequence[Any],
        sizes: Sequence[Any],
        uids: Sequence[int],
    ) -> list[Any]:
        """One batch for each pair of memories; a list of one `TransferStatus` each, all of them posted."""
        return self._batch("batch_write", local_mems, local_offsets, remote_mems, remote_offsets, sizes, uids)

    def _one(
        self, call: str, local: MemoryDesc, l_off: Any, remote: MemoryDesc, r_off: Any, size: Any, uid: int
    ) -> Any:
        try:
            session = self._session(local, remote)
        except (ConfigError, TransportError) as error:
            return _failed(error)
        return getattr(session, call)(l_off, r_off, size, uid)

    def _batch(self, call: str, *lists: Sequence[Any]) -> list[Any]:
        lengths = [len(entry) for entry in lists]
        if len(set(lengths)) != 1:
            raise ConfigError(
                f"local_mems, local_offsets, remote_mems, remote_offsets, sizes and uids have {lengths} entries; "
                "each takes one for each pair of memories"
            )
        return [
            self._one(call, local, l_off, remote, r_off, size, uid)
            for local, l_off, remote, r_off, size, uid in zip(*lists, strict=True)
        ]

    def wait_all(self, statuses: Sequence[Any], timeout_ms: int = -1) -> Any:
        """Waits for all (-1: without end, 0: looks once). IN_PROGRESS if some are not over, else the first failure,
        else SUCCESS. A failure is told once all are over: then their memory is free."""
        return _io.wait_all(statuses, timeout_ms)

    # ---- notifications ------------------------------------------------------------------------------

    def send_notification(self, remote_key: str, message: bytes, uid: int = 0) -> None:
        """Queues a message for a peer: in order, delivered once, also after the connection broke and came back."""
        self._core.notify(remote_key, uid, message)

    def pop_notifications(self) -> list[Notification]:
        """Messages that came in since the last call. CapacityError if more than 64 MiB of them were waiting and some
        were dropped; the next call returns those that were kept."""
        taken, dropped = self._core.take_notifications()
        if dropped:
            self._kept = [Notification(*entry) for entry in taken]
            raise CapacityError(f"{dropped} notifications were dropped: more than 64 MiB of them were not popped")
        kept: list[Notification] = self.__dict__.pop("_kept", [])
        return kept + [Notification(*entry) for entry in taken]

    def pop_inbound_transfer_status(self, remote_key: str, uid: int) -> Any:
        """The outcome of a transfer of that peer with this engine's memory, once it announced it; else None."""
        found = self._core.take_inbound(remote_key, uid)
        if found is None:
            return None
        status = TransferStatus()
        status.Update(*found)
        return status

    # ---- looking ------------------------------------------------------------------------------------

    def metrics(self) -> dict[str, Any]:
        """What the engine counted: `engine` (transfers, bytes, failures, durations) and `backends` (their own)."""
        return {"engine": self._core.metrics(), "backends": {n: dict(c) for n, c in self._core.counters()}}

    def take_trace(self) -> list[TraceEvent]:
        """The last `trace_events` steps of transfers, oldest first; they are forgotten here."""
        return [TraceEvent(*event) for event in self._core.take_trace()[0]]


def _checked_range(ptr: Any, size: Any, device_id: Any, mem_loc: Any) -> tuple[int, int, int, Any]:
    for name, value in (("ptr", ptr), ("size", size), ("device_id", device_id)):
        if isinstance(value, bool) or not isinstance(value, int):
            raise ConfigError(f"{name}={value!r} is not an int")
    if not 0 < ptr < 1 << 64:
        raise ConfigError(f"ptr={ptr} is no address")
    if not 0 < size < 1 << 63:
        raise ConfigError(f"size={size}; a memory has at least 1 byte")
    if mem_loc not in (MemoryLocationType.CPU, MemoryLocationType.GPU):
        raise ConfigError(f"mem_loc={mem_loc!r}; it takes MemoryLocationType.CPU or GPU")
    cpu = mem_loc == MemoryLocationType.CPU
    if not (device_id == -1 if cpu else 0 <= device_id < 1 << 16):
        raise ConfigError(f"device_id={device_id} does not fit {mem_loc.name}: -1 for CPU, the GPU's index for GPU")
    return ptr, size, device_id, mem_loc


def _failed(error: Exception) -> Any:
    status = TransferStatus()
    refused = StatusCode.ERR_INVALID_ARGS if isinstance(error, ConfigError) else StatusCode.ERR_TRANSPORT
    status.Update(getattr(error, "code", refused), str(error))
    return status


def _address(view: memoryview) -> int:
    import numpy

    return int(numpy.frombuffer(view.cast("B") if view.nbytes else view, dtype=numpy.uint8).ctypes.data)


def _node_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()
