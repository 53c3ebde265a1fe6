# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The control plane between processes: asking, opening, streams, messages, liveness, restarts, secrets, forks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from net_programs import Driven, Failed, build, compiler
from proxy import Proxy

pytestmark = pytest.mark.timeout(400)
SECRET = "an example secret of 32 bytes..."


class Engine(Driven):
    def __init__(
        self,
        program: Path,
        key: str,
        incarnation: int,
        host: str = "127.0.0.1",
        port: int = 0,
        secret: str = SECRET,
        here: bool = True,
        insecure: bool = False,
    ) -> None:
        super().__init__([program, key, incarnation, host, port, secret, int(here), 5000, int(insecure)])
        self.key, self.incarnation, self.port = key, incarnation, int(self.hello[1])

    def connect(self, other: Engine, port: int | None = None, incarnation: int | None = None) -> list[str]:
        wanted = other.incarnation if incarnation is None else incarnation
        return self("connect", other.key, wanted, "127.0.0.1", port or other.port, 5000)

    def log(self, word: str, timeout: float = 5.0) -> list[str]:
        """What its handler was told that begins with `word`; waits for the first."""
        end = time.monotonic() + timeout
        found: list[str] = []
        while not found and time.monotonic() < end:
            self.ask("log")
            whole = "\t".join(self.answer())
            found = [line for line in whole.split("\x1e") if line.startswith(word)]
            time.sleep(0.005)
        return found


@pytest.fixture(scope="module")
def program() -> Path:
    if compiler() is None:
        pytest.skip("no g++ to build the test programs with")
    return build("control_main", "address")


Start = Callable[..., Engine]


@pytest.fixture
def start(program: Path) -> Iterator[Start]:
    made: list[Engine] = []

    def one(key: str, incarnation: int, **options: object) -> Engine:
        made.append(Engine(program, key, incarnation, **options))  # type: ignore[arg-type]
        return made[-1]

    yield one
    for engine in made:
        engine.close()


@pytest.mark.parametrize("here", [True, False], ids=["one-host", "network"])
def test_two_engines_talk(start: Start, here: bool) -> None:
    a, b = start("A", 1, here=here), start("B", 2, here=here)
    assert a.connect(b) == ["2", "here" if here else "away", str(b.process.pid if here else -1), "127.0.0.1"]
    assert a("ask", "B", "hello", 1000) == ["tcp:hello:A"]
    assert a("big", "B", 5000) == [str(1 << 20)]
    assert a("tell", "B", "x") == ["sent"]
    assert b.log("told") == ["told\tA\ttcp\tx"]
    assert a("stream", "B", 2000) == ["keys agree"]
    assert a("alive", "B", 1000) == ["yes"]
    with pytest.raises(Failed, match="I will not"):
        a("ask", "B", "refuse", 1000)


def test_both_ends_of_a_connection_ask(start: Start) -> None:
    a, b = start("A", 1), start("B", 2)
    a.connect(b)
    assert a("ask", "B", "hello", 1000) == ["tcp:hello:A"]  # B knows of the connection from here on
    b.connect(a)
    assert b("ask", "A", "hello", 1000) == ["tcp:hello:B"]
    assert b("stream", "A", 2000) == ["keys agree"]
    assert "connections=1 " in a("counters")[0]


def test_both_dial_at_once(start: Start) -> None:
    a, b = start("A", 1), start("B", 2)
    for engine, other in ((a, b), (b, a)):
        engine.ask("connect", other.key, other.incarnation, "127.0.0.1", other.port, 5000)
    a.answer(), b.answer()
    for _ in range(20):
        assert a("ask", "B", "hello", 1000) == ["tcp:hello:A"]
        assert b("ask", "A", "hello", 1000) == ["tcp:hello:B"]


@pytest.mark.parametrize("here", [True, False], ids=["one-host", "network"])
def test_descriptors_pass_on_one_host_only(start: Start, here: bool) -> None:
    a, b = start("A", 1, here=here), start("B", 2, here=here)
    a.connect(b)
    if here:
        assert a("fds", "B", 1000)[0].split() == ["memory", "0", "memory", "1", "memory", "2"]
    else:
        with pytest.raises(Failed, match="one host"):
            a("fds", "B", 1000)


