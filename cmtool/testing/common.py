"""What the contracts are written with: a sentence for whatever is not as it should be, and models to try things on."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from cmtool.backbones.mlp import mlp
from cmtool.core.denoiser import Denoiser, Preconditioning

__all__ = ["close", "distinct", "fix_seed", "require", "small_model", "wake"]


def require(condition: Any, sentence: str) -> None:
    """AssertionError with the sentence, also under ``python -O``."""
    if not condition:
        raise AssertionError(sentence)


def close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    """Whether two tensors of one shape differ by at most ``tolerance`` times the largest number in them."""
    return a.shape == b.shape and bool((a - b).abs().max() <= tolerance * b.abs().max().clamp(min=1e-30))


def distinct(rows: Tensor, tolerance: float) -> bool:
    """Whether any two rows are farther apart than ``tolerance`` times the length of the longest."""
    rows = rows.flatten(1).double()
    return bool(torch.pdist(rows).min() > tolerance * rows.norm(dim=1).max())


@contextmanager
def fix_seed(seed: int = 0) -> Iterator[None]:
    """Repeatable random numbers inside, and the caller's own generator as it was outside."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def wake(net: nn.Module) -> nn.Module:
    """Replace parameters that start as zeros, so that nothing is hidden behind a gate that is still closed."""
    for parameter in net.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return net


def small_model(
    shape: tuple[int, ...], classes: int = 0, sigma_min: float = 0.0, target_dim: int = 0, augment_dim: int = 0
) -> Denoiser:
    """A denoiser that is quick to call and is not the identity: a student or a teacher for tests."""
    net = mlp(shape, classes, width=16, depth=1, augment_dim=augment_dim, target_dim=target_dim)
    return Denoiser(wake(net), Preconditioning(sigma_min=sigma_min))
