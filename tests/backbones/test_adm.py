"""The U-Net of ADM against torch's own attention, permutations of its weights and the counts of the paper."""

import math

import pytest
import torch
from torch.nn import functional as F

from cmtool.backbones.adm import adm, sinusoidal_embedding
from cmtool.backbones.adm_blocks import Attention, Block, Down, Up
from cmtool.errors import UsageError
from cmtool.options import registry
from cmtool.testing import check_backbone, wake

TINY = {
    "model_channels": 32,
    "channel_mult": (1, 2),
    "num_blocks": 1,
    "attn_resolutions": (4,),
    "num_head_channels": 16,
}


@pytest.mark.parametrize(
    "options",
    [
        {"use_scale_shift_norm": False, "qkv": "legacy"},
        {"resblock_updown": False, "qkv": "new", "num_heads": 2},
        {"learn_variance": True},
        {"conv_resample": False},
    ],
)
def test_adm_keeps_the_contract_of_a_backbone(options):
    check_backbone(adm, (3, 8, 8), 3, **{**TINY, **options})


@torch.no_grad()
def test_the_way_up_may_have_other_heads():
    torch.manual_seed(0)
    nets = [wake(adm((3, 8, 8), 0, **{**TINY, "num_heads": 2, "num_heads_upsample": n})) for n in (None, 2, 4)]
    for net in nets[1:]:
        net.load_state_dict(nets[0].state_dict())
    counts = [[part.num_heads for part in net.modules() if isinstance(part, Attention)] for net in nets]
    assert counts == [[2, 2, 2, 2], [2, 2, 2, 2], [2, 2, 4, 4]]  # down, middle, and two on the way up
    x, c = torch.randn(1, 3, 8, 8), torch.tensor([7.0])
    same, too, other = (net(x, c) for net in nets)
    assert torch.equal(same, too) and not torch.allclose(same, other)


@torch.no_grad()
def test_sides_change_without_weights_where_nothing_convolves():
    down, up, x = Down(4, convolves=False), Up(4, convolves=False), torch.randn(2, 4, 6, 6)
    assert not [*down.parameters(), *up.parameters()]
    torch.testing.assert_close(down(x), x.unfold(2, 2, 2).unfold(3, 2, 2).mean((-1, -2)))
    assert torch.equal(up(x), x.repeat_interleave(2, 2).repeat_interleave(2, 3))
    names = adm((3, 8, 8), 0, **TINY, resblock_updown=False, conv_resample=False).state_dict()
    assert {name.split(".")[1] for name in names if name.startswith("input_blocks.")} == {"0", "1", "3"}


def test_a_new_adm_is_the_zero_function():
    assert not adm((3, 8, 8), 3, **TINY)(torch.randn(2, 3, 8, 8), torch.randn(2), torch.tensor([0, -1])).any()


def test_waves_are_those_of_the_formula():
    c = torch.tensor([-1.7, 1095.5], dtype=torch.float64)
    angles = [[v * 10_000 ** (-i / 8) for i in range(8)] for v in c.tolist()]
    expected = [[math.cos(a) for a in row] + [math.sin(a) for a in row] for row in angles]
    torch.testing.assert_close(
        sinusoidal_embedding(c, 16), torch.tensor(expected, dtype=torch.float64), atol=2e-4, rtol=0
    )


@pytest.mark.parametrize(
    ("side", "classes", "qkv", "options", "millions"),
    [
        (64, 1000, "new", {"model_channels": 192, "num_blocks": 3}, 296),
        (128, 1000, "legacy", {"model_channels": 256, "num_heads": 4}, 422),
        (256, 1000, "legacy", {"model_channels": 256}, 554),
        (256, 0, "legacy", {"model_channels": 256}, 552),
        (512, 1000, "legacy", {"model_channels": 256}, 559),
    ],
)
def test_the_published_networks_are_as_large_as_the_paper_says(side, classes, qkv, options, millions):
    """Dhariwal and Nichol 2021, table 4 and appendix."""
    with torch.device("meta"):
        net = adm((3, side, side), classes, qkv=qkv, learn_variance=True, **options)
    assert abs(sum(p.numel() for p in net.parameters()) / 1e6 - millions) < 1


