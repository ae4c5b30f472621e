"""Noise that belongs to samples: row i depends on seeds[i] and the name of the draw, on nothing else."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "AUGMENT",
    "LABEL",
    "LEVEL",
    "START",
    "STEP",
    "Noise",
    "NoiseSource",
    "SlerpNoise",
    "slerp",
]


# The names of the draws. STEP is the first of many: draw k of a sampler is STEP + k.
START, LEVEL, LABEL, AUGMENT, STEP = 0, 1, 2, 3, 1 << 16


class NoiseSource(Protocol):
    """Where the noise of a batch comes from; a sampler asks for each of its streams once, in rising order."""

    def __len__(self) -> int: ...

    def normal(self, shape: Sequence[int], stream: int = START) -> Tensor:
        """N(0, 1), [B, *shape]."""
        ...


class Noise:
    """Standard normal and uniform numbers for a batch, one independent stream per (seed, draw).

    Philox is a counter-based generator with a 128-bit key: (seed, stream) is the key, so no two draws can meet, and
    ``domain`` sits in the top word of the counter, so that a training run never repeats the noise of a sampling run.
    The result is the same bits at every batch size, thread count, process count and device.
    Source: Salmon et al. 2011, Parallel random numbers: as easy as 1, 2, 3.
    """

    def __init__(self, seeds: Sequence[int], domain: int = 0):
        self.seeds, self.domain = [int(seed) for seed in seeds], int(domain)
        self._philox = np.random.Philox(key=0)
        self._generator = np.random.Generator(self._philox)

    def __len__(self) -> int:
        return len(self.seeds)

    def at(self, seed: int, stream: int) -> np.random.Generator:
        """The generator of one draw of one sample, until the next call: setting its state is faster than a new one."""
        self._philox.state = {
            "bit_generator": "Philox",
            "state": {
                "counter": np.array([0, 0, 0, self.domain], dtype=np.uint64),
                "key": np.array([seed % (1 << 64), stream], dtype=np.uint64),
            },
            "buffer": np.zeros(4, dtype=np.uint64),
            "buffer_pos": 4,
            "has_uint32": 0,
            "uinteger": 0,
        }
        return self._generator

    def normal(self, shape: Sequence[int], stream: int = START) -> Tensor:
        """N(0, 1), float32 [B, *shape]."""
        out = np.empty((len(self.seeds), *shape), dtype=np.float32)
        for row, seed in zip(out, self.seeds, strict=True):
            row[...] = self.at(seed, stream).standard_normal(tuple(shape), dtype=np.float32)
        return torch.from_numpy(out)

    def uniform(self, stream: int = LEVEL) -> Tensor:
        """Uniform on the open interval (0, 1), float64 [B]."""
        draws = [self.at(seed, stream).random() for seed in self.seeds]
        return torch.tensor(draws, dtype=torch.float64).clamp(2.0**-54, 1 - 2.0**-53)


class SlerpNoise:
    """Noise between seeds: ``frames`` from one to the other, or ``rows`` of them between four, the corners of a grid.

    In every draw it is the spherical blend, along the rows first and then down. An end may bring its own noise for
    START, as images do that were turned into noise; its seed serves for the other draws. The ends have their noise bit
    for bit. Source: Song et al. 2023, arXiv 2303.01469, appendix D.
    """

    def __init__(self, ends: Sequence[int], frames: int, rows: int = 1, starts: Sequence[Tensor | None] = ()):
        self.ends, self.frames, self.rows = Noise(ends), frames, rows
        self.starts = {i: start for i, start in enumerate(starts) if start is not None}

    def __len__(self) -> int:
        return self.frames * self.rows

    def normal(self, shape: Sequence[int], stream: int = START) -> Tensor:
        z = self.ends.normal(shape, stream).double()
        for i, own in self.starts.items() if stream == START else ():
            z[i] = own
        edges = [slerp(z[i], z[i + 1], self.frames) for i in range(0, len(z), 2)]
        if len(edges) == 1:
            return edges[0].float()
        columns = [slerp(above, below, self.rows) for above, below in zip(*edges, strict=True)]
        return torch.stack(columns, 1).flatten(0, 1).float()


def slerp(z0: Tensor, z1: Tensor, n: int) -> Tensor:
    """``n`` points [n, ...] from z0 to z1 along the great circle, a = 0 .. 1; the ends exactly.

    z = sin((1 - a) psi)/sin(psi) z_0 + sin(a psi)/sin(psi) z_1,    psi the angle between z_0 and z_1
    """
    angle = torch.arccos(((z0 * z1).sum() / (z0.norm() * z1.norm())).clamp(-1, 1))  # 1 + 1e-16 has no angle
    if angle.sin() < 1e-6:  # one and the same seed
        return z0.expand(n, *z0.shape)
    a = torch.linspace(0, 1, n, dtype=torch.float64).view(-1, *[1] * z0.ndim)
    return ((1 - a) * angle).sin() / angle.sin() * z0 + (a * angle).sin() / angle.sin() * z1