@pytest.mark.parametrize(
    ("region", "key", "incarnation", "kind"),
    [(3, "good", 0, "ok"), (3, "bad", 0, "Refused 20"), (77, "good", 0, "Refused 12"), (3, "good", 9, "Refused 14")],
    ids=["right", "wrong-key", "no-such-region", "other-incarnation"],
)
def test_opening_a_region(start: Start, region: int, key: str, incarnation: int, kind: str) -> None:
    a, b = start("A", 1), start("B", 2)
    a.connect(b)
    if kind == "ok":
        assert a("open", "B", region, key, incarnation, 1000) == ["tcp=12 shm=1000 "]
        return
    with pytest.raises(Failed) as error:
        a("open", "B", region, key, incarnation, 1000)
    assert error.value.kind == kind
    if incarnation:
        assert "0000000000000002" in str(error.value) and "0000000000000009" in str(error.value)


def test_revoking_waits_for_those_who_opened(start: Start) -> None:
    a, b, c = start("A", 1), start("B", 2), start("C", 3)
    a.connect(b)
    c.connect(b)
    a("open", "B", 3, "good", 0, 1000)
    assert b("revoke", 3, 2000) in ([], [""])
    assert a.log("revoked") == ["revoked\tB\t3"]
    assert c.log("revoked", 0.1) == []
    assert b("revoke", 3, 2000) in ([], [""])  # nobody any more


def test_who_does_not_let_go_is_cut_off(start: Start) -> None:
    a, b = start("A", 1), start("B", 2)
    a.connect(b)
    a("open", "B", 3, "good", 0, 1000)
    a("acknowledge", 0)
    began = time.monotonic()
    assert b("revoke", 3, 300) == ["A "]
    assert 0.25 < time.monotonic() - began < 20
    assert "did not let go" in b.log("lost")[0]
    assert a.log("lost")


def test_a_killed_peer_is_noticed_in_milliseconds(start: Start) -> None:
    a, b = start("A", 1), start("B", 2)
    a.connect(b)
    b.kill()
    began = time.monotonic()
    assert a.log("lost")
    assert time.monotonic() - began < 5
    with pytest.raises(Failed, match="PeerLost"):
        a("ask", "B", "hello", 1000)
    assert a("alive", "B", 500) == ["no"]


def test_a_killed_peer_is_noticed_though_its_children_hold_its_sockets(start: Start) -> None:
    a, b = start("A", 1), start("B", 2)
    a.connect(b)
    b("daemon", 3)
    b.kill()
    began = time.monotonic()
    assert a.log("lost")
    assert time.monotonic() - began < 5


def test_a_stopped_peer_is_a_time_out(start: Start) -> None:
    a, b = start("A", 1), start("B", 2)
    a.connect(b)
    b.stop()
    with pytest.raises(Failed) as error:
        a("ask", "B", "hello", 200)
    assert error.value.kind == "TimeoutError" and "'B'" in str(error.value)
    assert a("alive", "B", 200) == ["no"]
    with pytest.raises(Failed):
        a("stream", "B", 200)
    b.go_on()
    assert a("alive", "B", 2000) == ["yes"]
    assert a("ask", "B", "hello", 1000) == ["tcp:hello:A"]


def test_goodbye_is_told_from_a_crash(start: Start) -> None:
    a, b = start("A", 1), start("B", 2)
    a.connect(b)
    a("ask", "B", "hello", 1000)
    b.close()
    assert "it closed" in a.log("lost")[0]


def test_another_incarnation_is_another_engine(start: Start) -> None:
    a, b = start("A", 1), start("B", 2)
    a.connect(b)
    b.kill()
    again = start("B", 3, port=b.port)
    with pytest.raises(Failed) as error:
        a.connect(b)
    assert error.value.kind == "Refused 14"
    assert "0000000000000003" in str(error.value) and "0000000000000002" in str(error.value)
    a.connect(again)
    assert a("ask", "B", "hello", 1000) == ["tcp:hello:A"]


