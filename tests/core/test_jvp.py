"""Slopes along a direction against central differences, in threads, and through attention."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from cmtool.backbones.mlp import mlp
from cmtool.backbones.unet import unet
from cmtool.core.denoiser import Denoiser, Preconditioning
from cmtool.core.jvp import central_difference, forward_mode, reverse_twice


def lively(net: nn.Module) -> nn.Module:
    """The network with weights away from the zeros that it starts from."""
    generator = torch.Generator().manual_seed(0)
    for parameter in net.parameters():
        parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    return net


def drawn(seed: int, shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> tuple:
    """A point and a direction: x, sigma and what they change by."""
    generator = torch.Generator().manual_seed(seed)
    x, dx = torch.randn(2, 4, *shape, generator=generator, dtype=dtype)
    sigma, ds = torch.rand(2, 4, generator=generator, dtype=dtype) + 0.1
    return (x, sigma), (dx, ds)


@pytest.fixture(params=["mlp", "unet", "trigflow unet"])
def model(request) -> tuple[Denoiser, tuple[int, ...]]:
    shape = (3,) if request.param == "mlp" else (1, 8, 8)
    net = (
        mlp(shape, 0, hidden_dim=16, depth=1)
        if request.param == "mlp"
        else unet(shape, 0, model_channels=16, num_blocks=1)
    )
    how = Preconditioning.trigflow() if "trigflow" in request.param else Preconditioning()
    return Denoiser(lively(net), how).double(), shape


def test_both_modes_are_the_derivative(model):
    denoiser, shape = model
    place = drawn(0, shape)
    value, slope = forward_mode(denoiser, *place)
    assert torch.equal(value, denoiser(*place[0]))
    error = (slope - central_difference(1e-5)(denoiser, *place)[1]).abs().max()
    assert error < 1e-6 * slope.abs().max()
    twice = reverse_twice(denoiser, *place)
    assert torch.allclose(twice[0], value, rtol=1e-12)
    assert torch.allclose(twice[1], slope, rtol=1e-9, atol=1e-12)


def test_reverse_mode_twice_has_the_gradient_of_the_slope(model):
    denoiser, shape = model
    place = drawn(1, shape)
    parameter = denoiser.net.enter.weight
    (gradient,) = torch.autograd.grad(reverse_twice(denoiser, *place)[1].square().sum(), parameter)
    towards = torch.randn_like(parameter)

    def moved(h: float) -> Tensor:
        parameter.data += h * towards
        loss = forward_mode(denoiser, *place)[1].square().sum()
        parameter.data -= h * towards
        return loss

    assert (gradient * towards).sum().item() == pytest.approx(((moved(1e-5) - moved(-1e-5)) / 2e-5).item(), rel=1e-6)


def test_neither_mode_keeps_a_graph(model):
    denoiser, shape = model
    for derivative in (forward_mode, central_difference(1e-3)):
        assert not any(found.requires_grad for found in derivative(denoiser, *drawn(0, shape)))


@pytest.mark.parametrize("derivative", [forward_mode, reverse_twice])
def test_a_function_of_nothing_stands_still(derivative):
    point = (torch.randn(2, 3),)
    value, slope = derivative(lambda x: 0 * x.detach() + torch.ones(3, requires_grad=True), point, point)
    assert value.tolist() == [[1, 1, 1]] * 2
    assert not slope.any()


def test_the_difference_errs_by_the_square_of_its_step():
    place = ((torch.tensor([0.3, 1.1], dtype=torch.float64),), (torch.ones(2, dtype=torch.float64),))
    errors = [(central_difference(h)(torch.sin, *place)[1] - place[0][0].cos()) / h**2 for h in (0.02, 0.01)]
    assert torch.allclose(errors[0], -place[0][0].cos() / 6, rtol=1e-3)
    assert torch.allclose(errors[0], errors[1], rtol=1e-3)


class Fused(nn.Module):
    """Attention as torch offers it, whose fast kernels cannot be differentiated forwards."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.scaled_dot_product_attention(x, 2 * x, x)


def test_attention_as_torch_offers_it_has_its_slope():
    x, d = torch.randn(2, 3, 2, 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    place = ((x.requires_grad_(),), (d,))
    _, slope = forward_mode(Fused(), *place)
    torch.testing.assert_close(slope, central_difference(1e-5)(Fused(), *place)[1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("net", ["unet", "fused"])
def test_threads_side_by_side_find_what_one_alone_finds(net):
    """``torch.func.jvp`` raises here: there is one forward level for all threads."""
    shape = (1, 16, 64) if net == "fused" else (1, 8, 8)
    model = Fused() if net == "fused" else lively(unet(shape, 0, model_channels=16, num_blocks=1))

    def slope(seed: int) -> Tensor:
        (x, c), (dx, dc) = drawn(seed, shape, torch.float32)
        place = ((x,), (dx,)) if net == "fused" else ((x, c), (dx, dc))
        return forward_mode(model, *place)[1]

    alone = list(map(slope, range(32)))
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(slope, range(32)))
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))
    assert torch.backends.cuda.flash_sdp_enabled()
    with torch.autograd.forward_ad.dual_level():  # ours is closed
        pass


def test_the_first_tangent_of_a_process_warns_nobody():
    code = "import torch; from cmtool.core.jvp import forward_mode as f; f(torch.sin, *[(torch.ones(1),)] * 2)"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
