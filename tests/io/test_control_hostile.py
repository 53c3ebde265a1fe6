# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""A hostile peer at the control port: each act ends its own connection and harms nobody else.

The engine is built with AddressSanitizer and the undefined-behaviour sanitizer; a report is a failed exit. The
honest client of raw_peer.py, written from the page alone, is the other half of the proof that the page is right."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import raw_peer
from net_programs import Driven, build, compiler
from raw_peer import ASK, CHALLENGE, DONE, HELLO, PING, PROOF, REFUSAL, RawPeer, hello_body, message

pytestmark = pytest.mark.timeout(400)
SECRET = "an example secret of 32 bytes..."


@pytest.fixture(scope="module")
def program() -> Path:
    if compiler() is None:
        pytest.skip("no g++ to build the test programs with")
    return build("control_main", "address")


@pytest.fixture(scope="module")
def engine(program: Path) -> Iterator[Driven]:
    one = Driven([program, "B", 42, "127.0.0.1", 0, SECRET, 0, 500, 0])
    yield one
    one.close()


@pytest.fixture
def dial(engine: Driven) -> Callable[[], RawPeer]:
    return lambda: RawPeer(int(engine.hello[1]), SECRET.encode())


@pytest.fixture(autouse=True)
def it_still_serves_others(dial: Callable[[], RawPeer]) -> Iterator[None]:
    yield
    dial().shake_hands().ping()


def test_the_page_is_right(dial: Callable[[], RawPeer]) -> None:
    peer = dial().shake_hands()
    peer.ping()
    peer.send(ASK, struct.pack("<Q", 9) + raw_peer.name(b"tcp") + b"hello")
    assert peer.answer() == (raw_peer.ANSWER, struct.pack("<Q", 9) + b"tcp:hello:raw")


HELLOS = {
    "not ours": b"GET / HTTP/1.1\r\n\r\n",
    "other magic": message(HELLO, hello_body(), magic=1),
    "other version": message(HELLO, hello_body(), version=2),
    "proof first": message(PROOF, b"0" * 32),
    "unknown step": message(9, b""),
    "4 GiB": message(HELLO, b"", size=0xFFFFFFFF),
    "too long": message(HELLO, b"x" * 4000),
    "cut short": message(HELLO, hello_body()[:-5]),
    "too much": message(HELLO, hello_body() + b"!"),
    "unknown kind": message(HELLO, hello_body(kind=7)),
    "no name": message(HELLO, hello_body(engine=b"")),
    "flag of 2": message(HELLO, bytes([1, 2]) + hello_body()[2:]),
    "two at once": message(HELLO, hello_body()) * 2,
    "empty body": message(HELLO, b""),
}


@pytest.mark.parametrize("what", HELLOS)
def test_a_bad_hello_is_the_end(dial: Callable[[], RawPeer], what: str) -> None:
    peer = dial()
    peer.sock.sendall(HELLOS[what])
    assert peer.closed()


def test_no_secret_where_one_is_asked_for(dial: Callable[[], RawPeer]) -> None:
    peer = dial()
    assert peer.say_hello(hello_body(has_secret=False)) == REFUSAL
    assert b"asks for a secret" in peer.body


PROOFS: dict[str, Callable[[RawPeer], bytes]] = {
    "zeros": lambda peer: b"\0" * 32,
    "other secret": lambda peer: RawPeer.derive(
        _with(peer, b"another secret of 32 bytes......"), b"mori-io-1 dialer proves"
    ),
    "reflection": lambda peer: peer.derive(b"mori-io-1 listener proves"),
    "short": lambda peer: peer.derive(b"mori-io-1 dialer proves")[:31],
    "long": lambda peer: peer.derive(b"mori-io-1 dialer proves") + b"!",
}


def _with(peer: RawPeer, secret: bytes) -> RawPeer:
    peer.secret = secret
    return peer


@pytest.mark.parametrize("what", PROOFS)
def test_a_wrong_proof_is_refused(dial: Callable[[], RawPeer], what: str) -> None:
    peer = dial()
    assert peer.say_hello() == CHALLENGE
    assert peer.prove(PROOFS[what](peer)) == REFUSAL
    assert peer.closed()


def test_a_recorded_handshake_is_worth_nothing(dial: Callable[[], RawPeer]) -> None:
    nonce = os.urandom(32)
    first = dial().shake_hands(hello_body(nonce=nonce))
    recorded = first.derive(b"mori-io-1 dialer proves")
    second = dial()
    assert second.say_hello(hello_body(nonce=nonce)) == CHALLENGE
    assert second.prove(recorded) == REFUSAL


def test_a_stream_without_a_connection_is_refused(dial: Callable[[], RawPeer]) -> None:
    peer = dial()
    assert peer.say_hello(hello_body(kind=2, engine=b"stranger", backend=b"tcp")) == CHALLENGE
    assert peer.prove() == REFUSAL


