"""Images are those of the data set wherever they are kept, and each is decoded as seldom as memory allows."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import Tensor

from cmtool.datasets.toy import gaussians
from cmtool.datasets.views import DatasetSlice
from cmtool.training import cache as caches
from cmtool.training.cache import ResidentImages, Storage, StreamedImages, open_cache

EVERY = {"resident": (Storage(), 0), "streamed": (Storage(most=0), 0), "recalled": (Storage(most=0), 64)}


class Counted:
    """Image i is full of i; who reads it is counted, and how many read at a time."""

    shape, classes, notice = (1, 2, 3), ("even", "odd"), "ours"

    def __init__(self, n: int = 50, thread_safe: bool = False, wait: float = 0.0):
        self.n, self.thread_safe, self.wait = n, thread_safe, wait
        self.read, self.now, self.most = np.zeros(n, dtype=int), 0, 0
        self.broken: set[int] = set()
        self.lock = threading.Lock()

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int, /) -> tuple[Tensor, int]:
        return torch.full(self.shape, i, dtype=torch.uint8), i % 2

    def batch(self, indices):
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(self.wait)
        with self.lock:
            self.now -= 1
            np.add.at(self.read, list(indices), 1)
        if self.broken & set(indices):
            raise ValueError("a broken image")
        images, labels = zip(*(self[i] for i in indices), strict=True)
        return torch.stack(images), torch.tensor(labels)


def check(found: tuple[Tensor, Tensor | None], indices) -> None:
    images, labels = found
    assert images.dtype == torch.uint8
    assert images.shape == (len(indices), 1, 2, 3)
    assert (images == torch.tensor(list(indices)).view(-1, 1, 1, 1)).all()
    assert labels is not None and labels.tolist() == [i % 2 for i in indices]


@pytest.mark.parametrize("kind", EVERY)
def test_images_are_those_that_were_asked_for(kind):
    cache = open_cache(Counted(), *EVERY[kind])
    for indices in ([3, 1, 3], range(50), np.array([49, 1, 0]), [5]):
        found = cache.read(indices)
        check(found, indices)
        found[0].zero_(), found[1].fill_(9)  # what is handed out is the caller's own


@pytest.mark.parametrize("kind", EVERY)
def test_data_without_labels_and_points(kind):
    data = Counted()
    data.classes = ()
    data.batch = lambda indices: (torch.stack([data[i][0] for i in indices]), None)
    assert open_cache(data, *EVERY[kind]).read([3, 1])[1] is None
    points = gaussians(count=20)
    assert torch.equal(open_cache(points, *EVERY[kind]).read([4, 2, 4])[0], points.points[[4, 2, 4]])


def test_what_fits_in_memory_is_kept_there(monkeypatch):
    size = 50 * 6
    assert isinstance(open_cache(Counted(), Storage(most=size)), ResidentImages)
    assert isinstance(open_cache(Counted(), Storage(most=size - 1)), StreamedImages)
    for free, kind in ((4 * size, ResidentImages), (4 * size - 1, StreamedImages)):
        monkeypatch.setattr(caches, "free_memory", lambda device, free=free: free)
        assert isinstance(open_cache(Counted()), kind), "a quarter of what is free"
    assert isinstance(open_cache(Counted(), Storage(most=10**9)), ResidentImages)
    monkeypatch.setattr(caches, "free_memory", lambda device: size - 1)
    assert isinstance(open_cache(Counted(), Storage(most=10**9)), StreamedImages), "what is not there is not taken"


@pytest.mark.parametrize("safe", [False, True])
@pytest.mark.parametrize("kind", ["resident", "recalled"])
def test_threads_that_want_the_same_images_read_each_once(kind, safe):
    data = Counted(thread_safe=safe, wait=0.002)
    cache = open_cache(data, *EVERY[kind])
    windows = [range(start, start + 20) for start in range(0, 31, 2)]
    with ThreadPoolExecutor(6) as pool:
        for window, found in zip(windows, pool.map(cache.read, windows), strict=True):
            check(found, window)
    assert data.read[1:].tolist() == [1] * 49
    assert data.read[0] == (1 if kind == "resident" else 2), "the first one perhaps twice, for its size"


@pytest.mark.parametrize("kind", EVERY)
def test_a_data_set_is_read_by_several_threads_only_if_it_says_so(kind):
    most = {}
    for safe in (False, True):
        data = Counted(thread_safe=safe, wait=0.05)
        cache = open_cache(DatasetSlice(data), *EVERY[kind])
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(cache.read, np.arange(1, 49).reshape(4, -1)))
        most[safe] = data.most
    assert most[False] == 1
    assert most[True] > 1


@pytest.mark.parametrize("kind", EVERY)
def test_an_image_that_fails_fails_for_all_who_want_it_and_spoils_nothing(kind):
    data = Counted(thread_safe=True, wait=0.01)
    cache = open_cache(data, *EVERY[kind])
    data.broken = {7}
    with ThreadPoolExecutor(4) as pool:
        found = [pool.submit(cache.read, range(start, start + 6)) for start in (0, 4, 5, 12, 14)]
    assert [isinstance(each.exception(), ValueError) for each in found] == [False, True, True, False, False]
    for each, start in zip(found, (0, 4, 5, 12, 14), strict=True):
        if each.exception() is None:
            check(each.result(), range(start, start + 6))
    data.broken = set()
    check(cache.read(range(20)), range(20))


def test_of_a_streamed_set_no_more_stays_than_was_asked_for():
    data = Counted(thread_safe=True)
    cache = open_cache(data, Storage(most=0), 10)
    assert isinstance(cache, StreamedImages)
    for start in range(0, 40, 5):
        check(cache.read(range(start, start + 5)), range(start, start + 5))
        assert len(cache.held) <= 10
    data.read[:] = 0
    cache.read(range(30, 40))
    assert data.read.sum() == 0
    cache.read([29])
    assert data.read.tolist() == [0] * 29 + [1] + [0] * 20


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", EVERY)
def test_on_a_gpu_images_come_from_there(kind):
    storage, recall = EVERY[kind]
    cache = open_cache(Counted(), Storage(torch.device("cuda"), storage.most), recall)
    for indices in ([3, 1, 3], range(50)):
        images, labels = cache.read(indices)
        assert images.device.type == "cuda"
        assert labels is not None and labels.device.type == "cpu"
        check((images.cpu(), labels), indices)
