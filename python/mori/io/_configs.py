# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Settings of an engine and of its backends. The positional order of the backend settings is that of the calls that
frameworks make."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from mori._core import io as _io

from ..config import load
from ..errors import ConfigError

__all__ = ["FabricBackendConfig", "IOEngineConfig", "RdmaBackendConfig", "XgmiBackendConfig"]

BackendType = _io.BackendType
PollCqMode = _io.PollCqMode

_NAMES = {
    BackendType.XGMI: "p2p",
    BackendType.RDMA: "rdma",
    BackendType.TCP: "tcp",
    BackendType.FABRIC: "p2p",
    BackendType.SHM: "shm",
    BackendType.FILE: "file",
}


def backend_name(kind: Any) -> str:
    """The name of a backend given as a `BackendType` or as its name."""
    if isinstance(kind, str):
        return kind
    name = _NAMES.get(kind) if isinstance(kind, BackendType) else None
    if name is None:
        raise ConfigError(f"backend type {kind!r} cannot be created; use one of {', '.join(t.name for t in _NAMES)}")
    return name


@dataclasses.dataclass
class IOEngineConfig:
    """Where the engine listens, and how patient it is.

    `host` "" is 127.0.0.1. Other than loopback addresses need a `secret` of at least 16 bytes that all engines share
    (default: the variable `MORI_IO_SECRET`), or `allow_insecure=True`. `port` 0 takes a free one.
    `timeout_s` is the deadline of transfers that have none of their own (default: `MORI_TIMEOUT_S`; 0 = none).
    `backends`: names to create at once, and no others; None = whatever this machine has, at the first use.
    `fallback`: `create_backend()` of a device that is absent warns, and other backends carry the transfers; False:
    it raises. `retries`: how many other routes a transfer may take after failures. `trace_events`: how many events
    `take_trace()` keeps. `same_host` False acts as if every peer were on another host.
    """

    host: str = ""
    port: int = 0
    secret: str | bytes | None = dataclasses.field(default=None, repr=False)
    allow_insecure: bool | None = None
    timeout_s: float | None = None
    connect_timeout_s: float = 5.0
    close_timeout_s: float = 10.0
    backends: Sequence[str] | None = None
    fallback: bool = True
    retries: int = 4
    trace_events: int = 0
    same_host: bool = True


@dataclasses.dataclass
class RdmaBackendConfig:
    """Settings of the `rdma` backend; docs/io_rdma.md says which are worth touching.

    The first thirteen are those that frameworks pass; `num_worker_threads` and `notif_per_qp` change nothing here.
    `devices`: names of NICs to choose from, separated by commas (default: the variable `MORI_RDMA_DEVICES`; empty =
    all, nearest first). `spare_nics`: further NICs that memory is registered with, for failover. `gid_index`: -1 =
    RoCE v2 over IPv4 first. `port`: 0 = the first active one. `mtu`: bytes, 0 = what both ports can. `ack_timeout`:
    4.096 us * 2**value until a packet is sent again, `retry_count` times. `window_bytes`: in flight per queue pair.
    `max_recoveries`: broken rails that one transfer survives. `quiesce_ms`: for the peer's word that a broken rail's
    other end is closed. `library`: another libibverbs.
    """

    qp_per_transfer: int = 1
    post_batch_size: int = -1
    num_worker_threads: int = -1
    poll_cq_mode: Any = PollCqMode.POLLING
    enable_notification: bool = True
    notif_per_qp: int = 1024
    enable_transfer_chunking: bool = False
    chunk_bytes: int = 65536
    max_chunks_per_transfer: int = 64
    num_nics_per_transfer: int = 1
    max_send_wr: int = 8192
    max_cqe_num: int = 16384
    max_msg_sge: int = 4
    devices: str = dataclasses.field(default_factory=lambda: load().rdma_devices)
    spare_nics: int = 1
    gid_index: int = -1
    port: int = 0
    mtu: int = 0
    traffic_class: int = 0
    service_level: int = 0
    ack_timeout: int = 14
    retry_count: int = 6
    inline_bytes: int = 64
    window_bytes: int = 8 << 20
    max_recoveries: int = 3
    spin_us: int = 50
    cancel_grace_ms: int = 20
    quiesce_ms: int = 2000
    probe_ms: int = 3000
    retry_after_ms: int = 5000
    library: str = ""


@dataclasses.dataclass
class XgmiBackendConfig:
    """Settings of the `p2p` backend: copies between GPUs of one host."""

    num_streams: int = 64
    num_events: int = 64


@dataclasses.dataclass
class FabricBackendConfig:
    """Settings of the `p2p` backend for memory that other hosts of one fabric can map."""

    num_streams: int = 64
    num_events: int = 64


def backend_options(config: Any) -> dict[str, str]:
    """A backend's settings as the engine takes them: name -> text."""
    if config is None:
        return {}
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        values: Mapping[str, Any] = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    elif isinstance(config, Mapping):
        values = config
    else:
        raise ConfigError(f"config={config!r}; it takes a backend's config class, a dict, or None")
    return {name: text_of(name, value) for name, value in values.items()}


def text_of(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, (bool, int, PollCqMode)):
        return str(int(value))
    raise ConfigError(f"{name}={value!r}; backends take whole numbers, booleans and text")
