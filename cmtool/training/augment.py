"""Augmentation that does not leak into the samples: the network takes augment labels, how each image was augmented.

Without any, as when sampling, a model makes images as they were.
Source: Karras et al. 2022, arXiv 2206.00364, appendix F.2; the idea is that of Jun et al. 2020.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from cmtool.core.noise import Noise
from cmtool.training.affine import warp_images
from cmtool.training.augmentations import COLOUR, PIXELS, PLANE, Draws, Spread

__all__ = ["Augment"]

CHANGES = PIXELS | PLANE | COLOUR
STREAM = (1 << 32) + 1  # the name of the draw


@dataclass(frozen=True)
class Augment:
    """Each change of ``strengths`` is made with probability ``p`` times its strength, as far as ``spread`` says.

    ``augment(images [B, C, H, W], u [B, draws])`` gives images and augment labels [B, dim], 0 where nothing was
    changed; it is a pure function of the uniform numbers ``u``. Changes are made in the order of ``CHANGES``; one of
    strength 0 takes no number and gives no label.
    """

    p: float = 0.12
    strengths: dict[str, float] = field(default_factory=dict)
    spread: Spread = field(default_factory=Spread)

    @classmethod
    def edm(cls, p: float = 0.12) -> "Augment":
        """What EDM trains small images with: half are mirrored, and with probability p each they are turned upside
        down, scaled, rotated, stretched and moved."""
        plane = dict.fromkeys(["yflip", *PLANE], 1.0)
        return cls(p, {"xflip": 1e8, **plane})

    @property
    def draws(self) -> int:
        return sum(CHANGES[name].draws for name in self._chosen(CHANGES))

    @property
    def dim(self) -> int:
        """How many augment labels an image gets, EDM's ``augment_dim``."""
        return sum(CHANGES[name].labels for name in self._chosen(CHANGES))

    def draw(self, noise: Noise) -> Tensor:
        """The uniform numbers of the images whose noise this is, [B, draws] float64."""
        rows = np.stack([noise.at(seed, STREAM).random(self.draws) for seed in noise.seeds])
        return torch.from_numpy(rows).clamp(2.0**-54, 1 - 2.0**-53)

    def __call__(self, images: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        draws, labels = Draws(u.double(), self.p, self.spread), []
        for name in self._chosen(PIXELS):
            images, new = PIXELS[name].make(draws, self.strengths[name], images)
            labels += new
        inverse = torch.eye(3, dtype=torch.float64).expand(len(images), 3, 3)
        for name in self._chosen(PLANE):
            more, new = PLANE[name].make(draws, self.strengths[name], *images.shape[2:])
            inverse, labels = inverse @ more, labels + new
        colour = torch.eye(4, dtype=torch.float64).expand(len(images), 4, 4)
        for name in self._chosen(COLOUR):
            more, new = COLOUR[name].make(draws, self.strengths[name])
            colour, labels = more @ colour, labels + new
        return apply_colour(apply_affine(images, inverse), colour.to(images)), columns(labels, len(images))

    def _chosen(self, changes: dict) -> list[str]:
        return [name for name in changes if self.strengths.get(name, 0) > 0]


def columns(labels: list[Tensor], n: int) -> Tensor:
    """[n, dim]; none where no change was chosen."""
    return torch.stack([torch.zeros(n), *labels], 1).float()[:, 1:]


def apply_affine(images: Tensor, inverse: Tensor) -> Tensor:
    """Most images are left as they are, and need not be moved."""
    rows = (inverse != torch.eye(3, dtype=torch.float64)).flatten(1).any(1).nonzero()[:, 0]
    return images.index_copy(0, rows, warp_images(images[rows], inverse[rows])) if len(rows) else images


def apply_colour(images: Tensor, colour: Tensor) -> Tensor:
    """Colours through an affine map [B, 4, 4]; a grey image becomes the mean of what its three colours become."""
    linear, offset = colour[:, :3, :3], colour[:, :3, 3:]
    if images.shape[1] != 3:
        return images * linear.sum((1, 2))[:, None, None, None] / 3 + offset.mean(1)[:, :, None, None]
    return (linear @ images.flatten(2) + offset).view_as(images)
