"""Feature extractors: plugins that ship with us.

Features are a function ``(*, **options) -> Features``, registered in the entry-point group ``cmtool.features``. The
distance between two sets of images is the distance between the Gaussians of their features, so it means something only
beside another one of the same ``fingerprint``, and is called by its ``label``.
"""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Features"]


class Features(ABC):
    """Called on images uint8 ``[B, C, H, W]`` with 1 or 3 channels, gives float32 ``[B, dim]``.

    Row i depends on image i alone, whatever the batch. ``name`` is the plugin's, ``label`` what a Frechet distance of
    these features is called (``FID``, ``FD-small``), ``fingerprint`` changes whenever the numbers would.
    Features of points take float32 ``[B, D]``. Both raise UsageError when given the other.

    Features may show more of their network: ``further`` names what ``look`` gives besides ``features``,
    ``probabilities`` [B, classes] for the Inception Score and ``spatial`` [B, S] for sFID. ``mode`` is how they resize,
    where there are several ways.

    A factory with an option ``device`` is given the device of the run; the features stay on it.
    """

    name: str
    label: str
    fingerprint: str
    dim: int
    further: tuple[str, ...] = ()
    mode: str | None = None

    @abstractmethod
    def __call__(self, images: "Tensor", /) -> "Tensor": ...

    def look(self, images: "Tensor", /) -> dict[str, "Tensor"]:
        """All that the network shows of images, by name: ``features`` [B, dim] and what ``further`` names."""
        return {"features": self(images)}
