"""Images that are no squares: every U-Net keeps its contract, or says why not."""

import pytest
import torch

from cmtool.errors import UsageError
from cmtool.options import registry
from cmtool.testing import check_backbone
from cmtool.testing.common import wake

SMALL = {
    "unet": {"model_channels": 8},
    "adm": {"model_channels": 32, "num_blocks": 1, "num_head_channels": 32, "channel_mult": (1, 2)},
    "songunet": {"model_channels": 16, "num_blocks": 1},
    "dhariwal": {"model_channels": 16, "num_blocks": 1},
    "edm2": {"model_channels": 16, "num_blocks": 1},
    "ncsnpp": {"model_channels": 16, "num_blocks": 1},
    "ddpmpp": {"model_channels": 16, "num_blocks": 1},
    "ddpm": {"model_channels": 32, "num_blocks": 1},
}


def build(name, shape, **options):
    return registry.build("backbones", {"name": name, **SMALL[name], **options}, shape, 0)


@pytest.mark.parametrize("name", SMALL)
def test_a_network_takes_sides_that_differ(name):
    factory = registry.factory("backbones", name)
    check_backbone(factory, (3, 8, 12), 4, **SMALL[name])


@pytest.mark.parametrize("name", SMALL)
def test_the_weights_of_two_orientations_are_interchangeable(name):
    """Where the filters are their own mirror images along the diagonal, the answer is turned with the picture."""
    wide = wake(build(name, (3, 8, 16))).eval()
    tall = build(name, (3, 16, 8)).eval()
    tall.load_state_dict(wide.state_dict())
    x, c_noise = torch.randn(2, 3, 8, 16), torch.tensor([-1.0, 0.5])
    for parameter in wide.parameters():
        if parameter.dim() == 4 and parameter.shape[2] > 1:
            parameter.data = (parameter.data + parameter.data.transpose(2, 3)) / 2
    tall.load_state_dict(wide.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(tall(x.mT, c_noise), wide(x, c_noise).mT, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("name", SMALL)
def test_sides_that_cannot_be_halved_so_often_are_refused(name):
    with pytest.raises(UsageError, match="needs sides that are multiples of 4, and 10 is not") as caught:
        build(name, (3, 16, 10), channel_mult=(1, 2, 2))
    assert "resize the images to 16x8" in str(caught.value.hint)
    assert build(name, (3, 16, 10), channel_mult=(1, 2))
