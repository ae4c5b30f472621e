"""Derivatives along a direction: forward mode, which needs one pass through the network, or a difference of two.

``torch.func.jvp`` fails where threads call it side by side, for torch has one forward AD level for the whole process.
The threads that compute chunks of a batch share it: the first to enter opens it and the last to leave closes it.
"""

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.backends import cuda

__all__ = ["Derivative", "central_difference", "forward_mode", "reverse_twice"]

Function = Callable[..., Tensor]
Point = tuple[Tensor, ...]
Derivative = Callable[[Function, Point, Point], tuple[Tensor, Tensor]]  # (f, p, d) -> (f(p), d/dh f(p + h d) at h = 0)


@contextmanager
def plain_attention() -> Iterator[None]:
    """Torch's attention without its fused kernels, which have no forward rule; for all threads, as its switches are."""
    fused = [cuda.flash_sdp_enabled(), cuda.mem_efficient_sdp_enabled(), cuda.cudnn_sdp_enabled()]
    switches = [cuda.enable_flash_sdp, cuda.enable_mem_efficient_sdp, cuda.enable_cudnn_sdp]
    for switch in switches:
        switch(False)
    yield
    for switch, on in zip(switches, fused, strict=True):
        switch(on)


class ForwardADLevel:
    """Torch's one forward AD level, open while at least one thread uses it."""

    def __init__(self):
        self.lock, self.users, self.open = threading.Lock(), 0, ExitStack()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self.lock:
            if not self.users:
                self._enter()
            self.users += 1
        try:
            yield
        finally:
            with self.lock:
                self.users -= 1
                if not self.users:
                    self.open.close()

    def _enter(self) -> None:
        self.open.enter_context(plain_attention())
        self.open.enter_context(forward_ad.dual_level())
        with warnings.catch_warnings():
            # The first dual tensor of a process compiles a table with a tool that torch itself calls deprecated.
            warnings.filterwarnings("ignore", r"`torch\.jit\.script` is deprecated")
            forward_ad.make_dual(torch.zeros(()), torch.zeros(()))


FORWARD_AD_LEVEL = ForwardADLevel()


@torch.no_grad()
def forward_mode(function: Function, point: Point, direction: Point) -> tuple[Tensor, Tensor]:
    """``f(p)`` and its slope along d, by one pass that carries both; a constant function has slope 0."""
    with FORWARD_AD_LEVEL():
        value, slope = forward_ad.unpack_dual(function(*map(forward_ad.make_dual, point, direction)))
    return value, torch.zeros_like(value) if slope is None else slope


def central_difference(step: float) -> Derivative:
    """``(f(p + h d) - f(p - h d)) / 2h``, for networks without forward mode; it errs by ``h^2`` and by rounding / h."""

    @torch.no_grad()
    def derivative(function: Function, point: Point, direction: Point) -> tuple[Tensor, Tensor]:
        ahead, behind = (function(*(p + h * d for p, d in zip(point, direction, strict=True))) for h in (step, -step))
        return function(*point), (ahead - behind) / (2 * step)

    return derivative


@torch.enable_grad()
def reverse_twice(function: Function, point: Point, direction: Point) -> tuple[Tensor, Tensor]:
    """The same as ``forward_mode``, differentiable in the weights: the derivative of ``u -> u^T J``, along d.

    Torch's forward rule of the softmax writes over what its own backward pass would need.
    """
    point = tuple(p.detach().requires_grad_() for p in point)
    value = function(*point)
    u = torch.zeros_like(value, requires_grad=True)
    pulled = torch.autograd.grad(value, point, u, create_graph=True, materialize_grads=True)
    (slope,) = torch.autograd.grad(pulled, u, direction, create_graph=True, materialize_grads=True)
    return value, slope
