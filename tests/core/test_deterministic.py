import pytest
import torch

from cmtool.backbones.mlp import mlp
from cmtool.backbones.unet import unet
from cmtool.core.denoiser import Denoiser, Preconditioning
from cmtool.core.deterministic import in_fixed_batches


@pytest.fixture(params=["unet", "mlp"])
def model(request):
    """A network with attention, classes and no layer at 0; and a shape."""
    torch.manual_seed(0)
    shape = (3, 12, 12) if request.param == "unet" else (2,)
    net = (
        unet(shape, 10, model_channels=32, channel_mult=(1, 2), num_blocks=1)
        if request.param == "unet"
        else mlp(shape, 10)
    )
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.1) if not parameter.any() else None
    return Denoiser(net, Preconditioning()).eval(), shape


def inputs(shape, n=20):
    g = torch.Generator().manual_seed(1)
    sigma = torch.rand(n, generator=g, dtype=torch.float64) * 3 + 0.1
    return torch.randn(n, *shape, generator=g), sigma, torch.arange(n) % 10


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_row_has_the_same_bits_beside_any_others(model, threads):
    model, shape = model
    x, sigma, labels = inputs(shape)
    with in_fixed_batches(model, 8) as denoise:
        whole = denoise(x, sigma, labels)
    with in_fixed_batches(model, 8, threads) as denoise:
        for rows in (range(1), range(7), range(8), range(19, -1, -1), [3, 3, 17], range(2, 20, 3)):
            rows = list(rows)
            assert torch.equal(denoise(x[rows], sigma[rows], labels[rows]), whole[rows])


def test_it_is_the_same_denoiser_without_gradients(model):
    model, shape = model
    x, sigma, labels = inputs(shape)
    with in_fixed_batches(model, 8) as denoise:
        made, unlabelled = denoise(x, sigma, labels), denoise(x, sigma)
    torch.testing.assert_close(made, model(x, sigma, labels).detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(unlabelled, model(x, sigma).detach(), rtol=1e-5, atol=1e-5)
    assert not made.requires_grad


def test_the_number_of_threads_is_left_as_it_was():
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), in_fixed_batches(lambda x, sigma, labels=None: 1 / 0, 4, 2) as denoise:  # type: ignore[arg-type]
        denoise(torch.zeros(3, 2), torch.ones(3))
    assert torch.get_num_threads() == before
