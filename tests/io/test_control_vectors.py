# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""SHA-256, HMAC and SipHash of the library against Python's and against published vectors."""

from __future__ import annotations

import hashlib
import hmac
import random
from collections.abc import Iterator

import pytest
from net_programs import Driven, build, compiler
from raw_peer import sip128

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def fuzz() -> Iterator[Driven]:
    if compiler() is None:
        pytest.skip("no g++ to build the test programs with")
    program = Driven([build("fuzz_main", "address"), "vectors"])
    yield program
    program.close()


@pytest.mark.parametrize("size", [0, 1, 3, 55, 56, 63, 64, 65, 119, 120, 128, 1000, 4097])
def test_digests_agree_with_pythons(fuzz: Driven, size: int) -> None:
    data, key = random.Random(size).randbytes(size), random.Random(size + 1).randbytes(size % 150)
    assert fuzz("sha256", data.hex() or "-") == [hashlib.sha256(data).hexdigest()]
    assert fuzz("hmac", key.hex() or "-", data.hex() or "-") == [hmac.new(key, data, "sha256").hexdigest()]
    assert fuzz("sip", bytes(range(16)).hex(), data.hex() or "-") == [sip128(bytes(range(16)), data).hex()]


# The first entries of vectors_sip128 of the reference implementation of SipHash.
@pytest.mark.parametrize(
    ("size", "digest"),
    [
        (0, "a3817f04ba25a8e66df67214c7550293"),
        (1, "da87c1d86b99af44347659119b22fc45"),
        (2, "8177228da4a45dc7fca38bdef60affe4"),
    ],
)
def test_siphash_has_the_published_vectors(fuzz: Driven, size: int, digest: str) -> None:
    assert fuzz("sip", bytes(range(16)).hex(), bytes(range(size)).hex() or "-") == [digest]
