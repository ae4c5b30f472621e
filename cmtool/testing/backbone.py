"""What a backbone has to be."""

import copy
import inspect
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from cmtool.testing.common import close, distinct, fix_seed, require, wake

__all__ = ["check_backbone"]

CONDITIONS = {"augment_dim": "augment_labels", "target_dim": "target"}


@fix_seed()
def check_backbone(
    factory: Callable[..., nn.Module], shape: tuple[int, ...] = (3, 16, 16), classes: int = 10, **options: Any
) -> None:
    """``factory(shape, classes, **options)`` is a network ``(x [B, *shape], c_noise [B], labels [B] or None) -> x``.

    The gradient reaches every parameter, -1 and None mean "no class", each class and noise level has its own output,
    rows are independent, the weights fit a second network made the same way, evaluation is repeatable, and
    ``torch.func.jvp`` in (x, c_noise) equals a central difference in float64. The jvp runs with torch's plain attention
    kernel: the fused ones have no forward derivative, and whoever differentiates turns them off. A network with the
    option ``augment_dim`` takes ``augment_labels`` [B, augment_dim], one with ``target_dim`` takes ``target``
    [B, target_dim]; each changes the output, and None is as good as zeros.
    """
    _check_arguments(factory, shape, classes, options)
    net = wake(factory(shape, classes, **options)).eval()
    x, c_noise = torch.randn(4, *shape), torch.tensor([-1.5, -0.2, 0.6, 1.3])
    labels = torch.tensor([0, -1, classes - 1, 0]).clamp(max=classes - 1)  # all "no class" where there are none
    before, out = x.clone(), net(x, c_noise, labels)
    require(out.shape == x.shape, f"the output has the shape of the input, {list(x.shape)}, and not {list(out.shape)}")
    require(out.isfinite().all(), "the output is finite")
    require(torch.equal(x, before), "the input is left as it was")
    require(torch.equal(out, net(x, c_noise, labels)), "in eval mode the same input gives the same output, bit for bit")
    (out * torch.randn_like(out)).sum().backward()
    for name, parameter in net.named_parameters():
        require(
            parameter.grad is not None and parameter.grad.any(), f"the gradient reaches every parameter, also {name}"
        )
    with torch.no_grad():
        _check_conditions(net, x, c_noise, classes)
        rows = zip(x.split(1), c_noise.split(1), labels.split(1), strict=True)
        require(close(torch.cat([net(*row) for row in rows]), out, 1e-5), "each row of a batch is what it is alone")
        twin = _twin(factory(shape, classes, **options).eval(), net)
        require(
            torch.equal(twin(x, c_noise, labels), out), "the options and the state_dict are all there is to a network"
        )
        _check_jvp(copy.deepcopy(net).double(), x[:2].double(), c_noise[:2].double(), labels[:2])


def _check_conditions(net: nn.Module, x: Tensor, c_noise: Tensor, classes: int) -> None:
    nothing = torch.full((len(x),), -1)
    require(close(net(x, c_noise, nothing), net(x, c_noise, None), 1e-5), "labels of -1 and None both mean 'no class'")
    outputs = net(x[:1].expand_as(x), c_noise, None)
    require(distinct(outputs, 1e-5), "each noise level c_noise has an output of its own")
    if classes:
        every = torch.arange(-1, classes)
        outputs = net(x[:1].expand(len(every), *x.shape[1:]), c_noise[:1].expand(len(every)), every)
        require(distinct(outputs, 1e-5), "each class, and 'no class', has an output of its own")


def _check_arguments(
    factory: Callable[..., nn.Module], shape: tuple[int, ...], classes: int, options: dict[str, Any]
) -> None:
    """Of the conditions that a factory has an option for; a network of its own, since most do without them."""
    x, c_noise = torch.randn(4, *shape), torch.tensor([-1.5, -0.2, 0.6, 1.3])
    for option, argument in CONDITIONS.items():
        if option in inspect.signature(factory).parameters:
            net = wake(factory(shape, classes, **{**options, option: 5})).eval()
            with torch.no_grad():
                out, zeros, other = (
                    net(x, c_noise, None, **{argument: value})
                    for value in (None, torch.zeros(4, 5), torch.linspace(-1, 1, 20).reshape(4, 5))
                )
            require(close(zeros, out, 1e-5), f"{argument} of None is as good as zeros")
            require(not close(other, out, 1e-5), f"{argument} changes the output")


def _twin(other: nn.Module, net: nn.Module) -> nn.Module:
    try:
        other.load_state_dict(net.state_dict(), strict=True)
    except RuntimeError as error:
        raise AssertionError(f"the weights fit a second network made with the same options: {error}") from error
    return other


def _check_jvp(net: nn.Module, x: Tensor, c_noise: Tensor, labels: Tensor, h: float = 1e-7) -> None:
    def call(x: Tensor, c_noise: Tensor) -> Tensor:
        return net(x, c_noise, labels)

    dx, dc = torch.randn_like(x), torch.randn_like(c_noise)
    with sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's own rules for forward derivatives use torch.jit
        try:
            slope = torch.func.jvp(call, (x, c_noise), (dx, dc))[1]
        except (NotImplementedError, RuntimeError) as error:
            raise AssertionError(f"torch.func.jvp works with respect to (x, c_noise): {error}") from error
        secant = (call(x + h * dx, c_noise + h * dc) - call(x - h * dx, c_noise - h * dc)) / (2 * h)
    require(close(slope, secant, 1e-6), "torch.func.jvp in (x, c_noise) equals the central difference in float64")
