"""score_sde's networks against torch's own attention, SciPy's filters and formulas; the whole against goldens."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.signal import upfirdn
from torch.nn import functional as F

from cmtool.backbones.ncsnpp import ddpm, ncsnpp, sinusoidal_embedding
from cmtool.backbones.ncsnpp_blocks import MEAN, Attention, Block, BlockOptions, Combine, Filtered, Fourier, resample
from cmtool.errors import UsageError
from cmtool.options import registry
from cmtool.testing import check_backbone, wake

TINY = {"model_channels": 16, "channel_mult": (1, 2), "num_blocks": 1, "attn_resolutions": (4,)}
STYLE = BlockOptions(8, 0.0, True, 4, (1.0, 3.0, 3.0, 1.0))


@pytest.mark.parametrize(
    "options",
    [
        {"encoder_type": "skip", "decoder_type": "skip", "combine": "cat"},
        {"encoder_type": "skip", "skip_rescale": False, "resample_filter": MEAN, "embedding_type": "positional"},
        {"resample_filter": MEAN, "channel_mult": (2, 1)},
    ],
)
def test_ncsnpp_keeps_the_contract_of_a_backbone(options):
    check_backbone(ncsnpp, (3, 8, 8), 3, **{**TINY, "fourier_scale": 1.0, **options})


@pytest.mark.parametrize("options", [{}, {"decoder_type": "skip"}])
def test_a_new_network_is_the_zero_function(options):
    assert not ncsnpp((3, 8, 8), 3, **TINY, **options)(torch.randn(2, 3, 8, 8), torch.randn(2)).any()


def filtered(image, taps, resize):
    """SciPy's filter along both axes, cut to where the pixels of the result are."""
    line = np.array(taps) / sum(taps)
    for axis in (0, 1):
        if resize == "up":
            around = len(taps) // 2 - 1
            image = upfirdn(2 * line, image, up=2, axis=axis)
            image = np.delete(image, [*range(around), *range(-around, 0)], axis)
        else:
            size = image.shape[axis] // 2
            image = np.take(upfirdn(line, image, axis=axis), range(len(taps) // 2, len(taps) // 2 + 2 * size, 2), axis)
    return image


@pytest.mark.parametrize("taps", [(1.0, 3.0, 3.0, 1.0), (1.0, 2.0, 5.0, 5.0, 2.0, 1.0)])
@pytest.mark.parametrize("resize", ["up", "down"])
def test_sides_change_by_a_filter(taps, resize):
    x = torch.randn(2, 3, 6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = resample(x, resize, taps)
    for image, small in zip(x.flatten(0, 1), found.flatten(0, 1), strict=True):
        torch.testing.assert_close(small, torch.from_numpy(filtered(image.numpy(), taps, resize)), atol=1e-6, rtol=1e-6)


def test_taps_of_ones_are_means_and_repetition():
    x = torch.randn(2, 3, 6, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(resample(x, "down", MEAN), F.avg_pool2d(x, 2))
    torch.testing.assert_close(resample(x, "up", MEAN), F.interpolate(x, scale_factor=2, mode="nearest"))
    assert resample(x, "", MEAN) is x


def test_the_image_goes_down_filtered_then_convolved():
    torch.manual_seed(0)
    part, x = Filtered(3, 5, STYLE.taps), torch.randn(1, 3, 8, 8)
    line = torch.tensor(STYLE.taps) / 8
    smooth = F.conv2d(x, torch.outer(line, line).expand(3, 1, 4, 4), padding=2, groups=3)  # 9x9
    expected = F.conv2d(smooth, part.Conv2d_0.weight, part.Conv2d_0.bias)[:, :, ::2, ::2]
    torch.testing.assert_close(part(x), expected, atol=1e-6, rtol=1e-5)


def test_attention_is_that_of_torch():
    torch.manual_seed(0)
    look, x = wake(Attention(32, STYLE)), torch.randn(2, 32, 3, 5)
    h = F.group_norm(x, 8, bias=look.GroupNorm_0.bias, eps=1e-6).flatten(2).transpose(1, 2)
    q, k, v = (h @ part.W + part.b for part in (look.NIN_0, look.NIN_1, look.NIN_2))
    found = F.scaled_dot_product_attention(q, k, v) @ look.NIN_3.W + look.NIN_3.b
    expected = (x + found.transpose(1, 2).reshape(x.shape)) / math.sqrt(2)
    torch.testing.assert_close(look(x), expected, atol=2e-6, rtol=1e-5)


def test_a_block_is_two_convolutions_and_a_way_around_them():
    torch.manual_seed(0)
    block, x, e = wake(Block(16, 32, STYLE, "down")).eval(), torch.randn(2, 16, 6, 6), torch.randn(2, 8)
    h = F.silu(F.group_norm(x, 4, bias=block.GroupNorm_0.bias, eps=1e-6))
    h = block.Conv_0(resample(h, "down", STYLE.taps))
    h = h + block.Dense_0(e)[:, :, None, None]
    h = block.Conv_1(F.silu(F.group_norm(h, 8, bias=block.GroupNorm_1.bias, eps=1e-6)))
    around = block.get_submodule("Conv_2")(resample(x, "down", STYLE.taps))
    torch.testing.assert_close(block(x, e), (around + h) / math.sqrt(2), atol=1e-5, rtol=1e-5)


def test_the_image_joins_the_features():
    torch.manual_seed(0)
    image, h = torch.randn(1, 3, 4, 4), torch.randn(1, 6, 4, 4)
    for cat in (False, True):
        join = Combine(3, 6, cat)
        seen = join.Conv_0(image)
        torch.testing.assert_close(join(image, h), torch.cat([seen, h], 1) if cat else seen + h)


def test_embeddings_are_those_of_the_formulas():
    c = torch.tensor([-1.7, 998.5], dtype=torch.float64)
    angles = [[v * 10_000 ** (-i / 7) for i in range(8)] for v in c.tolist()]
    expected = [[math.sin(a) for a in row] + [math.cos(a) for a in row] for row in angles]
    torch.testing.assert_close(
        sinusoidal_embedding(c, 16), torch.tensor(expected, dtype=torch.float64), atol=2e-4, rtol=0
    )
    fourier = Fourier(3, 16.0)
    angles = [[2 * math.pi * w * v for w in fourier.W.tolist()] for v in c.tolist()]
    expected = [[math.sin(a) for a in row] + [math.cos(a) for a in row] for row in angles]
    torch.testing.assert_close(fourier(c), torch.tensor(expected, dtype=torch.float64))
    assert not list(fourier.parameters())  # they are not learnt


@torch.no_grad()
def test_other_precisions_and_layouts_of_memory_give_nearly_the_same():
    torch.manual_seed(0)
    net = wake(ncsnpp((3, 8, 8), 0, **TINY)).eval()
    question = torch.randn(2, 3, 8, 8), torch.tensor([-2.0, 3.0])
    answer = net(*question)
    with torch.autocast("cpu", torch.bfloat16):
        assert (net(*question) - answer).abs().max() < 0.05 * answer.abs().max()
    torch.testing.assert_close(net.to(memory_format=torch.channels_last)(*question), answer, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": (2,)}, "needs images"),
        ({"channel_mult": (1, 1, 1, 1, 1)}, "multiples of 16"),
        ({"model_channels": 15}, "needs an even number of model_channels"),
        ({"model_channels": 18}, "cannot be shared by 4 groups"),
        ({"encoder_type": "residul"}, "unknown value of option 'encoder_type' .* 'residul'"),
        ({"nonlinearity": "swoosh"}, "unknown value of option 'nonlinearity' .* 'swoosh'"),
        ({"resample_filter": (1.0, 3.0, 1.0)}, "an even number of weights"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        shape = options.pop("shape", (3, 8, 8))
        registry.build("backbones", {"name": "ncsnpp", **TINY, **options}, shape, 0)


LINEAR, BLOCK = ("weight", "bias"), ("GroupNorm_0", "Conv_0", "Dense_0", "GroupNorm_1", "Conv_1")
RESIZES, LOOKS, ALONE = (*BLOCK, "Conv_2"), ("GroupNorm_0", "NIN_0", "NIN_1", "NIN_2", "NIN_3"), ("Conv_0",)

LOWER, MAKES = (RESIZES, LOOKS, BLOCK, LOOKS, BLOCK), (LINEAR, LINEAR)  # the lowest level and the middle; an image
# The modules of score_sde's list, written down from its layout and from recorded files, not from our network: nf 16,
# ch_mult (1, 2), one block a level, attention at the lower one. Where the image goes beside the blocks by a filter
# alone nothing stands in the list.
LISTS = {
    # Fourier, two maps, entry; block, down, image; the lower level; up 2, look, up; up 2; out
    "input_skip": (
        {"encoder_type": "skip"},
        [
            ("W",),
            LINEAR,
            LINEAR,
            LINEAR,
            BLOCK,
            RESIZES,
            ALONE,
            *LOWER,
            RESIZES,
            RESIZES,
            LOOKS,
            *3 * (RESIZES,),
            *MAKES,
        ],
    ),
    # the same with an image made at each side, as bedroom, church, ffhq and celebahq have it
    "output_skip": (
        {"encoder_type": "skip", "decoder_type": "skip"},
        [
            ("W",),
            LINEAR,
            LINEAR,
            LINEAR,
            BLOCK,
            RESIZES,
            ALONE,
            *LOWER,
            RESIZES,
            RESIZES,
            LOOKS,
            *MAKES,
            *3 * (RESIZES,),
            *MAKES,
        ],
    ),
    "residual": (
        {"embedding_type": "positional"},
        [
            LINEAR,
            LINEAR,
            LINEAR,
            BLOCK,
            RESIZES,
            ("Conv2d_0",),
            *LOWER,
            RESIZES,
            RESIZES,
            LOOKS,
            *3 * (RESIZES,),
            *MAKES,
        ],
    ),
    "not told its level": (
        {"embedding_type": "positional", "encoder_type": "standard", "noise_conditional": False},
        [LINEAR, BLOCK, RESIZES, *LOWER, RESIZES, RESIZES, LOOKS, *3 * (RESIZES,), *MAKES],
    ),
}


@pytest.mark.parametrize("which", LISTS)
def test_the_list_of_modules_is_that_of_score_sde(which):
    options, parts = LISTS[which]
    found: dict[int, list[str]] = {}
    for name in ncsnpp((3, 16, 16), 0, **{**TINY, "attn_resolutions": (8,), **options}).state_dict():
        _, number, part, *_ = name.split(".")
        found.setdefault(int(number), []).append(part)
    assert [tuple(dict.fromkeys(found[number])) for number in sorted(found)] == parts
    assert sorted(found) == [*range(len(parts))]


def test_ddpm_without_convolutions_leaves_their_places_empty():
    names = ddpm((3, 8, 8), 0, **{**TINY, "model_channels": 32, "conv_resample": False}).state_dict()
    numbers = {int(name.split(".")[1]) for name in names}
    assert set(range(max(numbers))) - numbers == {4, 13}  # after the first level's block, and before it on the way up


@torch.no_grad()
def test_a_network_that_is_not_conditional_is_told_nothing():
    net = wake(ncsnpp((3, 8, 8), 0, **TINY, noise_conditional=False)).eval()
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(net(x, torch.tensor([-2.0, 1.0])), net(x, torch.tensor([3.0, 9.0])))
    with pytest.raises(UsageError, match="takes no classes"):
        ncsnpp((3, 8, 8), 2, **TINY, noise_conditional=False)


@torch.no_grad()
@pytest.mark.parametrize(("name", "act"), [("relu", F.relu), ("elu", F.elu), ("lrelu", lambda x: F.leaky_relu(x, 0.2))])
def test_a_block_has_the_nonlinearity_that_it_is_given(name, act):
    torch.manual_seed(0)
    block, x, e = (
        wake(Block(16, 16, replace(STYLE, nonlinearity=name))).eval(),
        torch.randn(1, 16, 4, 4),
        torch.randn(1, 8),
    )
    h = block.Conv_0(act(block.GroupNorm_0(x))) + block.Dense_0(e)[:, :, None, None]
    expected = (x + block.Conv_1(act(block.GroupNorm_1(h)))) / math.sqrt(2)
    torch.testing.assert_close(block(x, e), expected)


def test_ddpm_needs_32_groups():
    with pytest.raises(UsageError, match="48 channels cannot be shared by 32 groups"):
        ddpm((3, 8, 8), 0, **{**TINY, "model_channels": 48})
