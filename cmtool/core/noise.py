"""Noise that belongs to samples: row i depends on seeds[i] and the name of the draw, on nothing else."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = ["AUGMENT", "LABEL", "LEVEL", "START", "STEP", "Blend", "Noise"]

# The names of the draws. STEP is the first of many: draw k of a walk is STEP + k.
START, LEVEL, LABEL, AUGMENT, STEP = 0, 1, 2, 3, 1 << 16


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


class Blend:
    """Noise between two seeds: frame k of n is the spherical blend at k/(n - 1), in every draw.

        z = sin((1 - a) psi)/sin(psi) z_0 + sin(a psi)/sin(psi) z_1,    psi the angle between z_0 and z_1

    The ends are the noise of the two seeds, bit for bit. Source: Song et al. 2023, arXiv 2303.01469, appendix D.
    """

    def __init__(self, first: int, last: int, frames: int):
        self.ends, self.frames = Noise([first, last]), frames

    def __len__(self) -> int:
        return self.frames

    def normal(self, shape: Sequence[int], stream: int = START) -> Tensor:
        z0, z1 = self.ends.normal(shape, stream).double()
        angle = torch.arccos(((z0 * z1).sum() / (z0.norm() * z1.norm())).clamp(-1, 1))  # 1 + 1e-16 has no angle
        a = torch.linspace(0, 1, self.frames, dtype=torch.float64).view(-1, *[1] * len(shape))
        if angle.sin() < 1e-6:  # one and the same seed
            return z0.expand(self.frames, *shape).float()
        return (((1 - a) * angle).sin() / angle.sin() * z0 + (a * angle).sin() / angle.sin() * z1).float()
