"""The first images of a run, for the sheet and the terminal."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = ["Gallery"]


class Gallery:
    """The images of ``seeds``, kept as they are made; ``make`` makes those that were not."""

    def __init__(self, seeds: Sequence[int], make: Callable[[list[int]], Tensor]):
        self.seeds, self.make = list(seeds), make
        self.found: dict[int, Tensor] = {}

    def add(self, seeds: Sequence[int], images: Tensor) -> None:
        lacking = set(self.seeds) - self.found.keys()
        for seed, image in zip(seeds, images, strict=True):
            if seed in lacking:
                self.found[seed] = image.clone()  # not the whole batch

    def images(self) -> Tensor:
        """In the order of ``seeds``; what an earlier run wrote is made once more."""
        absent = [seed for seed in self.seeds if seed not in self.found]
        if absent:
            self.add(absent, self.make(absent))
        return torch.stack([self.found[seed] for seed in self.seeds])
