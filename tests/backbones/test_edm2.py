"""EDM2's network: the contract, its magnitudes, the size of the published ones; the goldens hold its numbers."""

import pytest
import torch
from torch import nn

from cmtool.backbones.edm2 import default_channel_mult, edm2
from cmtool.errors import UsageError
from cmtool.options import registry
from cmtool.testing import check_backbone


@pytest.mark.parametrize(
    ("shape", "classes", "options"),
    [
        ((3, 16, 16), 10, {"model_channels": 16, "num_head_channels": 16, "num_blocks": 1}),
        ((1, 8, 8), 0, {"model_channels": 8, "num_head_channels": 4, "num_blocks": 1}),
        ((2, 4, 4), 3, {"model_channels": 8, "channel_mult": (1,), "attn_resolutions": (), "dropout": 0.5}),
    ],
)
def test_edm2_keeps_the_contract_of_a_backbone(shape, classes, options):
    check_backbone(edm2, shape, classes, **options)


def test_dropout_is_left_out_where_sides_are_large():
    net = edm2(
        (3, 16, 16),
        0,
        model_channels=8,
        channel_mult=(1, 1, 1),
        num_blocks=1,
        attn_resolutions=(),
        dropout=0.3,
        dropout_res=8,
    )
    dropped = {name: layer.options.dropout for name, layer in [*net.enc.items(), *net.dec.items()][1:]}
    assert {name.split("x")[0] for name, share in dropped.items() if share == 0.3} == {"8", "4"}
    assert {name.split("x")[0] for name, share in dropped.items() if share == 0} == {"16"}


def test_a_new_network_is_the_zero_function():
    net = edm2((1, 8, 8), 2, model_channels=8, num_head_channels=8)
    assert not net(torch.randn(2, 1, 8, 8), torch.randn(2), torch.tensor([0, 1])).any()


def test_a_new_network_keeps_magnitudes():
    """From images of mean square 1 on no layer's output is far from it, once the gains are open."""
    torch.manual_seed(0)
    net = edm2((3, 32, 32), 10, model_channels=32, num_blocks=1, num_head_channels=32).eval()
    for gain in (net.out_gain, *(layer.emb_gain for layer in [*net.enc.values(), *net.dec.values()][1:])):
        nn.init.ones_(gain) if gain is net.out_gain else nn.init.constant_(gain, 0.1)
    found = {}
    for name, layer in net.named_modules():
        if name.count(".") == 1:
            layer.register_forward_hook(lambda _, __, y, name=name: found.update({name: y.square().mean().item()}))
    with torch.no_grad():
        out = net(torch.randn(4, 3, 32, 32), torch.randn(4), torch.arange(4))
    assert len(found) == len(net.enc) + len(net.dec)
    assert all(0.5 < value < 1.5 for value in [*found.values(), out.square().mean().item()]), found


@pytest.mark.parametrize(("shape", "width", "millions"), [((3, 64, 64), 192, 280.2), ((4, 64, 64), 128, 124.7)])
def test_published_sizes(shape, width, millions):
    with torch.device("meta"):
        net = edm2(shape, 1000, model_channels=width, num_blocks=3)
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)


@pytest.mark.parametrize(
    ("side", "mults"), [(64, (1, 2, 3, 4)), (32, (1, 2, 3, 4)), (28, (1, 2, 3)), (8, (1, 2)), (5, (1,))]
)
def test_levels_follow_from_the_side(side, mults):
    assert default_channel_mult(side) == mults


def test_other_precisions_and_layouts_give_the_same_image():
    torch.manual_seed(0)
    net = edm2((3, 16, 16), 2, model_channels=16, num_blocks=1, num_head_channels=16).eval()
    nn.init.ones_(net.out_gain)
    x, c_noise, labels = torch.randn(2, 3, 16, 16), torch.randn(2), torch.tensor([0, -1])
    with torch.no_grad():
        full = net(x, c_noise, labels)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            low = net(x, c_noise, labels)
        beside = net.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last), c_noise, labels)
    assert 1e-4 < (low.float() - full).abs().max() < 0.1
    assert torch.allclose(beside, full, rtol=0, atol=1e-4)


def test_loud_numbers_are_cut():
    torch.manual_seed(0)
    net = edm2((1, 4, 4), 0, model_channels=8, channel_mult=(1,), num_head_channels=8).eval()
    block = net.dec["4x4_in1"]
    assert block(torch.full((1, 8, 4, 4), 1e6), torch.ones(1, 8)).abs().max() == 256


def test_dropout_drops_in_training_alone():
    torch.manual_seed(0)
    net = edm2((1, 8, 8), 0, model_channels=8, num_head_channels=8, dropout=0.5)
    nn.init.ones_(net.out_gain)
    x, c_noise = torch.randn(2, 1, 8, 8), torch.randn(2)
    assert not torch.equal(net(x, c_noise), net(x, c_noise))
    net.eval()
    assert torch.equal(net(x, c_noise), net(x, c_noise))


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((2,), {}, "needs images"),
        ((1, 8, 6), {"channel_mult": (1, 2, 3)}, "multiples of 4, and 6 is not"),
        ((1, 10, 10), {"channel_mult": (1, 2, 3)}, "multiples of 4"),
        ((1, 8, 8), {"model_channels": 20, "num_head_channels": 6}, "3 heads"),
    ],
)
def test_what_cannot_be_is_refused(shape, options, message):
    with pytest.raises(UsageError, match=message):
        registry.build("backbones", {"name": "edm2", **options}, shape, 0)
