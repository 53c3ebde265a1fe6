# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The control protocol once more, in Python, from docs/io_security.md alone: a second opinion, and a hostile peer."""

from __future__ import annotations

import hashlib
import hmac
import os
import socket
import struct

MAGIC, VERSION = 0x49526F4D, 1
HELLO, CHALLENGE, PROOF, DONE, REFUSAL = range(1, 6)
ANSWER, REFUSE, ASK, TELL, OPEN, LET_GO, REVOKE, PING, NOTIFY, NOTIFIED, BYE = range(1, 12)


def message(step: int, body: bytes, *, magic: int = MAGIC, version: int = VERSION, size: int | None = None) -> bytes:
    return struct.pack("<IHBBI", magic, version, step, 0, len(body) if size is None else size) + body


def name(text: bytes) -> bytes:
    return bytes([len(text)]) + text


def hello_body(
    *,
    kind: int = 1,
    has_secret: bool = True,
    engine: bytes = b"raw",
    incarnation: int = 77,
    nonce: bytes | None = None,
    target: bytes = b"B",
    target_incarnation: int = 0,
    backend: bytes = b"",
) -> bytes:
    return (
        bytes([kind, has_secret])
        + name(engine)
        + struct.pack("<Q", incarnation)
        + (os.urandom(32) if nonce is None else nonce)
        + name(target)
        + struct.pack("<Q", target_incarnation)
        + name(b"127.0.0.1")
        + struct.pack("<H", 9)
        + name(backend)
    )


def sip128(key: bytes, data: bytes) -> bytes:
    mask = (1 << 64) - 1
    k0, k1 = struct.unpack("<QQ", key)
    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D ^ 0xEE, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]

    def turn(word: int, bits: int) -> int:
        return (word << bits | word >> (64 - bits)) & mask

    def rounds(count: int) -> None:
        for _ in range(count):
            v[0] = (v[0] + v[1]) & mask
            v[1] = turn(v[1], 13) ^ v[0]
            v[0] = turn(v[0], 32)
            v[2] = (v[2] + v[3]) & mask
            v[3] = turn(v[3], 16) ^ v[2]
            v[0] = (v[0] + v[3]) & mask
            v[3] = turn(v[3], 21) ^ v[0]
            v[2] = (v[2] + v[1]) & mask
            v[1] = turn(v[1], 17) ^ v[2]
            v[2] = turn(v[2], 32)

    padded = data + b"\0" * (7 - len(data) % 8) + bytes([len(data) & 255])
    for (word,) in struct.iter_unpack("<Q", padded):
        v[3] ^= word
        rounds(2)
        v[0] ^= word
    v[2] ^= 0xEE
    rounds(4)
    low = v[0] ^ v[1] ^ v[2] ^ v[3]
    v[1] ^= 0xDD
    rounds(4)
    return struct.pack("<QQ", low, v[0] ^ v[1] ^ v[2] ^ v[3])


class RawPeer:
    """A socket to an engine's listener, and what an honest dialler would do with it, step by step."""

    def __init__(self, port: int, secret: bytes) -> None:
        self.secret = secret
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.sequence = 0

    def receive(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self.sock.recv(size - len(data))
            if not piece:
                raise ConnectionError("closed")
            data += piece
        return data

    def closed(self) -> bool:
        """Whether the engine ends the connection; what it says before is dropped."""
        try:
            while self.sock.recv(65536):
                pass
        except ConnectionError:
            return True
        return True

    def message(self) -> tuple[int, bytes]:
        head = self.receive(12)
        magic, version, step, _, size = struct.unpack("<IHBBI", head)
        assert (magic, version) == (MAGIC, VERSION)
        self.last = head + self.receive(size)
        return step, self.last[12:]

    def say_hello(self, body: bytes | None = None) -> int:
        """Sends the hello, takes the challenge or what comes instead."""
        hello = message(HELLO, hello_body() if body is None else body)
        self.sock.sendall(hello)
        step, self.body = self.message()
        self.transcript = hashlib.sha256(
            struct.pack("<I", len(hello)) + hello + struct.pack("<I", len(self.last)) + self.last
        ).digest()
        return step

    def derive(self, label: bytes) -> bytes:
        return hmac.new(self.secret, name(label) + self.transcript, hashlib.sha256).digest()

    def prove(self, proof: bytes | None = None) -> int:
        self.sock.sendall(message(PROOF, self.derive(b"mori-io-1 dialer proves") if proof is None else proof))
        step, self.body = self.message()
        self.key = self.derive(b"mori-io-1 frames of the dialer")[:16]
        self.their_key = self.derive(b"mori-io-1 frames of the listener")[:16]
        return step

    def shake_hands(self, body: bytes | None = None) -> RawPeer:
        assert self.say_hello(body) == CHALLENGE
        assert self.prove() == DONE
        assert self.body == self.derive(b"mori-io-1 listener proves"), "the engine does not know the secret"
        return self

    def frame(
        self, kind: int, payload: bytes, *, fds: int = 0, size: int | None = None, sequence: int | None = None
    ) -> bytes:
        head = struct.pack(
            "<IBBHQ",
            len(payload) if size is None else size,
            kind,
            fds,
            0,
            self.sequence if sequence is None else sequence,
        )
        self.sequence += 1
        return head + sip128(self.key, head + payload) + payload

    def send(self, kind: int, payload: bytes) -> None:
        self.sock.sendall(self.frame(kind, payload))

    def answer(self) -> tuple[int, bytes]:
        head = self.receive(32)
        size, kind, _, _, _ = struct.unpack("<IBBHQ", head[:16])
        payload = self.receive(size)
        assert head[16:] == sip128(self.their_key, head[:16] + payload), "a wrong MAC of the engine"
        return kind, payload

    def ping(self) -> None:
        self.send(PING, struct.pack("<Q", 5))
        assert self.answer() == (ANSWER, struct.pack("<Q", 5))
