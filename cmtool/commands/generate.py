"""Images of a model: the one walk behind ``sample``, ``fid`` and the pictures drawn during training."""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from cmtool.commands.plan import Plan
from cmtool.core.denoiser import Denoiser
from cmtool.core.guidance import Guided, cost
from cmtool.core.noise import Blend, Noise
from cmtool.core.pixels import to_pixels
from cmtool.core.samplers import Counted, last
from cmtool.core.steady import steady
from cmtool.files.pictures import grid, scatter

__all__ = ["draw", "in_batches", "labels_of", "sheet"]

Pixels = Callable[[Tensor], Tensor]


def labels_of(seeds: Sequence[int], classes: int, klass: int | None = None) -> Tensor | None:
    """A label for every seed: the class asked for, else ``seed mod classes``, so that any run of seeds is balanced."""
    if not classes:
        return None
    return torch.tensor([klass if klass is not None else seed % classes for seed in seeds], dtype=torch.long)


def draw(
    model: Denoiser | Guided,
    plan: Plan,
    noise: Noise | Blend,
    labels: Tensor | None,
    cores: int | None = None,
    pixels: Pixels = to_pixels,
) -> Tensor:
    """The images of some noise, uint8 [B, C, H, W] on the CPU as ``pixels`` rounds them; points stay float32 [B, D].

    ``cores`` of the processor work side by side, as many as torch uses when it is None; no bit depends on it.
    """
    device, shape = next(model.parameters()).device, model.header.shape
    x = plan.walk.begin(noise, shape).to(device)
    labels = None if labels is None else labels.to(device)
    with steady(model, piece(shape, device), threads(device, cores)) as steadied:
        counted = Counted(steadied, cost(model))
        x = last(plan.walk(counted, x, noise, labels)).cpu()
    plan.made += counted.calls * len(noise)
    return pixels(x) if x.ndim == 4 else x.float()


def piece(shape: tuple[int, ...], device: torch.device) -> int:
    """Images that one call of the network sees, whatever the batch: few enough for a core's cache, or to fill a GPU."""
    if len(shape) == 1:
        return 1024
    pixels, most = (1 << 13, 64) if device.type == "cpu" else (1 << 18, 256)
    return max(1, min(pixels // math.prod(shape[1:]), most))


def threads(device: torch.device, cores: int | None = None) -> int:
    """Pieces at a time."""
    return cores or torch.get_num_threads() if device.type == "cpu" else 1


def in_batches(
    model: Denoiser | Guided,
    plan: Plan,
    seeds: Sequence[int],
    batch: int,
    klass: int | None = None,
    pixels: Pixels = to_pixels,
) -> Iterator[tuple[list[int], Tensor, Tensor | None]]:
    """Seeds, images and labels, ``batch`` or a few more at a time; each image depends on its own seed alone."""
    device = next(model.parameters()).device
    whole = piece(model.header.shape, device) * threads(device)
    batch = math.ceil(batch / whole) * whole  # less would leave cores idle and save no memory
    for i in range(0, len(seeds), batch):
        some = list(seeds[i : i + batch])
        labels = labels_of(some, model.header.conditional, klass)
        yield some, draw(model, plan, Noise(some), labels, pixels=pixels), labels


def sheet(images: Tensor, columns: int) -> np.ndarray:
    """Images side by side, or points as a scatter plot: uint8 [C, H, W]."""
    return grid(images.numpy(), columns) if images.ndim == 4 else scatter(images.numpy())
