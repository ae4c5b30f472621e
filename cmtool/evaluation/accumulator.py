"""One pass over images, in which everything is noticed that the metrics want."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from cmtool.evaluation.frechet import Moments
from cmtool.evaluation.inception_score import InceptionScore
from cmtool.evaluation.memorization import Memorization
from cmtool.evaluation.metric import FEATURES, NEAREST, PROBABILITIES, SPATIAL
from cmtool.evaluation.statistics import Normal, Statistics
from cmtool.features import Features

__all__ = ["Accumulator", "Images", "first_images"]

Images = Tensor | Sequence[Tensor]  # [B, ...] of one size, or [C, H, W] of several


class Accumulator:
    """Images as they come: the moments of their features, and what ``needs`` names besides.

    ``training`` [M, D] are the features of training images. Memory stays flat but for the features that FEATURES keeps.
    """

    def __init__(self, features: Features, needs: Iterable[str] = (), training: Tensor | None = None):
        self.features, self.moments, self.digest = features, Moments(), hashlib.sha256()
        self.rows: list[Tensor] | None = [] if FEATURES in needs else None
        self.spatial = Moments() if SPATIAL in needs else None
        self.score = InceptionScore() if PROBABILITIES in needs else None
        self.nearest = Memorization(training) if NEAREST in needs and training is not None else None

    @property
    def n(self) -> int:
        return self.moments.n

    def update(self, images: Images) -> None:
        """Add images [B, ...], or [C, H, W] each; Diverged when a feature is not finite."""
        self.add(images, self.look(images))

    def add(self, images: Images, look: dict[str, Tensor]) -> None:
        """Add images of which ``look`` was seen, by this process or another."""
        for part in [images] if isinstance(images, Tensor) else images:
            self.digest.update(part.cpu().contiguous().numpy().tobytes())
        self.moments.update(look["features"])
        if self.rows is not None:
            self.rows.append(look["features"].float().cpu())
        if self.spatial is not None:
            self.spatial.update(look["spatial"])
        if self.score is not None:
            self.score.update(look["probabilities"].cpu())
        if self.nearest is not None:
            self.nearest.update(images, look["features"])

    def look(self, images: Images) -> dict[str, Tensor]:
        """What the network shows of images [B, ...], by name, "features" [B, D] among it.

        Images of several sizes, each brought to that of the network, are seen with those of their own size.
        """
        if not isinstance(images, Tensor):
            return _in_order(images, self.look)
        if self.spatial is not None or self.score is not None:
            return self.features.look(images)
        return {"features": self.features(images)}

    def statistics(self, data: str) -> Statistics:
        """All that was seen, of what is called ``data``; two images at least."""
        return Statistics(
            self.moments.mean,
            self.moments.covariance,
            self.n,
            self.features.name,
            self.features.fingerprint,
            data,
            rows=None if self.rows is None else torch.cat(self.rows),
            spatial=None if self.spatial is None else Normal(self.spatial.mean, self.spatial.covariance),
            scores=None if self.score is None else self.score.scores,
            nearest=self.nearest,
            mode=self.features.mode,
            sha256=self.digest.hexdigest(),
        )


def _in_order(images: Sequence[Tensor], look: Callable[[Tensor], dict[str, Tensor]]) -> dict[str, Tensor]:
    """What is seen of images [C, H, W] of several shapes, in their order."""
    alike: dict[tuple[int, ...], list[int]] = {}
    for i, image in enumerate(images):
        alike.setdefault(tuple(image.shape), []).append(i)
    order = torch.tensor([i for places in alike.values() for i in places])
    seen = [look(torch.stack([images[i] for i in places])) for places in alike.values()]
    back = order.argsort()
    return {key: torch.cat([part[key] for part in seen])[back.to(seen[0][key].device)] for key in seen[0]}


def first_images(batches: Iterator[Images], n: int | None) -> Iterator[Images]:
    """The first n images of batches of them; all where n is None."""
    for images in batches:
        if n is not None and n <= len(images):
            yield images[:n]
            return
        yield images
        n = None if n is None else n - len(images)
