"""Distances (metrics) of two images: functions of (a, b) [B, ...] -> [B]."""

from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor, nn

from cmtool.errors import UsageError, unknown_name
from cmtool.options import registry
from cmtool.options.plugin_option import Option
from cmtool.options.types import at_least

__all__ = [
    "METRICS",
    "HuberOption",
    "Metric",
    "MetricOption",
    "huber_constant",
    "l1",
    "l2",
    "l2_32",
    "metric_called",
    "pseudo_huber",
    "pseudo_huber_of",
]

Metric = Callable[[Tensor, Tensor], Tensor]


def l2(a: Tensor, b: Tensor) -> Tensor:
    """The mean squared difference of the pixels."""
    return (a - b).square().flatten(1).mean(1)


def l1(a: Tensor, b: Tensor) -> Tensor:
    """The mean absolute difference of the pixels."""
    return (a - b).abs().flatten(1).mean(1)


def l2_32(a: Tensor, b: Tensor) -> Tensor:
    """The mean squared difference after both were brought to 32 x 32 pixels (bilinear), OpenAI's "l2-32"."""
    if a.ndim != 4:
        raise UsageError(f"the metric l2-32 compares images, not data of shape {list(a.shape[1:])}", "l2 compares any")
    return l2(*(nn.functional.interpolate(v, size=(32, 32), mode="bilinear") for v in (a, b)))


def pseudo_huber_of(c: float) -> Metric:
    """``sqrt(|a - b|^2 + c^2) - c`` of the whole image vector (Song and Dhariwal 2023, arXiv 2310.14189, eq. 7).

    ``c = 0`` is the norm itself, whose gradient is 0 where the images agree.
    """

    def distance(a: Tensor, b: Tensor) -> Tensor:
        beside = nn.functional.pad((a - b).flatten(1), (0, 1), value=c)  # the norm of (a - b, c), with its gradient
        return torch.linalg.vector_norm(beside, dim=1) - c

    return distance


def huber_constant(a: Tensor) -> float:
    """``c = 0.00054 sqrt(D)`` for images of D numbers, as the paper recommends."""
    return 0.00054 * float(a[0].numel()) ** 0.5


def pseudo_huber(a: Tensor, b: Tensor) -> Tensor:
    """The pseudo-Huber distance with the constant that suits the size of the images."""
    return pseudo_huber_of(huber_constant(a))(a, b)


METRICS: dict[str, Metric] = {"l1": l1, "l2": l2, "l2-32": l2_32, "pseudo-huber": pseudo_huber}

MetricOption = Annotated[
    str, Option(f"distance of two images: {', '.join(METRICS)}, or a network, such as lpips and lpips-max")
]
HuberOption = Annotated[float, Option("constant of the pseudo-Huber distance; 0: the norm itself", at_least(0))]


def metric_called(name: str) -> Metric:
    """The metric called ``name``, of this file or a network of the plugins; UsageError when there is none.

    MissingAsset when the weights of a network are not there.
    """
    if name in METRICS:
        return METRICS[name]
    networks = registry.names("distances")
    if name not in networks:
        raise unknown_name("metric", name, [*METRICS, *networks])
    return registry.build("distances", name)
