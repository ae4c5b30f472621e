"""The n-th image of a run, with its noise and noise level: a function of (run seed, n) alone."""

import atexit
import threading
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from queue import Queue
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cmtool.core.noise import AUGMENT, LABEL, LEVEL, START, Noise
from cmtool.core.pixels import to_model
from cmtool.datasets import as_dataset
from cmtool.errors import Hint, Setting, UsageError
from cmtool.objectives.objective import Batch, Requirements
from cmtool.training.augment import Augment

__all__ = ["BatchConfig", "Batches", "Cache", "ahead"]

CACHE_BYTES = 512 << 20
ORDER = 1 << 32  # the name of the draw that shuffles an epoch
PROBE = ORDER + 2  # and of the direction in which sliced score matching looks


class Cache:
    """A data set read by lists of indices; one that fits in 512 MB stays in memory, each image read once.

    Of a larger one the last images that had to be read stay: the windows of a run that an objective sees overlap.
    """

    def __init__(self, dataset: Any):
        self.dataset, self.labelled = as_dataset(dataset), bool(dataset.classes)
        first, label = self._fetch([0])
        kept = len(dataset) if first.nbytes * len(dataset) <= CACHE_BYTES else 0
        self.images = first.new_empty(kept, *first.shape[1:])
        self.labels = torch.zeros(kept, dtype=torch.long)
        self.known = np.zeros(kept, dtype=bool)
        self.recent, self.recent_labels, self.places = first, label, {0: 0}
        if kept:
            self._keep([0], first, label)

    def read(self, indices: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        """Images [B, ...] and labels [B], or None where the data have none."""
        if not len(self.images):
            return self._recall(list(indices))
        rows = np.asarray(indices)
        missing = np.unique(rows[~self.known[rows]]).tolist()
        if missing:
            self._keep(missing, *self._fetch(missing))
        return self.images[rows], self.labels[rows] if self.labelled else None

    def _recall(self, indices: list[int]) -> tuple[Tensor, Tensor | None]:
        wanted = dict.fromkeys(indices)
        missing = [i for i in wanted if i not in self.places]
        if missing:
            held = [i for i in wanted if i in self.places]
            rows = [self.places[i] for i in held]
            images, labels = self._fetch(missing)
            self.recent = torch.cat([self.recent[rows], images])
            ours = self.recent_labels
            self.recent_labels = None if labels is None or ours is None else torch.cat([ours[rows], labels])
            self.places = {i: row for row, i in enumerate([*held, *missing])}
        rows = [self.places[i] for i in indices]
        return self.recent[rows], None if self.recent_labels is None else self.recent_labels[rows]

    def _keep(self, rows: list[int], images: Tensor, labels: Tensor | None) -> None:
        self.images[rows], self.known[rows] = images, True
        if labels is not None:
            self.labels[rows] = labels

    def _fetch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        images, labels = self.dataset.batch(indices)
        return torch.as_tensor(images), torch.as_tensor(labels) if self.labelled else None


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

    The same images whatever the batch size, so a run can be stopped anywhere and resumed. All micro-batches of a batch
    see the same ``others``, and ``points_per_trajectory`` images in a row are one image with one noise: both are among
    the requirements of the objective. ``draws`` is the set of random draws: a run that was rolled back has others, and
    its images in the same order. UsageError as in ``BatchConfig.check``.
    """

    def __init__(self, dataset: Any, config: BatchConfig, requirements: Requirements | None = None):
        self.config, self.requirements = config, requirements or Requirements()
        config.check(dataset, self.requirements)
        self.cache, self.length = Cache(dataset), len(dataset)
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)
        self.draws = 0

    def at(self, n: int) -> Batch:
        numbers = range(n, n + self.config.size)
        origins = [number // self.requirements.points_per_trajectory for number in numbers]
        noise = self._noise(origins)
        x, labels, augment_labels = self._images(origins)
        v = noise.normal(x.shape[1:], PROBE) if self.requirements.probes else None
        u, z = self._noise(numbers).uniform(LEVEL), noise.normal(x.shape[1:], START)
        return Batch(x, z, u, self._drop(labels, noise), augment_labels, v, *self._others(n))

    def _noise(self, numbers: Sequence[int]) -> Noise:
        # sampling has domain 0; other draws count down from the end of the domains
        return Noise(numbers, domain=2**64 - self.draws - self.config.seed if self.draws else self.config.seed + 1)

    def _images(self, numbers: Sequence[int]) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """The images with these numbers, in model units, mirrored or augmented; their labels, and augment labels."""
        images, labels = self.cache.read([self._index(number) for number in numbers])
        x, augment_labels, noise = to_model(images), None, self._noise(numbers)
        if self.config.flip:
            mirrored = noise.uniform(AUGMENT).view(-1, 1, 1, 1) < 0.5
            x = torch.where(mirrored, x.flip(-1), x)
        if self.config.augment:
            x, augment_labels = self.config.augment(x, self.config.augment.draw(noise))
        return x, labels if self.config.conditional else None, augment_labels

    def _drop(self, labels: Tensor | None, noise: Noise) -> Tensor | None:
        """The labels, some of them dropped."""
        p = self.config.label_dropout
        return torch.where(noise.uniform(LABEL) < p, -1, labels) if p and labels is not None else labels

    def _others(self, n: int) -> tuple[Tensor | None, Tensor | None]:
        """The images of the run from the n-th on, at least a batch of them and at most the whole data set."""
        if not self.requirements.others:
            return None, None
        x, labels, _ = self._images(range(n, n + max(min(self.requirements.others, self.length), self.config.size)))
        return x, labels

    def _index(self, n: int) -> int:
        epoch, place = divmod(n, self.length)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = Noise([], domain=self.config.seed + 1).at(epoch, ORDER).permutation(self.length)
        return int(self._order[place])

    def since(self, n: int) -> Iterator[Batch]:
        """Batch after batch from image n on, without end."""
        while True:
            yield self.at(n)
            n += self.config.size


def ahead(items: Iterator[Batch], depth: int = 2) -> Generator[Batch, None, None]:
    """The same items, made by a thread while the last ones are in use."""
    queue: Queue = Queue(depth)
    stop = threading.Event()

    def work() -> None:
        reason = None
        try:
            for item in items:
                queue.put((item, None))
                if stop.is_set():
                    return
        except BaseException as error:
            reason = error
        queue.put((None, reason))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            item, error = queue.get()
            if error is not None:
                raise error
            if item is None:
                return
            yield item
    finally:
        stop.set()
        while not queue.empty():
            queue.get_nowait()
        atexit.register(thread.join)  # a thread that still computes when the interpreter ends would abort the process
