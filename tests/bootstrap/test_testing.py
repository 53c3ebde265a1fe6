# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""run_ranks gives results by rank, and turns every way to fail into an error with the rank's own words."""

import multiprocessing
import os
import signal
import threading
import time

import pytest
from mori.errors import ConfigError, TimeoutError
from mori.testing import MODES, RankError, run_ranks

from mori import config

pytestmark = pytest.mark.timeout(60)
BODIES = ["process", "thread"]


def echo(rank, world_size, uid, *args):
    return rank, world_size, len(uid), args


@pytest.mark.parametrize("mode", MODES)
def test_results_come_by_rank(mode):
    assert run_ranks(echo, 3, "a", {"b": 1}, mode=mode) == [(r, 3, 128, ("a", {"b": 1})) for r in range(3)]


def where(rank, world_size, uid):
    return os.getpid(), threading.current_thread().name


def test_processes_and_threads_are_what_they_say():
    assert len({pid for pid, _ in run_ranks(where, 2)} | {os.getpid()}) == 3
    assert {pid for pid, _ in run_ranks(where, 2, mode="thread")} == {os.getpid()}


class Stubborn(Exception):
    def __init__(self, a, b):
        super().__init__(f"{a} and {b}")


def fail(rank, world_size, uid, error):
    if rank == 1:
        raise error


@pytest.mark.parametrize("mode", BODIES)
@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("my words"), "my words"),
        (TimeoutError(what="w", peer=3), "waiting for rank 3"),
        (SystemExit(3), "SystemExit"),
    ],
    ids=lambda v: type(v).__name__,
)
def test_a_failure_has_the_ranks_own_traceback(error, words, mode):
    with pytest.raises(RankError, match=words) as caught:
        run_ranks(fail, 3, error, mode=mode)
    assert list(caught.value.tracebacks) == [1]
    assert "in fail" in caught.value.tracebacks[1]
    if isinstance(error, TimeoutError):
        assert caught.value.__cause__.peer == 3


def stubborn(rank, world_size, uid):
    raise Stubborn("this", "that")


def test_an_exception_that_cannot_be_sent_keeps_its_text():
    with pytest.raises(RankError, match="this and that"):
        run_ranks(stubborn, 1)


def unpicklable(rank, world_size, uid):
    return threading.Lock()


def test_a_result_that_cannot_be_sent_is_named():
    with pytest.raises(RankError, match="cannot be pickled"):
        run_ranks(unpicklable, 1)


def test_a_function_that_cannot_be_sent_is_refused():
    with pytest.raises(ConfigError, match="picklable"):
        run_ranks(lambda rank, world_size, uid: None, 2)
    assert run_ranks(lambda rank, world_size, uid: rank, 2, mode="fork") == [0, 1]


def die(rank, world_size, uid, how):
    if rank == 0:
        os._exit(7) if how == "exit" else os.kill(os.getpid(), signal.SIGSEGV)
    time.sleep(60)


@pytest.mark.parametrize(("how", "words"), [("exit", "exit code 7"), ("crash", "SIGSEGV")])
def test_a_rank_that_dies_ends_all(how, words):
    start = time.monotonic()
    with pytest.raises(RankError, match=words) as caught:
        run_ranks(die, 2, how)
    assert set(caught.value.tracebacks) == {0, 1}
    assert time.monotonic() - start < 10


def sleep(rank, world_size, uid):
    if rank == 1:
        threading.Event().wait(20)


@pytest.mark.parametrize("mode", BODIES)
def test_the_deadline_names_who_did_not_end(mode):
    start = time.monotonic()
    with pytest.raises(RankError, match="did not end in time") as caught:
        run_ranks(sleep, 3, mode=mode, timeout=3)
    assert list(caught.value.tracebacks) == [1]
    assert time.monotonic() - start < 8


def test_nothing_is_left_running():
    with pytest.raises(RankError):
        run_ranks(sleep, 3, timeout=1)
    assert multiprocessing.active_children() == []


def stopped(rank, world_size, uid):
    if rank == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    return rank


def test_expendable_ranks_may_be_stopped_or_killed():
    assert run_ranks(stopped, 3, expendable=[1]) == [0, None, 2]
    assert run_ranks(die, 1, "exit", expendable=[0]) == [None]


def variable(rank, world_size, uid):
    return config.load().sms


@pytest.mark.parametrize("mode", MODES)
def test_ranks_have_the_environment_of_the_moment(mode, monkeypatch):
    for value in (3, 4):
        monkeypatch.setenv("MORI_SMS", str(value))
        assert run_ranks(variable, 1, mode=mode) == [value]


@pytest.mark.parametrize("given", [{"mode": "gpu"}, {"world_size": 0}, {"timeout": -1}], ids=str)
def test_bad_arguments_are_named(given):
    with pytest.raises(ConfigError, match=next(iter(given))):
        run_ranks(echo, **{"world_size": 1, **given})
