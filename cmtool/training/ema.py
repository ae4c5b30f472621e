"""Exponential moving averages of the weights (EMA), which sample better than the last weights."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from cmtool.core.sharded_tensors import by_kind, total_norm
from cmtool.objectives.objective import ema_update
from cmtool.training.posthoc_ema import exponent

__all__ = ["EMA", "RULES", "Rule", "constant_decay", "counted_decay", "ema_decay", "half_life_decay", "power_decay"]

Rule = Callable[[int, float], float]  # (batch, images seen after it) -> beta


def ema_decay(batch: int, images: float, half_life: float, ramp: float = 0.05) -> float:
    """``beta = 0.5^(batch / min(H, ramp n))``: weights H images ago count half, and early on less.

    Source: Karras et al. 2022, arXiv 2206.00364, reference settings.
    """
    return 0.5 ** (batch / max(min(half_life, ramp * images), 1e-8))


def half_life_decay(images: float, ramp: float = 0.05) -> Rule:
    """``ema_decay`` with its half-life in images."""
    return lambda batch, seen: ema_decay(batch, seen, images, ramp)


def constant_decay(beta: float) -> Rule:
    """``beta`` in every step, as in Song et al. 2023, arXiv 2303.01469."""
    return lambda batch, seen: beta


def counted_decay(most: float) -> Rule:
    """``min(most, (1 + k) / (10 + k))`` in the k-th step, as in Song et al. 2021, arXiv 2011.13456, reference code."""
    return lambda batch, seen: min(most, (batch + seen) / (10 * batch + seen))


def power_decay(width: float) -> Rule:
    """``(1 - batch / n)^(gamma + 1)``, the average by a power function: ``gamma = exponent(width)``.

    At n images the weights after a step count as the integral of the profile over the step; no ramp is needed.
    Source: Karras et al. 2024, arXiv 2312.02696, section 3.1.
    """
    gamma = exponent(width)
    return lambda batch, seen: (1 - batch / seen) ** (gamma + 1)


# By the names that users write; ``options/ema_spec.py: FORMS`` has the same names, and the values that each takes.
RULES: dict[str, Callable[[float], Rule]] = {
    "half-life": half_life_decay,
    "constant": constant_decay,
    "counted": counted_decay,
    "power": power_decay,
}


class EMA:
    """A moving average of a model's weights; ``half_life`` in images, 0 for none, unless a ``rule`` is given."""

    def __init__(self, model: nn.Module, half_life: float = 0.0, *, rule: Rule | None = None):
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.rule = rule or half_life_decay(half_life)

    def update(self, model: nn.Module, batch: int, images: int) -> None:
        """After a step of ``batch`` images that ends at ``images``."""
        ema_update(self.model, model, self.rule(batch, images))

    @torch.no_grad()
    def gap(self, model: nn.Module) -> Tensor:
        """``|average - weights| / |weights|``, norms over all parameters; all ranks call it where these are sharded."""
        apart: list[Tensor] = []
        for ours, theirs in by_kind(self.model.parameters(), model.parameters()):
            apart += torch._foreach_sub(ours, theirs)  # pyright: ignore - one kernel for all, but no public name
        return total_norm(apart) / total_norm(list(model.parameters()))
