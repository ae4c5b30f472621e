"""Several uniform numbers from the bits of one."""

import numpy as np
import torch

from cmtool.core.noise import Noise
from cmtool.objectives.noise_levels import split_uniform


def test_parts_are_uniform_and_independent():
    u = Noise(range(20_000)).uniform()
    parts = torch.stack(split_uniform(u, 3)).numpy()
    assert parts.min() > 0
    assert parts.max() < 1
    for part in parts:
        counts = np.histogram(part, 20, (0, 1))[0]
        assert ((counts - 1000) ** 2 / 1000).sum() < 43.8  # chi-square of 19 degrees, one in a thousand
    assert np.abs(np.corrcoef(parts) - np.eye(3)).max() < 4 / np.sqrt(20_000)


def test_one_part_is_the_number_itself():
    u = torch.tensor([0.125, 0.7], dtype=torch.float64)
    torch.testing.assert_close(split_uniform(u, 1)[0], u, atol=2.0**-52, rtol=0)
