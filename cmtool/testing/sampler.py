"""What a sampler of reverse SDEs has to be."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cmtool.core.denoiser import like
from cmtool.core.noise import Noise
from cmtool.core.process import VE
from cmtool.core.samplers import Counted, last
from cmtool.testing.common import close, want

__all__ = ["check_sampler"]


def check_sampler(sampler: Any) -> None:
    """``sampler.down(process, times) -> Walk`` turns noise into data; ``.usual`` is a number of steps that will do.

    The data are N(0, 1/4) in 64 dimensions, the steps twice the usual of VE from 10 to 1/100: mean and deviation
    of what comes out are right, ``.evaluations`` is what it costs, and an image depends on its own seed alone.
    """
    process = VE(0.01, 10.0)
    walk = sampler.down(process, torch.linspace(1, 0, 2 * sampler.usual + 1, dtype=torch.float64))
    model = Counted(lambda x, sigma, labels=None: like(1 / (1 + 4 * sigma**2), x) * x)

    def ends(seeds: Sequence[int]) -> Tensor:
        noise = Noise(seeds)
        return last(walk(model, walk.begin(noise, (64,)), noise, None))

    x = ends(range(64))
    want(model.calls == walk.evaluations, f"the walk asks the model {walk.evaluations} times, not {model.calls}")
    want(abs(float(x.mean())) < 0.04, f"the mean is 0, not {float(x.mean()):.2g}")
    want(abs(float(x.std()) - 0.5) < 0.05, f"the standard deviation is 1/2, not {float(x.std()):.2g}")
    want(close(ends([7, 3]), x[[7, 3]], 1e-5), "an image depends on its own seed alone")
