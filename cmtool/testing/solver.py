"""What an ODE solver, a sampler, a sigma schedule and a process have to be."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from cmtool.core.denoiser import Preconditioning, broadcast_like
from cmtool.core.noise import Noise
from cmtool.core.process import VE, Process
from cmtool.core.sampling.loops import CountNFE, last
from cmtool.core.sampling.samplers import SamplerFactory
from cmtool.core.sigma_schedules import log_uniform
from cmtool.core.solvers.solver import Churn, Solver, integrate
from cmtool.testing.common import close, require

__all__ = ["check_process", "check_sampler", "check_schedule", "check_solver"]


def check_solver(solver: Solver) -> None:
    """``solver(field, x, t, s)`` carries x from t to s; its error falls with the power ``.order`` of the step.

    The equation is the probability flow of Gaussian data, ``dx/dt = t x / (1 + t^2)``, whose solution is
    ``x sqrt((1 + s^2) / (1 + t^2))``, solved from 80 to 1/5 in 96 and in 192 steps even in ln t.
    ``.nfe_per_step`` is how often a step calls the field; where it is None the solver chooses its own steps, and must
    come within 1/1000 of the solution in one call. ``.begin()`` gives the steps of one trajectory, and ``.churn`` is
    a ``Churn``; what remembers nothing has both from ``OneStepMethod``.
    """
    require(isinstance(solver.churn, Churn), "churn is the noise that is added on the way, NO_CHURN for none")
    calls = 0

    def field(x: Tensor, t: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return broadcast_like(t / (1 + t**2), x) * x

    def error(steps: int) -> float:
        grid, x = log_uniform(steps + 1, 0.2, 80.0), torch.full((1, 1), 80.0, dtype=torch.float64)
        *_, end = integrate(field, x, grid, solver)
        return abs(float(end) - 80 * math.sqrt((1 + 0.2**2) / (1 + 80.0**2)))

    if solver.nfe_per_step is None:
        require(error(1) < 1e-3, f"the solution is met to 1/1000, not {error(1):.1g}")
    else:
        coarse, fine = error(96), error(192)
        each = calls / 288
        require(each == solver.nfe_per_step, f"a step calls the field {solver.nfe_per_step} times, not {each:g}")
        slope = math.log2(coarse / fine)
        require(
            abs(slope - solver.order) < 0.25, f"the error falls with order {solver.order} as stated, not {slope:.2f}"
        )

    x, t, s = torch.tensor([[1.0, 2.0, 3.0], [2.0, 1.0, 0.7], [1.5, 0.9, 1.4]], dtype=torch.float64)
    x = x[:, None]
    alone = torch.cat([solver(field, x[i : i + 1], t[i], s[i]) for i in range(3)])
    require(
        close(solver(field, x, t, s), alone, 1e-12), "times [B] step each row between its own two times, up or down"
    )


def check_sampler(factory: SamplerFactory) -> None:
    """``factory.build_sampler(process, times)`` is a sampler; ``.default_steps`` is a number of steps that will do.

    The data are N(0, 1/4) in 64 dimensions, the steps twice the default of VE from 10 to 1/100: mean and deviation
    of what comes out are right, ``.nfe`` is what it costs, and an image depends on its own seed alone.
    """
    process = VE(0.01, 10.0)
    sampler = factory.build_sampler(process, torch.linspace(1, 0, 2 * factory.default_steps + 1, dtype=torch.float64))
    model = CountNFE(lambda x, sigma, labels=None: broadcast_like(1 / (1 + 4 * sigma**2), x) * x)

    def ends(seeds: Sequence[int]) -> Tensor:
        noise = Noise(seeds)
        return last(sampler(model, sampler.begin(noise, (64,)), noise, None))

    x = ends(range(64))
    require(model.calls == sampler.nfe, f"the sampler asks the model {sampler.nfe} times, not {model.calls}")
    require(abs(float(x.mean())) < 0.04, f"the mean is 0, not {float(x.mean()):.2g}")
    require(abs(float(x.std()) - 0.5) < 0.05, f"the standard deviation is 1/2, not {float(x.std()):.2g}")
    require(close(ends([7, 3]), x[[7, 3]], 1e-5), "an image depends on its own seed alone")


def check_schedule(factory: Callable[..., Tensor], **options: Any) -> None:
    """``factory(n, process, preconditioning, sigma_min=..., sigma_max=..., **options)`` gives noise levels, descending.

    They are float64 [n], between the two ends, both of which may be left out of a process that has steps of its own.
    """
    low, high = 0.02, 40.0
    for n in (2, 9):
        sigmas = factory(n, VE(low, high), Preconditioning(), sigma_min=low, sigma_max=high, **options)
        require(sigmas.shape == (n,) and sigmas.dtype == torch.float64, "n noise levels are float64 [n]")
        require((sigmas.diff() < 0).all(), "noise levels descend")
        ends = sigmas[[0, -1]].tolist()
        require(low * (1 - 1e-9) <= ends[1] and ends[0] <= high * (1 + 1e-9), "noise levels lie between the ends")


def check_process(factory: Callable[..., Process], **options: Any) -> None:
    """``factory(sigma_min, sigma_max, preconditioning, **options)`` gives a process: ``x_t = s (x_0 + sigma z)``.

    ``time`` is the inverse of ``sigma``, which grows; ``drift`` is ``d ln s / dt`` and ``diffusion`` squared is
    ``s^2 d sigma^2 / dt``; a ``transition`` keeps ``s`` and adds the noise that lacks.
    """
    process = factory(0.01, 50.0, Preconditioning(), **options)
    sigma = torch.tensor([0.021, 0.3, 1.7, 19.0], dtype=torch.float64)
    t = process.time(sigma)
    h = 1e-5 * t
    require(close(process.sigma(t), sigma, 1e-6), "sigma is the inverse of time")
    require((process.sigma(t + h) > process.sigma(t - h)).all(), "the noise level grows with time")
    growth = ((process.scale(t + h) / process.scale(t - h)).log() / (2 * h), process.drift(t))
    require(close(*growth, 1e-3), "drift is d ln s / dt")
    added = process.scale(t) ** 2 * (process.sigma(t + h) ** 2 - process.sigma(t - h) ** 2) / (2 * h)
    require(close(added, process.diffusion(t) ** 2, 1e-3), "diffusion squared is s^2 d sigma^2 / dt")
    a, b = process.transition(t[1:], t[:-1])
    require(close(a * process.scale(t[:-1]), process.scale(t[1:]), 1e-6), "a transition keeps the scale")
    variance = (a * process.deviation(t[:-1])) ** 2 + b**2
    require(close(variance, process.deviation(t[1:]) ** 2, 1e-6), "a transition adds the noise that lacks")
