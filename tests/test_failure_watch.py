"""Ranks hear of each other's failure through a store; here they are threads of one process."""

import threading
import time

import pytest
from torch._C._distributed_c10d import HashStore

from cmtool.pipelines import failure_watch
from cmtool.pipelines.failure_watch import FailureWatch


@pytest.fixture
def ranks(monkeypatch):
    """Three of them, quick to give up."""
    monkeypatch.setattr(failure_watch, "LINGER", 1.0)
    monkeypatch.setattr(failure_watch, "PAUSE", 0.02)
    store = HashStore()
    found = [FailureWatch(store, rank, 3) for rank in range(3)]
    yield found
    for each in found:
        each.close()


def test_all_others_hear_the_code_of_the_first(ranks):
    began = time.monotonic()
    assert ranks[1].claim(65)
    assert time.monotonic() - began < 0.9  # it stays no longer than until they have heard
    assert [ranks[rank].wait() for rank in (0, 2)] == [65, 65]
    assert not ranks[0].claim(74)  # what fails afterwards is an echo
    assert ranks[0].wait() == 65


def test_of_two_at_once_one_is_the_first(ranks):
    won = {}
    both = [threading.Thread(target=lambda r=r: won.update({r: ranks[r].claim(60 + r)})) for r in (0, 2)]
    for each in both:
        each.start()
    for each in both:
        each.join()
    assert sorted(won.values()) == [False, True]
    first = next(rank for rank, was in won.items() if was)
    assert ranks[1].wait() == 60 + first
    assert ranks[2 - first].code == 60 + first


def test_nobody_is_waited_for_who_does_not_listen(ranks):
    ranks[0].close()
    ranks[2].close()
    began = time.monotonic()
    assert ranks[1].claim(65)
    assert 0.9 < time.monotonic() - began < 3


def test_silence_is_no_failure(ranks):
    assert ranks[0].wait() is None


def test_a_store_that_is_gone_is_none_of_our_errors():
    class Gone:
        def check(self, keys):
            raise RuntimeError("Connection reset by peer")

        def compare_set(self, *given):
            raise RuntimeError("Connection reset by peer")

    watch = FailureWatch(Gone(), 0, 2)
    assert watch.claim(65)
    assert watch.code is None
