"""The n-th image of a run, with its noise and noise level: a function of (run seed, n) alone."""

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cmtool.core.noise import AUGMENT, LABEL, LEVEL, START, Noise
from cmtool.core.pixels import to_model
from cmtool.errors import Hint, Setting, UsageError
from cmtool.objectives.objective import Batch, Requirements
from cmtool.training.augment import Augment
from cmtool.training.cache import CPU, Storage, open_cache

__all__ = ["AHEAD", "BatchConfig", "Batches", "EpochOrder"]

ORDER = 1 << 32  # the name of the draw that shuffles an epoch
AHEAD = 8  # batches that are made before they are asked for, at most
PROBE = ORDER + 2  # and of the direction in which sliced score matching looks


@dataclass(frozen=True)
class BatchConfig:
    """``size`` images a batch; ``label_dropout`` is the probability that one comes with label -1, "no class"."""

    size: int
    seed: int = 0
    flip: bool = False
    conditional: bool = True
    label_dropout: float = 0.0
    augment: Augment | None = None

    def check(self, dataset: Any, requirements: Requirements) -> None:
        """UsageError for mirrored or augmented points, and for labels to be dropped where there are none.

        Images that are compared with others of the run (``Requirements.others``) are not augmented: each would have to
        be compared with all others as it was augmented itself.
        """
        if (self.flip or self.augment) and len(dataset.shape) != 3:
            raise UsageError(
                f"only images can be {'mirrored' if self.flip else 'augmented'}, and the data are points",
                f"leave out --{'flip' if self.flip else 'augment'}",
            )
        if self.augment and requirements.others:
            raise UsageError(
                "this method compares each image with others of the run, which are augmented in other ways",
                Hint("leave out {}, or use {}", Setting("augment"), Setting("method", "ect")),
            )
        if self.label_dropout and not (self.conditional and dataset.classes):
            raise UsageError(
                "there are no labels to drop: the network is trained without classes",
                Hint("leave out {}, or take data with classes", Setting("label_dropout")),
            )


