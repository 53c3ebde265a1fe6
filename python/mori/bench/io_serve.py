# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""`mori bench io` between two machines: `--serve` on one waits for the other's `--host ADDRESS:PORT` and starts a
target for each contender. Both need the secret that the engines use (MORI_IO_SECRET); connections prove it to each
other before anything else is read."""

from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Listener
from typing import Any

import msgspec

from .. import config
from ..errors import ConfigError
from .io_pair import CONTENDERS, serve
from .io_settings import IoSettings

__all__ = ["ask_target", "secret", "serve_targets"]


def secret() -> bytes:
    found = str(getattr(config.load(), "io_secret", "") or "")
    if not found:
        raise ConfigError("two machines need a shared secret: set MORI_IO_SECRET to the same text on both")
    return found.encode()


def ask_target(link: Any, name: str, settings: IoSettings) -> None:
    link.send_bytes(msgspec.msgpack.encode((name, settings)))


def serve_targets(address: str, *, said: Any = print, count: int = 0) -> None:
    """Serves initiators until interrupted, or until `count` targets have been started and have ended."""
    host, _, port = address.rpartition(":")
    if not port.isdigit():
        raise ConfigError(f"serve={address!r} is not ADDRESS:PORT, such as 0.0.0.0:18515")
    context: Any = multiprocessing.get_context("spawn")
    with Listener((host or "0.0.0.0", int(port)), authkey=secret(), backlog=8) as listener:
        bound: Any = listener.address
        said(f"serving at {bound[0]}:{bound[1]}; start `mori bench io --host THIS_MACHINE:{bound[1]}` on the other")
        started: list[Any] = []
        while not count or len(started) < count:
            try:
                link = listener.accept()
                name, settings = msgspec.msgpack.decode(link.recv_bytes(), type=tuple[str, IoSettings])
            except (multiprocessing.AuthenticationError, EOFError, OSError, msgspec.MsgspecError) as error:
                said(f"refused a connection: {error}")
                continue
            if name not in CONTENDERS:
                said(f"refused a contender: {name!r}")
                link.close()
                continue
            said(f"target of {name} for an initiator at {listener.last_accepted}")
            process = context.Process(target=serve, args=(link, name, settings, 0), daemon=True)
            process.start()
            link.close()
            started.append(process)
        for process in started:
            process.join()
