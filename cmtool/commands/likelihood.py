"""``likelihood``: how many bits a score model needs for each value of an image."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cmtool.class_names import known_names, match_classes
from cmtool.commands.console import Console
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
from cmtool.errors import UsageError
from cmtool.files.header import Header
from cmtool.files.model_format import LoadedModel
from cmtool.pipelines.batching import chunk_size, num_threads
from cmtool.pipelines.inputs import class_name, describe_model, open_dataset, open_model
from cmtool.settings import LikelihoodOptions
from cmtool.training.batches import Cache
from cmtool.training.devices import choose_device, use_threads

__all__ = ["run"]

MOST = 12  # classes on a line


def run(options: LikelihoodOptions, console: Console) -> None:
    """Walk images of the data to noise, adding up how the volume changes, and print the mean in bits per dimension."""
    use_threads(options.threads)
    model = open_model(
        options.model, choose_device(options.device), console, options.format, options.backbone, kind="score"
    )
    header, path = model.header, model.path
    if header.kind != "score":
        raise UsageError(
            f"{path} is a consistency model, which has no density: its walk is one jump",
            "take the score model it was distilled from: cmtool likelihood -m TEACHER",
        )
    spec = options.data or {"name": header.data["name"]}
    dataset = open_dataset(spec)
    if tuple(dataset.shape) != header.shape or len(header.shape) != 3:
        sides = ["x".join(map(str, shape)) for shape in (header.shape, tuple(dataset.shape))]
        raise UsageError(f"{path} knows images of {sides[0]}, and the data are {sides[1]}")
    n, began = min(options.n, len(dataset)), time.monotonic()
    classes = match_names(dataset.classes, header, path, console)
    with console.progress(n, "images", "likelihood") as progress:
        found = torch.cat(list(measure(model, dataset, n, options, progress.update, classes)))
    mean, error = float(found.mean()), float(found.std() / math.sqrt(n)) if n > 1 else 0.0
    document = {
        "metric": "bits/dim",
        "value": mean,
        "standard_error": error,
        "images": n,
        "data": spec["name"],
        "model": describe_model(model),
        "steps": options.steps,
        "probes": options.hutchinson_probes or math.prod(header.shape),
        "nfe": 4 * options.steps,
        "seconds": round(time.monotonic() - began, 3),
    }
    console.result(document, f"bits/dim  {mean:.4f} +- {error:.4f}")


def match_names(names: Sequence[str], header: Header, path: Path, console: Console) -> Tensor | None:
    """The model's label for each class of the data, int64 [K]; None where the images are measured without a class.

    UsageError where a class of the data is none of the model's.
    """
    if not header.num_classes:
        return None
    if not names:
        console.warn(
            f"{path} knows classes, and the data have none: the likelihood is that of images without their class"
        )
        return None
    ours = known_names(header.classes, header.num_classes)
    found = match_classes(names, ours, "the data", str(path))
    if list(names) != list(ours):
        some = [f"{name} is {class_name(header, k)}" for name, k in zip(names, found, strict=True) if k is not None]
        console.say(
            f"classes of the data in those of the model: {', '.join(some[:MOST])}{', ...' * (len(some) > MOST)}"
        )
    return torch.tensor(found)


def measure(
    loaded: LoadedModel[Denoiser],
    dataset: Any,
    n: int,
    options: LikelihoodOptions,
    told: Callable[[int], None],
    classes: Tensor | None,
) -> Iterator[Tensor]:
    """Bits per dimension of the first n images, [B] at a time; each depends on its own number alone.

    ``classes`` [K] are the model's labels of those of the data. Diverged where a number is not finite.
    """
    model, header, where, cache = loaded.model, loaded.header, loaded.device, Cache(dataset)
    shape = header.shape
    size = chunk_size(shape, where)
    levels = log_uniform(options.steps + 1, header.sigma_min, header.sigma_max).log().flip(0)
    prior = torch.tensor(math.hypot(header.sigma_max, model.preconditioning.sigma_data))

    def one(first: int) -> Tensor:
        numbers = [min(first + i, n - 1) for i in range(size)]  # the last piece is filled up, so that bits stay
        images, labels = cache.read(numbers)
        noise = Noise([options.seed + i for i in numbers])
        x = dequantize(images, noise).to(where)
        labels = classes[labels].to(where) if labels is not None and classes is not None else None
        field = in_log_sigma(ode_field(model, labels))
        log_density, _ = log_likelihood(field, x, integrate_along(levels, rk4()), probes(options, noise, shape), prior)
        return bits_per_dim(log_density, math.prod(shape))[: n - first].cpu()

    with worker_pool(num_threads(where)) as work:
        done = 0
        for bits in work(one, range(0, n, size)):
            check_finite(bits, f"of images {done} to {done + len(bits) - 1}")
            done += len(bits)
            told(done)
            yield bits


def probes(options: LikelihoodOptions, noise: Noise, shape: tuple[int, ...]) -> Tensor:
    """What the trace is estimated with; every axis for ``probes`` 0."""
    if options.hutchinson_probes == 0:
        return axis_probes(len(noise), shape)
    kinds = {"rademacher": rademacher_probes, "gaussian": gaussian_probes}
    return kinds[options.probe](noise, shape, options.hutchinson_probes)


def in_log_sigma(field: Field) -> Field:
    """``dx/d ln sigma = sigma dx/dsigma``, which is smooth down to the lowest level."""
    return lambda x, t: t.exp().to(x) * field(x, t.exp())


def integrate_along(grid: Tensor, solver: Solver) -> Integrator:
    """A walk with the same steps for every image, so that none depends on what is beside it."""

    def walk(field: Field, y: Tensor) -> Tensor:
        *_, end = integrate(field, y, grid.to(y.device), solver)
        return end

    return walk