def test_another_engine_at_the_address_is_not_taken_for_it(start: Start) -> None:
    a, c = start("A", 1), start("C", 5)
    with pytest.raises(Failed) as error:
        a("connect", "B", 0, "127.0.0.1", c.port, 1000)
    assert error.value.kind == "Refused 12" and "'C'" in str(error.value)


def test_nobody_there(start: Start) -> None:
    a, b = start("A", 1), start("B", 2)
    b.close()
    with pytest.raises(Failed, match="PeerLost"):
        a.connect(b)


@pytest.mark.parametrize("cuts", [0, 1, 5])
def test_messages_arrive_once_and_in_order_across_broken_connections(start: Start, cuts: int) -> None:
    a, b = start("A", 1, here=False), start("B", 2, here=False)
    with Proxy(b.port) as proxy:
        a.connect(b, proxy.port)
        sent = 0
        for turn in range(cuts + 1):
            for _ in range(50):
                a("notify", "B", sent, f"m{sent}")
                sent += 1
            if turn < cuts:
                proxy.reset()
                for _ in range(20):
                    a("notify", "B", sent, f"m{sent}")
                    sent += 1
                while a("alive", "B", 1000) == ["no"]:
                    time.sleep(0.01)
        got: list[str] = []
        while len(got) < sent:
            fresh = b.log("notified")
            assert fresh, f"{len(got)} of {sent}"
            got += fresh
        assert got == [f"notified\tA\t{i}\tm{i}" for i in range(sent)]
        assert not b.log("notified", 0.2)


SECRETS = [
    (SECRET, SECRET, None),
    (SECRET, "another secret of 32 bytes......", "Refused 20"),
    (SECRET, "-", "Refused 20"),
    ("-", SECRET, "Refused 20"),
    ("-", "-", None),
]


@pytest.mark.parametrize(("ours", "theirs", "kind"), SECRETS, ids=["same", "other", "theirs-none", "ours-none", "none"])
@pytest.mark.parametrize("here", [True, False], ids=["one-host", "network"])
def test_secrets(start: Start, ours: str, theirs: str, kind: str | None, here: bool) -> None:
    a, b = start("A", 1, secret=ours, here=here), start("B", 2, secret=theirs, here=here)
    if kind is None:
        a.connect(b)
        return
    with pytest.raises(Failed) as error:
        a.connect(b)
    assert error.value.kind == kind and "secret" in str(error.value)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.255.255.1"])
def test_no_secret_means_loopback_only(start: Start, host: str) -> None:
    with pytest.raises(Failed, match="secret"):
        start("A", 1, secret="-", host=host)
    a = start("A", 1, secret="-")
    with pytest.raises(Failed, match="loopback"):
        a("connect", "B", 1, "10.255.255.1", 1, 100)


def test_no_secret_elsewhere_by_explicit_choice(start: Start) -> None:
    a, b = start("A", 1), start("B", 2, secret="-", host="0.0.0.0", insecure=True)
    with pytest.raises(Failed, match="secret"):
        a.connect(b)
    c = start("C", 3, secret="-")
    c.connect(b)


def test_a_short_secret_is_refused(start: Start) -> None:
    with pytest.raises(Failed, match="16"):
        start("A", 1, secret="hunter2")


def test_a_forked_child_is_told_so_and_the_parent_goes_on(start: Start) -> None:
    a, b = start("A", 1), start("B", 2)
    a.connect(b)
    assert a("fork", "B", 500) == ["0"]
    assert a("ask", "B", "hello", 1000) == ["tcp:hello:A"]


def test_an_idle_engine_uses_no_cpu(start: Start) -> None:
    a, b = start("A", 1), start("B", 2)
    a.connect(b)
    before = [int(engine("cpu")[0]) for engine in (a, b)]
    time.sleep(1.0)
    assert all(int(engine("cpu")[0]) - early < 20_000 for engine, early in zip((a, b), before, strict=True))


def test_many_connect_to_one_at_the_same_time(start: Start) -> None:
    b = start("B", 2)
    others = [start(f"A{i}", 10 + i) for i in range(6)]
    threads = [threading.Thread(target=other.connect, args=(b,)) for other in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert [other("ask", "B", "hello", 5000) for other in others] == [[f"tcp:hello:A{i}"] for i in range(6)]