@pytest.mark.parametrize("qkv", ["flash", "new", "legacy"])
def test_attention_is_that_of_torch(qkv):
    torch.manual_seed(0)
    look, x = wake(Attention(64, 4, qkv)), torch.randn(2, 64, 3, 5)
    rows = F.conv1d(look.norm(x).flatten(2), look.qkv.weight.reshape(192, 64, 1), look.qkv.bias)
    if qkv == "legacy":
        q, k, v = rows.reshape(2, 4, 3, 16, 15).unbind(2)
    else:
        q, k, v = (part.reshape(2, 4, 16, 15) for part in rows.chunk(3, 1))
    found = F.scaled_dot_product_attention(*(part.transpose(2, 3) for part in (q, k, v)))
    found = found.transpose(2, 3).reshape(2, 64, 15)
    out = F.conv1d(found, look.proj_out.weight.reshape(64, 64, 1), look.proj_out.bias).reshape(x.shape)
    torch.testing.assert_close(look(x), x + out, atol=2e-6, rtol=1e-5)


def test_the_layouts_of_one_network_differ_by_a_permutation():
    torch.manual_seed(0)
    flash, legacy = (wake(adm((3, 8, 8), 0, **TINY, qkv=qkv)).eval() for qkv in ("flash", "legacy"))
    weights = flash.state_dict()
    for name, value in weights.items():
        if ".qkv." in name:
            value = value.unflatten(0, (3, -1, 16)).transpose(0, 1).flatten(0, 2)
        if ".qkv.weight" in name or "proj_out.weight" in name:
            value = value.squeeze(-1)
        weights[name] = value
    legacy.load_state_dict(weights)
    x, c = torch.randn(2, 3, 8, 8), torch.tensor([-3.0, 2.0])
    torch.testing.assert_close(legacy(x, c), flash(x, c), atol=1e-6, rtol=1e-5)


def test_a_block_is_two_convolutions_and_a_way_around_them():
    torch.manual_seed(0)
    block, x, e = wake(Block(32, 64, 8, 0.0, resize="down")).eval(), torch.randn(2, 32, 6, 6), torch.randn(2, 8)
    weights = block.state_dict()

    def norm(h, name):
        return F.group_norm(h, 32, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def convolve(h, name, **how):
        return F.conv2d(h, weights[f"{name}.weight"], weights[f"{name}.bias"], **how)

    h = convolve(F.avg_pool2d(F.silu(norm(x, "in_layers.0")), 2), "in_layers.2", padding=1)
    told = F.linear(e, weights["emb_layers.1.weight"], weights["emb_layers.1.bias"])[:, :, None, None]
    h = norm(h, "out_layers.0") * (1 + told[:, :64]) + told[:, 64:]
    expected = convolve(F.silu(h), "out_layers.3", padding=1) + convolve(F.avg_pool2d(x, 2), "skip_connection")
    torch.testing.assert_close(block(x, e), expected, atol=1e-5, rtol=1e-5)


@pytest.fixture
def asked():
    """A network, its question and its answer."""
    torch.manual_seed(0)
    net = wake(adm((3, 8, 8), 3, **TINY)).eval()
    question = torch.randn(2, 3, 8, 8), torch.tensor([-200.0, 300.0]), torch.tensor([2, -1])
    with torch.no_grad():
        return net, question, net(*question)


@torch.no_grad()
def test_other_precisions_and_layouts_of_memory_give_nearly_the_same(asked):
    net, question, answer = asked
    with torch.autocast("cpu", torch.bfloat16):
        assert (net(*question) - answer).abs().max() < 0.05 * answer.abs().max()
    half = adm((3, 8, 8), 3, **TINY, half=True).eval()
    half.load_state_dict(net.state_dict())
    assert half.input_blocks[0][0].weight.dtype == torch.float16
    assert half(*question).dtype == torch.float32
    assert 0 < (half(*question) - answer).abs().max() < 0.01 * answer.abs().max()
    torch.testing.assert_close(net.to(memory_format=torch.channels_last)(*question), answer, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": (2,)}, "needs images"),
        ({"channel_mult": (1, 1, 1, 1, 1)}, "multiples of 16"),
        ({"model_channels": 40}, "multiple of 32 channels"),
        ({"num_head_channels": 48}, "heads 48 wide"),
        ({"num_heads": 5}, "5 heads"),
        ({"qkv": "edm"}, "unknown value of option 'qkv' of network architecture 'adm' 'edm'"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        shape = options.pop("shape", (3, 8, 8))
        registry.build("backbones", {"name": "adm", **TINY, **options}, shape, 0)
