"""The random numbers of EDM's and OpenAI's programs, from which their published images were made.

Theirs knows a draw by how many came before it, so it must be asked in the order of the published sampler:
``OrderedNoise`` does. torch's generators differ between processor and GPU: take the ``device`` that was used then.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from cmtool.core.noise import START, STEP

__all__ = ["OrderedNoise", "PerSampleNoise", "SharedNoise", "ode_draw", "step_draw"]


class PerSampleNoise:
    """A generator for each sample: EDM's seeds, and OpenAI's ``--generator determ-indiv``.

    EDM draws in double precision after the start: ``steps=torch.float64``.
    """

    def __init__(self, seeds: Sequence[int], steps: torch.dtype = torch.float32, device: str | torch.device = "cpu"):
        self.generators = [torch.Generator(device).manual_seed(seed % (1 << 32)) for seed in seeds]
        self.steps, self.device = steps, device

    @classmethod
    def openai(
        cls, samples: Sequence[int], total: int, seed: int = 42, device: str | torch.device = "cpu"
    ) -> "PerSampleNoise":
        """The given ones of ``total`` samples: number i has the seed ``i + total * seed``."""
        return cls([i + total * seed for i in samples], device=device)

    def __len__(self) -> int:
        return len(self.generators)

    def normal(self, shape: Sequence[int], stream: int = START) -> Tensor:
        """The next N(0, 1), [B, *shape]."""
        dtype = torch.float32 if stream == START else self.steps
        draws = [torch.randn(*shape, generator=g, dtype=dtype, device=self.device) for g in self.generators]
        return torch.stack(draws)

    def integers(self, high: int, shape: Sequence[int] = ()) -> Tensor:
        """The next whole numbers from 0 to high - 1, int64 [B, *shape]."""
        draws = [torch.randint(high, tuple(shape), generator=g, device=self.device) for g in self.generators]
        return torch.stack(draws)


class SharedNoise:
    """OpenAI's ``--generator determ``: at every draw one generator fills all ``total`` samples, and these rows stay."""

    def __init__(self, samples: Sequence[int], total: int, seed: int = 42, device: str | torch.device = "cpu"):
        self.rows, self.total, self.device = list(samples), total, device
        self.generator = torch.Generator(device).manual_seed(seed)

    def __len__(self) -> int:
        return len(self.rows)

    def normal(self, shape: Sequence[int], stream: int = START) -> Tensor:
        """The next N(0, 1), float32 [B, *shape]."""
        return torch.randn(self.total, *shape, generator=self.generator, device=self.device)[self.rows]

    def integers(self, high: int, shape: Sequence[int] = ()) -> Tensor:
        """The next whole numbers from 0 to high - 1, int64 [B, *shape]."""
        return torch.randint(high, (self.total, *shape), generator=self.generator, device=self.device)[self.rows]


class Generators(Protocol):
    """What both of them are: every call is the next draw."""

    def __len__(self) -> int: ...

    def normal(self, shape: Sequence[int], stream: int = START) -> Tensor: ...

    def integers(self, high: int, shape: Sequence[int] = ()) -> Tensor: ...


def ode_draw(stream: int) -> int:
    """The place of an ODE sampler's draw: the programs draw once a step, also where they add nothing."""
    return 1 + (stream - STEP) // 2


def step_draw(stream: int) -> int:
    """The place of a draw of multistep consistency sampling: one after every step."""
    return stream - STEP


class OrderedNoise:
    """A ``NoiseSource`` whose stream is draw number ``first + place(stream)`` of the generators, the start ``first``.

    Draws between those that are asked for are made and dropped. With ``classes`` each sample draws its class after
    the start, as EDM's program does. Numbers are given as ``dtype``. Raises ValueError for a draw that has passed.
    """

    def __init__(
        self,
        generators: Generators,
        place: Callable[[int], int],
        classes: int = 0,
        dtype: torch.dtype = torch.float32,
    ):
        self.generators, self.place, self.classes, self.dtype = generators, place, classes, dtype
        self.first = self.made = 0

    def __len__(self) -> int:
        return len(self.generators)

    def normal(self, shape: Sequence[int], stream: int = START) -> Tensor:
        """N(0, 1), [B, *shape]."""
        number = self.first + (0 if stream == START else self.place(stream))
        if number < self.made:
            raise ValueError(f"draw {number} has passed: {self.made} were made")
        while self.made < number:
            self._next(shape)
        return self._next(shape)

    def _next(self, shape: Sequence[int]) -> Tensor:
        z = self.generators.normal(shape, STEP if self.made else START)
        if self.classes and not self.made:
            self.generators.integers(self.classes)
        self.made += 1
        return z.to(self.dtype)
