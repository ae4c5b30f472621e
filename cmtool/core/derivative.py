"""Derivatives of a network along a direction, in forward mode."""

import threading
import warnings
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

__all__ = ["along"]

# torch keeps one count of nested derivatives for all threads, and loses those of a second thread.
ONE_AT_A_TIME = threading.Lock()


def along(
    function: Callable[..., Tensor], point: tuple[Tensor, ...], direction: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor]:
    """``f(p), J_f(p) d``: the value and how fast it changes from ``point`` in ``direction``, without gradients.

    Attention runs with torch's plain kernel, since the fused ones have no forward derivative.
    """
    with ONE_AT_A_TIME, torch.no_grad(), sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's own rules for forward derivatives use torch.jit
        return torch.func.jvp(function, point, direction)  # pyright: ignore - a pair, without has_aux
