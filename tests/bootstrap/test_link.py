# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""A link gives back the frames that were posted, however the bytes were cut; a ledger has one first entry."""

import os
import socket
import threading

import pytest
from boot_helpers import memfd, open_fds
from hypothesis import given, settings
from hypothesis import strategies as st
from mori._ledger import Ledger
from mori._link import Frame, Kind, Link, State, close_fds, encode

pytestmark = pytest.mark.timeout(60)

frames = st.builds(
    Frame,
    st.sampled_from([Kind.HELLO, Kind.DATA, Kind.JOIN, Kind.DECIDED]),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**64 - 1),
    st.text(max_size=20),
    st.binary(max_size=300),
    st.just(()),
)


def link_pair():
    left, right = socket.socketpair()
    return Link(left), Link(right)


def all_frames(link):
    found = []
    while (frame := link.take(lambda f: True)) is not None:
        found.append(frame)
    return found


@settings(max_examples=60, deadline=None)
@given(st.lists(frames, max_size=6), st.lists(st.integers(1, 50), min_size=1))
def test_any_cutting_gives_the_same_frames(sent, cuts):
    raw, far = socket.socketpair()
    link = Link(far)
    data = b"".join(bytes(piece) for frame in sent for piece, _, _ in encode(frame))
    at = turn = 0
    while at < len(data):
        length = cuts[turn % len(cuts)]
        raw.send(data[at : at + length])
        link.pump()
        at, turn = at + length, turn + 1
    raw.close()
    link.pump(to_the_end=True)
    assert link.state is State.LOST
    assert all_frames(link) == sent
    link.close()


@settings(max_examples=30, deadline=None)
@given(st.binary(min_size=37, max_size=200).filter(lambda data: not data.startswith(b"MoRI")))
def test_strangers_end_the_link(noise):
    raw, far = socket.socketpair()
    link = Link(far)
    raw.send(noise)
    link.pump()
    assert link.state is State.LOST
    assert "protocol" in link.reason
    raw.close()
    link.close()


@pytest.mark.parametrize("counts", [[1], [3, 0, 2], [251, 1], [600]], ids=lambda c: "-".join(map(str, c)))
def test_descriptors_stay_with_their_frames(counts):
    before = open_fds()
    left, right = link_pair()
    for number, count in enumerate(counts):
        fds = [memfd(f"{number}.{i}") for i in range(count)]
        left.post(encode(Frame(Kind.DATA, 0, 0, number, "t", b"p" * 1000, tuple(fds))))
        close_fds(fds)  # the link holds its own
    while left.unsent:
        left.flush()
        right.pump()
    right.pump(to_the_end=True)
    for number, (frame, count) in enumerate(zip(all_frames(right), counts, strict=True)):
        assert [os.pread(fd, 50, 0).decode() for fd in frame.fds] == [f"{number}.{i}" for i in range(count)]
        close_fds(frame.fds)
    left.close()
    right.close()
    assert open_fds() == before


def test_unread_descriptors_are_closed_with_the_link():
    before = open_fds()
    left, right = link_pair()
    fd = memfd("x")
    left.post(encode(Frame(Kind.DATA, 0, 0, 0, fds=(fd,))))
    left.flush()
    right.pump()
    left.close()
    right.close()
    os.close(fd)
    assert open_fds() == before


@pytest.mark.parametrize("farewell", [True, False], ids=["farewell", "none"])
def test_only_a_farewell_makes_an_orderly_end(farewell):
    left, right = link_pair()
    right.post(encode(Frame(Kind.DATA, 0, 0, 0)))  # what the other side never reads must not hide its farewell
    right.flush()
    left.post(encode(Frame(Kind.DATA, 0, 0, 5)))
    if farewell:
        left.post(encode(Frame(Kind.FAREWELL, 0, 0, 0)))
    left.flush()
    left.close()
    right.post(encode(Frame(Kind.DATA, 0, 0, 1)))
    right.flush()
    assert right.state is (State.LEFT if farewell else State.LOST)
    assert [frame.sequence for frame in all_frames(right)] == [5]
    right.close()


@pytest.mark.parametrize("value_bytes", [1, 8, 40, 64])
def test_everyone_sees_the_same_first_proposal(value_bytes):
    ledger = Ledger.create(value_bytes)
    copies = [ledger.share() for _ in range(8)]
    seen: list[tuple[int, bytes]] = []

    def propose(number: int) -> None:
        for decision in range(50):
            seen.append((decision, copies[number].decide(3, decision, bytes([number]) * value_bytes)))

    threads = [threading.Thread(target=propose, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 400
    assert len(set(seen)) == 50
    assert ledger.decision(4, 0) is None
    assert ledger.decision(3, 50) is None
    for copy in (ledger, *copies):
        copy.close()