@pytest.mark.parametrize(
    ("what", "code"), [({"target": b"other"}, 12), ({"target_incarnation": 41}, 14), ({"target_incarnation": 42}, 0)]
)
def test_who_looks_for_another_engine_is_told(dial: Callable[[], RawPeer], what: dict[str, object], code: int) -> None:
    peer = dial()
    assert peer.say_hello(hello_body(**what)) == CHALLENGE  # type: ignore[arg-type]
    step = peer.prove()
    assert (step, struct.unpack("<i", peer.body[:4])[0] if step == REFUSAL else 0) == (REFUSAL if code else DONE, code)


FRAMES: dict[str, Callable[[RawPeer], bytes]] = {
    "wrong MAC": lambda peer: peer.frame(PING, b"12345678")[:-1] + b"!",
    "unknown type": lambda peer: peer.frame(99, b"12345678"),
    "type 0": lambda peer: peer.frame(0, b"12345678"),
    "4 GiB": lambda peer: peer.frame(PING, b"", size=0xFFFFFFFF),
    "2 MiB": lambda peer: peer.frame(PING, b"", size=2 << 20),
    "replayed": lambda peer: peer.frame(PING, b"12345678", sequence=0) * 2,
    "skipped": lambda peer: peer.frame(PING, b"12345678", sequence=1),
    "descriptors": lambda peer: peer.frame(PING, b"12345678", fds=1),
    "255 descriptors": lambda peer: peer.frame(PING, b"12345678", fds=255),
    "ping of 3 bytes": lambda peer: peer.frame(PING, b"123"),
    "ask without a name": lambda peer: peer.frame(ASK, b"12345678"),
    "name longer than the frame": lambda peer: peer.frame(ASK, b"12345678" + b"\xff" + b"x"),
    "open cut short": lambda peer: peer.frame(raw_peer.OPEN, b"12345678" * 3),
    "revoke cut short": lambda peer: peer.frame(raw_peer.REVOKE, b"12345678"),
    "notify cut short": lambda peer: peer.frame(raw_peer.NOTIFY, b"12345678"),
    "empty everything": lambda peer: b"".join(peer.frame(kind, b"") for kind in range(1, 11)),
}


@pytest.mark.parametrize("what", FRAMES)
def test_a_bad_frame_is_the_end(dial: Callable[[], RawPeer], what: str) -> None:
    peer = dial().shake_hands()
    peer.sock.sendall(FRAMES[what](peer))
    assert peer.closed()


HARMLESS: dict[str, Callable[[RawPeer], bytes]] = {
    "answer to nothing": lambda peer: peer.frame(raw_peer.ANSWER, struct.pack("<Q", 123) + b"!"),
    "refusal of nothing": lambda peer: peer.frame(raw_peer.REFUSE, struct.pack("<Qi", 123, -5) + b"!"),
    "revoke of nothing": lambda peer: peer.frame(raw_peer.REVOKE, struct.pack("<QQ", 1, 555)),
    "let go of nothing": lambda peer: peer.frame(raw_peer.LET_GO, struct.pack("<Q", 555)),
    "confirm of nothing": lambda peer: peer.frame(raw_peer.NOTIFIED, struct.pack("<Q", 1 << 63)),
    "unknown backend": lambda peer: peer.frame(raw_peer.TELL, raw_peer.name(b"nonesuch") + b"x"),
}


@pytest.mark.parametrize("what", HARMLESS)
def test_an_idle_word_is_ignored(dial: Callable[[], RawPeer], what: str) -> None:
    peer = dial().shake_hands()
    peer.sock.sendall(HARMLESS[what](peer))
    peer.send(PING, struct.pack("<Q", 6))
    while peer.answer() != (raw_peer.ANSWER, struct.pack("<Q", 6)):
        pass


def test_half_open_and_slow_ones_are_dropped_and_others_served(engine: Driven, dial: Callable[[], RawPeer]) -> None:
    silent = [dial() for _ in range(150)]
    slow = dial()
    whole = message(HELLO, hello_body())
    began = time.monotonic()
    try:
        for byte in whole:
            slow.sock.send(bytes([byte]))
            time.sleep(0.02)
    except OSError:
        pass
    assert slow.closed()
    assert time.monotonic() - began < 5
    assert all(peer.closed() for peer in silent)
    count = dict(item.split("=") for item in engine("counters")[0].split())
    assert int(float(count["connections"])) <= 64


def test_memory_does_not_grow_with_what_is_announced(engine: Driven, dial: Callable[[], RawPeer]) -> None:
    def resident() -> int:
        return int(Path(f"/proc/{engine.process.pid}/statm").read_text().split()[1]) * 4096

    peers = [dial().shake_hands() for _ in range(30)]
    before = resident()
    for peer in peers:
        peer.sock.sendall(peer.frame(PING, b"", size=1 << 20))  # and then nothing of it
    time.sleep(0.3)
    assert resident() - before < 8 << 20


def test_a_flood_of_requests_is_answered_or_cut(dial: Callable[[], RawPeer]) -> None:
    peer = dial().shake_hands()
    peer.sock.settimeout(2)
    frames = b"".join(peer.frame(ASK, struct.pack("<Q", i) + raw_peer.name(b"tcp") + b"big") for i in range(100))
    try:
        peer.sock.sendall(frames)  # 100 MiB of answers that nobody reads
        time.sleep(0.5)
    except (TimeoutError, ConnectionError):
        pass
    assert peer.closed()