class Batches:
    """``at(n)`` is the batch of images n .. n + size - 1 of the run: each epoch a new permutation, with its own noise.

    The same images whatever the batch size, so a run can be stopped anywhere and resumed, and a batch can be divided
    among ranks. All micro-batches of a batch see the same ``others``, and ``points_per_trajectory`` images in a row are
    one image with one noise: both are among the requirements of the objective. ``draws`` is the set of random draws: a
    run that was rolled back has others, and its images in the same order. UsageError as in ``BatchConfig.check``.
    """

    def __init__(
        self,
        dataset: Any,
        config: BatchConfig,
        requirements: Requirements | None = None,
        storage: Storage | None = None,
    ):
        self.config, self.requirements = config, requirements or Requirements()
        config.check(dataset, self.requirements)
        self.length, self.shape = len(dataset), tuple(dataset.shape)
        self.device = storage.device if storage else CPU
        if storage and config.augment:
            storage = replace(storage, device=CPU)  # where images are augmented
        self.order = EpochOrder(config.seed, self.length)
        # windows overlap: those that are made at a time share most of their images
        self.cache = open_cache(dataset, storage, self._window() and self._window() + (AHEAD + 1) * config.size)
        self.draws = 0

    def at(self, n: int, rows: range | None = None) -> Batch:
        """The batch that begins with image n, or these rows of it, bit for bit; ValueError for rows it does not have.

        ``others`` are those of the whole batch.
        """
        numbers = range(n, n + self.config.size)
        if rows is not None:
            if not 0 <= rows.start < rows.stop <= len(numbers) or rows.step != 1:
                raise ValueError(f"a batch of {len(numbers)} images has no {rows}")
            numbers = numbers[rows.start : rows.stop]
        points = self.requirements.points_per_trajectory
        origins = numbers if points == 1 else [number // points for number in numbers]
        noise = self._noise(origins)
        x, labels, augment_labels = self._images(origins)
        v = noise.normal(self.shape, PROBE) if self.requirements.probes else None
        u, z = self._noise(numbers).uniform(LEVEL), noise.normal(self.shape, START)
        return self._pin(Batch(x, z, u, self._drop(labels, noise), augment_labels, v, *self._others(n)))

    def bytes_of(self, images: int) -> int:
        """The memory of so many rows of a batch, with the others that it sees."""
        pictures = (2 + self.requirements.probes) * images + self._window()
        return 4 * math.prod(self.shape) * pictures

    def _noise(self, numbers: Sequence[int]) -> Noise:
        # sampling has domain 0; other draws count down from the end of the domains
        return Noise(numbers, domain=2**64 - self.draws - self.config.seed if self.draws else self.config.seed + 1)

    def _images(self, numbers: Sequence[int]) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """The images with these numbers, in model units, mirrored or augmented; their labels, and augment labels."""
        images, labels = self.cache.read(self.order.indices(numbers))
        noise, augment_labels = self._noise(numbers), None
        if self.config.flip:
            mirrored = (noise.uniform(AUGMENT).view(-1, 1, 1, 1) < 0.5).to(images.device, non_blocking=True)
            images = torch.where(mirrored, images.flip(-1), images)
        x = to_model(images)
        if self.config.augment:
            x, augment_labels = self.config.augment(x, self.config.augment.draw(noise))
        return x, labels if self.config.conditional else None, augment_labels

    def _drop(self, labels: Tensor | None, noise: Noise) -> Tensor | None:
        """The labels, some of them dropped."""
        p = self.config.label_dropout
        return torch.where(noise.uniform(LABEL) < p, -1, labels) if p and labels is not None else labels

    def _window(self) -> int:
        """How many images of the run a batch sees beside its own: as many as it has at least, at most all."""
        others = min(self.requirements.others, self.length)
        return max(others, self.config.size) if others else 0

    def _others(self, n: int) -> tuple[Tensor | None, Tensor | None]:
        """The images of the run from the n-th on."""
        if not self._window():
            return None, None
        x, labels, _ = self._images(range(n, n + self._window()))
        return x, labels

    def _pin(self, batch: Batch) -> Batch:
        """What is copied to a GPU goes there while it computes."""
        if self.device.type != "cuda":
            return batch
        ours = {key: value for key, value in vars(batch).items() if value is not None and value.device == CPU}
        return replace(batch, **{key: value.pin_memory() for key, value in ours.items()})

    def since(self, n: int) -> Iterator[Batch]:
        """Batch after batch from image n on, without end."""
        while True:
            yield self.at(n)
            n += self.config.size


def _places(numbers: Sequence[int], start: int) -> np.ndarray:
    """Where in its epoch each of these numbers is."""
    if isinstance(numbers, range):
        return np.arange(numbers.start - start, numbers.stop - start, numbers.step)
    return np.array(numbers, np.int64) - start


class EpochOrder:
    """Which image of a data set is the n-th of a run: in each epoch a permutation of its own, drawn by the seed."""

    def __init__(self, seed: int, length: int):
        self.seed, self.length = seed, length
        self.type = np.int32 if length < 1 << 31 else np.int64
        self.lock, self.orders = Lock(), {}

    def indices(self, numbers: Sequence[int]) -> np.ndarray:
        """Indices of the images with these numbers, which do not fall."""
        first, last = numbers[0] // self.length, numbers[-1] // self.length
        if first == last:
            return self._order(first)[_places(numbers, first * self.length)]
        ends = [bisect_left(numbers, epoch * self.length) for epoch in range(first + 1, last + 1)]
        parts = pairwise([0, *ends, len(numbers)])
        return np.concatenate([self.indices(numbers[start:end]) for start, end in parts if start < end])

    def _order(self, epoch: int) -> np.ndarray:
        """The permutation of an epoch; those of two stay, since a batch may lie in both."""
        with self.lock:
            if epoch not in self.orders:
                order = np.arange(self.length, dtype=self.type)
                Noise([], domain=self.seed + 1).at(epoch, ORDER).shuffle(order)
                kept = list(self.orders.items())[-1:]
                self.orders = dict([*kept, (epoch, order)])
            return self.orders[epoch]
