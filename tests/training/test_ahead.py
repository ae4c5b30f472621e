"""A thread that works ahead changes nothing but when things are made."""

import threading
import time
from itertools import count, islice

import pytest

from cmtool.training.batches import ahead


def wait_for(condition, seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.002)
    return condition()


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_items_come_in_order_and_end(depth):
    assert list(ahead(iter(range(1, 100)), depth)) == list(range(1, 100))
    assert list(ahead(iter([]), depth)) == []


def test_it_is_at_most_a_few_items_ahead():
    made = []
    walk = ahead((made.append(n) or n for n in count(1)), depth=2)
    assert next(walk) == 1
    assert wait_for(lambda: len(made) == 4), "two wait in the queue, one in the hand of the thread"
    time.sleep(0.05)
    assert len(made) == 4
    walk.close()


def test_nothing_is_made_before_it_is_asked_for():
    made = []
    walk = ahead(made.append(n) or n for n in count(1))
    time.sleep(0.02)
    assert made == []
    walk.close()


@pytest.mark.parametrize(
    "error", [ValueError("a broken image"), KeyboardInterrupt(), MemoryError("too large")], ids=repr
)
def test_an_error_arrives_after_the_items_before_it(error):
    def items():
        yield from (1, 2, 3)
        raise error

    seen, walk = [], ahead(items())
    with pytest.raises(type(error)) as caught:
        for item in walk:
            seen.append(item)
    assert seen == [1, 2, 3]
    assert caught.value is error


@pytest.mark.parametrize("taken", [1, 2, 7])
def test_stopping_early_ends_the_thread(taken):
    before = threading.active_count()
    walk = ahead(count(1))
    assert list(islice(walk, taken)) == list(range(1, taken + 1))
    assert threading.active_count() == before + 1
    walk.close()
    assert wait_for(lambda: threading.active_count() == before)


def test_stopping_while_an_item_is_in_the_making_does_not_wait_for_it():
    before, hold = threading.active_count(), threading.Event()

    def items():
        yield 1
        hold.wait(30)
        yield 2

    walk = ahead(items())
    assert next(walk) == 1
    began = time.monotonic()
    walk.close()
    assert time.monotonic() - began < 1
    hold.set()
    assert wait_for(lambda: threading.active_count() == before)


def test_a_failed_loop_ends_the_thread():
    before = threading.active_count()

    def loop():
        for item in ahead(count(1)):
            if item == 3:
                raise RuntimeError("a failed step")

    with pytest.raises(RuntimeError, match="a failed step"):
        loop()
    assert wait_for(lambda: threading.active_count() == before)
