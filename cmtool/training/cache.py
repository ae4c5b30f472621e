"""Decoded images: all of a data set in memory, on the device when that is a GPU, or read again each time."""

from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import dataclass
from threading import Condition, Lock
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from cmtool.datasets import as_dataset
from cmtool.training.memory import free_memory

__all__ = ["CPU", "ImageCache", "ResidentImages", "Storage", "StreamedImages", "open_cache"]

CPU = torch.device("cpu")
SHARE = 4  # a data set may take one part in so many of the free memory
MISSING, CLAIMED, KNOWN = 0, 1, 2


@dataclass(frozen=True)
class Storage:
    """Where decoded images are kept: on ``device``, at most ``most`` bytes of them; None: a quarter of what is free."""

    device: torch.device = CPU
    most: int | None = None


class ImageCache(Protocol):
    """Images of a data set by lists of indices, asked for by any number of threads at once.

    The bits are those of the data set, wherever the images are kept. ``complete`` says that all are in memory.
    """

    @property
    def complete(self) -> bool: ...

    def read(self, indices: Sequence[int] | np.ndarray) -> tuple[Tensor, Tensor | None]:
        """Images uint8 [B, C, H, W] (or points float32 [B, D]) on the device; labels [B] on the processor, or None."""
        ...


def open_cache(dataset: Any, storage: Storage | None = None, recall: int = 0) -> ImageCache:
    """The images of a data set, in memory if they fit, else streamed.

    ``recall`` is how many images of a streamed set stay when they have been read, for windows that overlap.
    """
    storage, source = storage or Storage(), Source(dataset)
    device = storage.device if storage.device.type == "cuda" else CPU
    first, labels = source.read([0])
    free = free_memory(device)
    most = free // SHARE if storage.most is None else min(storage.most, free)
    if first.nbytes * len(source) > most:
        return StreamedImages(source, device, recall)
    cache = ResidentImages(source, first, device)
    cache.keep(np.zeros(1, np.int64), first, labels)
    return cache


class Source:
    """A data set that is read in batches: by one thread at a time, unless it says that several may."""

    def __init__(self, dataset: Any):
        self.dataset = as_dataset(dataset)
        self.labelled = bool(self.dataset.classes)
        self.turn = nullcontext() if self.dataset.thread_safe else Lock()

    def __len__(self) -> int:
        return len(self.dataset)

    def read(self, indices: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        with self.turn:
            images, labels = self.dataset.batch(indices)
        return torch.as_tensor(images), torch.as_tensor(labels) if self.labelled else None


class ResidentImages:
    """All images of a data set on one device, each of them decoded once, when it is first asked for.

    ``first`` is one of them, [1, ...]: it has the type and the shape of all.
    """

    def __init__(self, source: Source, first: Tensor, device: torch.device = CPU):
        self.source = source
        self.images = torch.empty((len(source), *first.shape[1:]), dtype=first.dtype, device=device)
        self.labels = torch.zeros(len(source), dtype=torch.long)
        self.state, self.missing = np.zeros(len(source), np.uint8), len(source)
        self.changed = Condition()

    @property
    def complete(self) -> bool:
        return not self.missing

    def read(self, indices: Sequence[int] | np.ndarray) -> tuple[Tensor, Tensor | None]:
        rows = np.asarray(indices, np.int64)
        while self.missing and not (self.state[rows] == KNOWN).all():
            self._decode(rows)
        chosen = torch.from_numpy(rows)
        images = self.images.index_select(0, chosen.to(self.images.device, non_blocking=True))
        return images, self.labels[chosen] if self.source.labelled else None

    def keep(self, rows: np.ndarray, images: Tensor, labels: Tensor | None) -> None:
        """The images with these numbers have been read."""
        self.images.index_copy_(0, torch.from_numpy(rows).to(self.images.device), images.to(self.images.device))
        if labels is not None:
            self.labels[torch.from_numpy(rows)] = labels
        with self.changed:
            self.state[rows] = KNOWN
            self.missing -= len(rows)
            self.changed.notify_all()

    def _decode(self, rows: np.ndarray) -> None:
        """Decode those that no other thread decodes; wait for the others."""
        with self.changed:
            mine = np.unique(rows[self.state[rows] == MISSING])
            self.state[mine] = CLAIMED
        if not len(mine):
            with self.changed:
                self.changed.wait_for(lambda: not (self.state[rows] == CLAIMED).any())
            return
        try:
            self.keep(mine, *self.source.read(mine.tolist()))
        except BaseException:  # whoever waits for these decodes them himself
            with self.changed:
                self.state[mine] = MISSING
                self.changed.notify_all()
            raise


class StreamedImages:
    """Images that are read each time; the last ``recall`` of them stay."""

    complete = False

    def __init__(self, source: Source, device: torch.device = CPU, recall: int = 0):
        self.source, self.device, self.recall = source, device, recall
        self.held: OrderedDict[int, tuple[Future, int]] = OrderedDict()
        self.lock = Lock()

    def read(self, indices: Sequence[int] | np.ndarray) -> tuple[Tensor, Tensor | None]:
        wanted, places = np.unique(np.asarray(indices, np.int64), return_inverse=True)
        images, labels = self._recall(wanted.tolist()) if self.recall else self.source.read(wanted.tolist())
        rows = torch.from_numpy(places)
        return self._send(images.index_select(0, rows)), None if labels is None else labels[rows]

    def _recall(self, wanted: list[int]) -> tuple[Tensor, Tensor | None]:
        """What is held, and for the rest one reading, which other threads that want some of it wait for."""
        with self.lock:
            mine, group = [i for i in wanted if i not in self.held], Future()
            self.held |= {i: (group, row) for row, i in enumerate(mine)}
            places = [self.held[i] for i in wanted]
            for i in wanted:
                self.held.move_to_end(i)
            while len(self.held) > max(self.recall, len(wanted)):
                self.held.popitem(last=False)
        if mine:
            self._answer(group, mine)
        found = [(answer.result(), row) for answer, row in places]
        images = torch.stack([images[row] for (images, _), row in found])
        labels = [labels[row] for (_, labels), row in found if labels is not None]
        return images, torch.stack(labels) if labels else None

    def _answer(self, group: Future, mine: list[int]) -> None:
        try:
            group.set_result(self.source.read(mine))
        except BaseException as error:
            with self.lock:
                for i in mine:
                    if self.held.get(i, (None, 0))[0] is group:
                        del self.held[i]
            group.set_exception(error)

    def _send(self, images: Tensor) -> Tensor:
        if self.device.type != "cuda":
            return images
        return images.pin_memory().to(self.device, non_blocking=True)
