"""Reading ahead changes nothing but when batches are made, and its threads end."""

import threading
import time
from itertools import count, islice

import pytest
import torch

from cmtool.datasets.toy import gaussians
from cmtool.objectives.objective import Requirements
from cmtool.training import read_ahead
from cmtool.training.batches import BatchConfig, Batches
from cmtool.training.cache import Storage, open_cache
from cmtool.training.read_ahead import ReadAhead, depth_for, map_ahead, read_parts


class Watched(Batches):
    """Batches that say which of them were made, and by how many threads at a time."""

    def __init__(self, size: int = 8, others: int = 0):
        super().__init__(gaussians(count=50), BatchConfig(size, seed=3), Requirements(others=others))
        self.made: list[tuple[int, range | None]] = []
        self.broken: set[int] = set()

    def at(self, n: int, rows: range | None = None):
        self.made.append((n, rows))
        if n in self.broken:
            raise ValueError("a broken image")
        return super().at(n, rows)


def wait_for(condition, seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.002)
    return condition()


def assert_same(found, expected) -> None:
    for key, value in vars(expected).items():
        other = vars(found)[key]
        assert value is other is None or torch.equal(value, other), key


@pytest.mark.parametrize("depth", [None, 1, 3])
@pytest.mark.parametrize("rows", [None, range(2, 5)])
@pytest.mark.parametrize("others", [0, 20])
def test_batches_are_those_of_their_numbers(depth, rows, others):
    batches, alone = Watched(others=others), Watched(others=others)
    with ReadAhead(batches, 16, rows, depth) as ahead:
        for n in range(16, 160, 8):
            assert_same(ahead.get(n, rows), alone.at(n, rows))
    assert sorted(first for first, _ in batches.made)[:18] == list(range(16, 160, 8)), "each once"


def test_it_begins_before_it_is_asked_and_makes_no_more_than_it_may():
    batches = Watched()
    with ReadAhead(batches, 0, depth=3) as ahead:
        assert wait_for(lambda: len(batches.made) == 3)
        ahead.get(0)
        assert wait_for(lambda: len(batches.made) == 4)
        time.sleep(0.05)
        assert sorted(n for n, _ in batches.made) == [0, 8, 16, 24]


def test_other_rows_and_another_place_are_read_anew():
    """As when the micro-batch is halved, and when a run goes back to a save."""
    batches, alone = Watched(), Watched()
    with ReadAhead(batches, 0, range(4), depth=2) as ahead:
        for n, rows in [(0, range(4)), (0, range(2)), (8, range(2)), (16, None), (24, range(8)), (0, None), (8, None)]:
            assert_same(ahead.get(n, rows), alone.at(n, rows))


def test_the_last_batch_can_be_had_again():
    batches = Watched()
    with ReadAhead(batches, 0, range(4), depth=2) as ahead:
        for n in (0, 8, 16):
            assert ahead.get(n, range(4)) is ahead.get(n, range(4))
        assert wait_for(lambda: len(batches.made) == 5)
    assert sorted(n for n, _ in batches.made) == [0, 8, 16, 24, 32]


def test_an_error_comes_with_the_batch_it_belongs_to():
    batches = Watched()
    batches.broken = {16}
    with ReadAhead(batches, 0) as ahead:
        ahead.get(0), ahead.get(8)
        with pytest.raises(ValueError, match="a broken image"):
            ahead.get(16)
        assert len(ahead.get(24)) == 8


def test_memory_bounds_how_many_batches_wait(monkeypatch):
    batches = Watched(others=20)
    assert batches.bytes_of(8) == 4 * 2 * (2 * 8 + 20), "x, z and the others of points in the plane"
    assert [depth_for(size) for size in (1, (256 << 20) // 3, 256 << 20, 1 << 40)] == [8, 3, 1, 1]
    monkeypatch.setattr(read_ahead, "BYTES", 5 * batches.bytes_of(8))
    with ReadAhead(batches, 0) as ahead:
        assert wait_for(lambda: len(batches.made) == 5)
        ahead.get(0, range(1))
        assert len(ahead.waiting) > 5, "fewer rows are smaller"


def test_threads_end_with_the_block_and_after_an_error():
    before = threading.active_count()
    with ReadAhead(Watched(), 0) as ahead:
        ahead.get(0)
        assert threading.active_count() > before
    assert threading.active_count() == before
    with pytest.raises(RuntimeError, match="a failed step"), ReadAhead(Watched(), 0) as ahead:
        ahead.get(0)
        raise RuntimeError("a failed step")
    assert threading.active_count() == before


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_results_come_in_the_order_of_their_items(depth):
    def late(n: int) -> int:
        time.sleep(0.002 * (n % 3 == 0))
        return n * n

    assert list(map_ahead(late, range(40), depth)) == [n * n for n in range(40)]
    assert list(map_ahead(late, [], depth)) == []


def test_few_items_are_taken_ahead_and_threads_end_when_the_rest_is_left():
    before, taken = threading.active_count(), []
    walk = map_ahead(abs, (taken.append(n) or n for n in count()), depth=3)
    assert list(islice(walk, 2)) == [0, 1]
    assert taken == [0, 1, 2, 3, 4]
    walk.close()
    assert threading.active_count() == before


def test_an_error_comes_in_its_turn():
    walk = map_ahead(lambda n: 6 // n, [3, 2, 0, 1], depth=4)
    assert [next(walk), next(walk)] == [2, 3]
    with pytest.raises(ZeroDivisionError):
        next(walk)


def test_parts_of_a_data_set_are_read_ahead_until_all_of_it_is_in_memory():
    points = gaussians(count=40)
    parts, taken = [[3, 1], range(40), [5], [39, 0], [7, 7]], []
    cache = open_cache(points)
    before = threading.active_count()
    walk = read_parts(cache, (taken.append(part) or part for part in parts), depth=2)
    for k, part in enumerate(parts):
        images, labels = next(walk)
        assert torch.equal(images, points.points[list(part)])
        assert labels is not None and torch.equal(labels, points.labels[list(part)])
        assert len(taken) <= k + 3
    assert cache.complete
    assert list(walk) == []
    assert threading.active_count() == before
    assert [len(images) for images, _ in read_parts(cache, parts)] == [2, 40, 1, 2, 2]
    streamed = open_cache(points, Storage(most=0))
    assert [len(images) for images, _ in read_parts(streamed, parts)] == [2, 40, 1, 2, 2]
    assert not streamed.complete
