"""Noise as the published samplers draw it, to make their images again from their seeds.

Ours (``core/noise.py``) knows a draw by its name; theirs by how many came before it, so these sources must be asked in
the order of the published sampler. torch's generators differ between processor and GPU: take the ``device`` that was
used then.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from cmtool.core.noise import START

__all__ = ["Individual", "Shared"]


class Individual:
    """A generator for each sample: EDM's seeds, and OpenAI's ``--generator determ-indiv``.

    EDM draws in double precision after the start: ``steps=torch.float64``.
    """

    def __init__(self, seeds: Sequence[int], steps: torch.dtype = torch.float32, device: str | torch.device = "cpu"):
        self.generators = [torch.Generator(device).manual_seed(seed % (1 << 32)) for seed in seeds]
        self.steps, self.device = steps, device

    @classmethod
    def openai(cls, samples: Sequence[int], total: int, seed: int = 42) -> "Individual":
        """The given ones of ``total`` samples: number i has the seed ``i + total * seed``."""
        return cls([i + total * seed for i in samples])

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


class Shared:
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
