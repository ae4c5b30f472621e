"""The likelihood of images under a score model: bits per dimension, image by image."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from cmtool.core.denoiser import Denoiser, ode_field
from cmtool.core.deterministic import worker_pool
from cmtool.core.likelihood import (
    Integrator,
    axis_probes,
    bits_per_dim,
    dequantize,
    gaussian_probes,
    log_likelihood,
    rademacher_probes,
)
from cmtool.core.noise import Noise
from cmtool.core.pixels import check_finite
from cmtool.core.sigma_schedules import log_uniform
from cmtool.core.solvers import Field, Solver, integrate
from cmtool.core.solvers.runge_kutta import rk4
from cmtool.files.model_format import LoadedModel
from cmtool.pipelines.batching import chunk_size, num_threads
from cmtool.settings import LikelihoodOptions
from cmtool.training.cache import open_cache

__all__ = ["measure"]


def measure(
    loaded: LoadedModel[Denoiser],
    dataset: Any,
    n: int,
    options: LikelihoodOptions,
    update: Callable[[int], None],
    classes: Tensor | None,
) -> Iterator[Tensor]:
    """Bits per dimension of the first n images, [B] at a time; each depends on its own number alone.

    ``classes`` [K] are the model's labels of those of the data. Diverged where a number is not finite.
    """
    model, header, where, cache = loaded.model, loaded.header, loaded.device, open_cache(dataset)
    shape = header.shape
    size = chunk_size(shape, where)
    log_sigmas = log_uniform(options.steps + 1, header.sigma_min, header.sigma_max).log().flip(0)
    prior = torch.tensor(math.hypot(header.sigma_max, model.preconditioning.sigma_data))

    def one(first: int) -> Tensor:
        numbers = [min(first + i, n - 1) for i in range(size)]  # the last chunk is filled up, so that bits stay
        images, labels = cache.read(numbers)
        noise = Noise([options.seed + i for i in numbers])
        x = dequantize(images, noise).to(where)
        labels = classes[labels].to(where) if labels is not None and classes is not None else None
        field = in_log_sigma(ode_field(model, labels))
        log_density, _ = log_likelihood(
            field, x, integrate_along(log_sigmas, rk4()), probes(options, noise, shape), prior
        )
        return bits_per_dim(log_density, math.prod(shape))[: n - first].cpu()

    with worker_pool(num_threads(where)) as work:
        done = 0
        for bits in work(one, range(0, n, size)):
            check_finite(bits, f"of images {done} to {done + len(bits) - 1}")
            done += len(bits)
            update(done)
            yield bits


def probes(options: LikelihoodOptions, noise: Noise, shape: tuple[int, ...]) -> Tensor:
    """What the trace is estimated with; every axis for ``probes`` 0."""
    if options.hutchinson_probes == 0:
        return axis_probes(len(noise), shape)
    kinds = {"rademacher": rademacher_probes, "gaussian": gaussian_probes}
    return kinds[options.probe](noise, shape, options.hutchinson_probes)


def in_log_sigma(field: Field) -> Field:
    """``dx/d ln sigma = sigma dx/dsigma``, which is smooth down to the lowest noise level."""
    return lambda x, t: t.exp().to(x) * field(x, t.exp())


def integrate_along(grid: Tensor, solver: Solver) -> Integrator:
    """Integration with the same steps for every image, so that none depends on what is beside it."""

    def integrator(field: Field, y: Tensor) -> Tensor:
        *_, end = integrate(field, y, grid.to(y.device), solver)
        return end

    return integrator
