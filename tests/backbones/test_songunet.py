"""DDPM++, NCSN++ and EDM's ADM: the contract, resampling in closed form, the paths beside; the goldens hold numbers."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cmtool.backbones.dhariwal import dhariwal
from cmtool.backbones.edm_blocks import Conv
from cmtool.backbones.songunet import songunet
from cmtool.errors import UsageError
from cmtool.options import registry
from cmtool.testing import check_backbone, wake

TINY = {"model_channels": 16, "channel_mult": (1, 2), "num_blocks": 1, "attn_resolutions": (4,)}
NCSN = {
    "embedding_type": "fourier",
    "channel_mult_noise": 2,
    "encoder_type": "residual",
    "resample_filter": (1.0, 3.0, 3.0, 1.0),
}
BOTH = [(songunet, TINY), (songunet, {**TINY, **NCSN}), (dhariwal, {**TINY, "num_head_channels": 16})]


@pytest.mark.parametrize(
    ("factory", "options"),
    [
        *BOTH,
        (songunet, {**TINY, "encoder_type": "skip", "decoder_type": "skip"}),
        (dhariwal, {**TINY, "learn_variance": True}),
    ],
)
def test_the_contract_of_a_backbone(factory, options):
    check_backbone(factory, (3, 8, 8), 3, **options)


@pytest.mark.parametrize(("factory", "options"), BOTH)
def test_a_new_network_is_the_zero_function(factory, options):
    assert not factory((1, 8, 8), 2, **options)(torch.randn(2, 1, 8, 8), torch.randn(2), torch.tensor([0, -1])).any()


@pytest.mark.parametrize(("factory", "options"), BOTH)
def test_hints_of_zero_are_none_and_others_matter(factory, options):
    net = wake(factory((1, 8, 8), 0, augment_dim=5, **options)).eval()
    x, c_noise = torch.randn(2, 1, 8, 8), torch.randn(2)
    with torch.no_grad():
        plain, zeros, ones = (net(x, c_noise, None, hints) for hints in (None, torch.zeros(2, 5), torch.ones(2, 5)))
    assert torch.equal(plain, zeros)
    assert (plain - ones).abs().max() > 1e-4


@pytest.mark.parametrize(("factory", "options"), BOTH)
def test_other_precisions_and_layouts_give_the_same_image(factory, options):
    torch.manual_seed(0)
    net = wake(factory((3, 8, 8), 2, **options)).eval()
    x, c_noise, labels = torch.randn(2, 3, 8, 8), torch.rand(2), torch.tensor([0, -1])
    with torch.no_grad():
        full = net(x, c_noise, labels)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            low = net(x, c_noise, labels)
        beside = net.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last), c_noise, labels)
    assert (low.float() - full).abs().max() < 0.1 * full.abs().max()
    assert torch.allclose(beside, full, rtol=0, atol=1e-4)


def test_two_taps_are_means_and_copies():
    x = torch.randn(2, 3, 8, 8)
    assert torch.allclose(Conv(3, 3, 0, "down")(x), F.avg_pool2d(x, 2), atol=1e-6)
    assert torch.equal(Conv(3, 3, 0, "up")(x), F.interpolate(x, scale_factor=2.0, mode="nearest"))


def test_four_taps_keep_a_slope():
    """1, 3, 3, 1 is linear interpolation: of a ramp, what lies between its pixels, but for the zeros at the edge."""
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    down = Conv(1, 1, 0, "down", (1, 3, 3, 1))(ramp)[0, 0, 1:-1, 1:-1]
    up = Conv(1, 1, 0, "up", (1, 3, 3, 1))(ramp)[0, 0, 1:-1, 1:-1]
    assert torch.allclose(down, torch.tensor([2.5, 4.5]).expand(2, 2))
    assert torch.allclose(up, (torch.arange(14.0) / 2 + 0.25).expand(14, 14))


def test_a_late_filter_smooths_what_was_convolved():
    late, x = Conv(2, 3, 3, "down", (1, 3, 3, 1), late=True), torch.randn(1, 2, 8, 8)
    smooth = Conv(3, 3, 0, "down", (1, 3, 3, 1))
    whole = smooth(F.conv2d(x, late.weight, padding=1))
    assert torch.allclose(late(x)[:, :, 1:-1, 1:-1], whole[:, :, 1:-1, 1:-1], atol=1e-6)


@pytest.mark.parametrize("encoder", ["skip", "residual"])
def test_the_image_at_half_the_side_joins_the_main_path(encoder):
    net = songunet((2, 8, 8), 0, **{**TINY, "encoder_type": encoder}).eval()
    x, embedding = torch.randn(1, 2, 8, 8), torch.zeros(1, 64)
    plain = songunet((2, 8, 8), 0, **TINY).eval()
    plain.load_state_dict(
        {key: value for key, value in net.state_dict().items() if "aux_skip" not in key}, strict=False
    )
    with torch.no_grad():
        (main, joined) = (each._encode(x, embedding)[2] for each in (plain, net))
        layer = net.enc["4x4_aux_" + encoder]
        if encoder == "skip":
            expected = main + layer(F.avg_pool2d(x, 2))
        else:
            expected = (main + F.avg_pool2d(F.conv2d(x, layer.weight, padding=1), 2)) * 0.5**0.5
    assert torch.allclose(joined, expected, atol=1e-6)


def test_images_of_all_sides_add_up():
    net = songunet(
        (1, 16, 16), 0, model_channels=8, channel_mult=(1, 1, 1), num_blocks=1, attn_resolutions=(), decoder_type="skip"
    ).eval()
    for name, value in {"16x16": 1.0, "8x8": 10.0, "4x4": 100.0}.items():
        nn.init.constant_(net.dec[f"{name}_aux_conv"].bias, value)
    assert torch.equal(net(torch.randn(1, 1, 16, 16), torch.zeros(1)), torch.full((1, 1, 16, 16), 111.0))


def test_waves_are_sines_then_cosines():
    net = songunet((1, 4, 4), 0, model_channels=8, channel_mult=(1,))
    c = torch.tensor([3.0])
    angles = 3.0 * torch.tensor([1.0, 10 ** (-4 / 3), 10 ** (-8 / 3), 1e-4])
    seen = []
    net.map_layer0.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    net.embed(c, None, None, None)
    assert torch.allclose(seen[0][0], torch.cat([angles.sin(), angles.cos()]), atol=1e-6)


@pytest.mark.parametrize("factory", [songunet, dhariwal])
def test_the_first_half_of_the_outputs_is_returned(factory):
    net = wake(factory((3, 8, 8), 0, learn_variance=True, **TINY)).eval()
    x, c_noise = torch.randn(1, 3, 8, 8), torch.zeros(1)
    assert net.outputs(x, c_noise).shape == (1, 6, 8, 8)
    assert torch.equal(net(x, c_noise), net.outputs(x, c_noise)[:, :3])


@pytest.mark.parametrize(
    ("factory", "shape", "options", "sentence"),
    [
        (songunet, (3, 8, 6), {"channel_mult": (1, 2, 2)}, "sides that are multiples of 4, and 6 is not"),
        (dhariwal, (2,), {}, "dhariwal needs images"),
        (songunet, (3, 6, 6), {"channel_mult": (1, 2, 2)}, "sides that are multiples of 4"),
        (songunet, (3, 8, 8), {"encoder_type": "residul"}, "unknown value of option 'encoder_type' .* 'residul'"),
        (songunet, (3, 8, 8), {"embedding_type": "waves"}, "unknown value of option 'embedding_type'"),
        (songunet, (3, 8, 8), {"model_channels": 7}, "an even number of sines and cosines"),
        (dhariwal, (3, 8, 8), {"model_channels": 7}, "an even number of model_channels"),
        (dhariwal, (3, 8, 8), {"model_channels": 132}, "channels cannot be shared by"),
        (
            dhariwal,
            (3, 8, 8),
            {"model_channels": 64, "channel_mult": (1, 3), "num_head_channels": 38},
            "192 channels cannot be shared by 5 heads",
        ),
    ],
)
def test_networks_that_cannot_be(factory, shape, options, sentence):
    with pytest.raises(UsageError, match=sentence):
        registry.build("backbones", {"name": factory.__name__, **options}, shape, 0)
