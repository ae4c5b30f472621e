"""k-diffusion's U-Net: the contract, and a whole network computed once more with plain functions of torch."""

import math

import pytest
import torch
from torch.nn import functional as F

from cmtool.backbones.image_v1 import image_v1
from cmtool.backbones.image_v1_blocks import Resize
from cmtool.errors import UsageError
from cmtool.testing import check_backbone, wake

TINY = {"wide": 16, "widths": (32, 64), "depths": (1, 2)}
X, C = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([-1.2, 0.9])


def woken(shape=(3, 8, 8), classes=0, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return wake(image_v1(shape, classes, **{**TINY, **options})).eval()


@pytest.mark.parametrize("options", [{}, {"patch": 2, "attention": (0, 1)}, {"learn_variance": True, "attention": ()}])
def test_the_contract_of_a_backbone(options):
    check_backbone(image_v1, (3, 8, 8), 3, **TINY, **options)


class Again:
    """The network of a ``state_dict``, written down a second time: 2 levels, 1 and 2 blocks, attention at the lower."""

    def __init__(self, net):
        self.p = {name: value.double() for name, value in net.state_dict().items()}

    def norm(self, at, x, told):
        """Group by group, and then what the network is told."""
        b, c, h, w = x.shape
        groups = x.reshape(b, max(1, c // 32), -1)
        centred = groups - groups.mean(-1, keepdim=True)
        x = (centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()).reshape(b, c, h, w)
        a = told @ self.p[f"{at}.mapper.weight"].T + self.p[f"{at}.mapper.bias"]
        return x * (1 + a[:, :c, None, None]) + a[:, c:, None, None]

    def convolved(self, at, x):
        kernel = self.p[f"{at}.weight"]
        return F.conv2d(x, kernel, self.p.get(f"{at}.bias"), padding=kernel.shape[-1] // 2)

    def block(self, at, x, told):
        h = self.convolved(f"{at}.main.2", self.gelu(self.norm(f"{at}.main.0", x, told)))
        h = self.convolved(f"{at}.main.6", self.gelu(self.norm(f"{at}.main.4", h, told)))
        return h + (self.convolved(f"{at}.skip", x) if f"{at}.skip.weight" in self.p else x)

    def look(self, at, x, told):
        """Head by head: queries first, then keys, then values."""
        b, c, h, w = x.shape
        rows = self.convolved(f"{at}.qkv_proj", self.norm(f"{at}.norm_in", x, told)).reshape(b, 3 * c, h * w)
        heads, seen = max(1, c // 64), []
        for i in range(heads):
            q, k, v = (rows[:, part * c + i * c // heads : part * c + (i + 1) * c // heads] for part in range(3))
            scores = torch.einsum("bdn,bdm->bnm", q, k) / math.sqrt(c / heads)
            seen.append(torch.einsum("bnm,bdm->bdn", scores.softmax(-1), v))
        return x + self.convolved(f"{at}.out_proj", torch.cat(seen, 1).reshape(b, c, h, w))

    @staticmethod
    def gelu(x):
        return x * (1 + torch.erf(x / math.sqrt(2))) / 2

    @staticmethod
    def halved(x):
        """Eighths of four neighbours, 1, 3, 3 and 1, along each axis; the image is mirrored at its edges."""
        for axis in (2, 3):
            n = x.shape[axis]
            at = [[min(abs(i), 2 * (n - 1) - i) for i in range(2 * k - 1, 2 * k + 3)] for k in range(n // 2)]
            rows = [x.index_select(axis, torch.tensor(line)) for line in at]
            weights = torch.tensor([1.0, 3.0, 3.0, 1.0]).double() / 8
            x = torch.stack([(row.movedim(axis, -1) * weights).sum(-1) for row in rows], axis)
        return x

    @staticmethod
    def doubled(x):
        """Between two pixels, a quarter of the farther and three quarters of the nearer."""
        for axis in (2, 3):
            line = x.movedim(axis, -1)
            line = torch.cat([line[..., 1:2], line, line[..., -2:-1]], -1)
            before, here, after = line[..., :-2], line[..., 1:-1], line[..., 2:]
            x = torch.stack([before / 4 + here * 3 / 4, here * 3 / 4 + after / 4], -1).flatten(-2).movedim(-1, axis)
        return x

    def __call__(self, x, c_noise, hints):
        p, x = self.p, x.double()
        angles = 2 * math.pi * c_noise.double()[:, None] * p["timestep_embed.weight"][:, 0]
        told = torch.cat([angles.cos(), angles.sin()], 1) + hints.double() @ p["mapping_cond.weight"].T
        for layer in ("mapping.0", "mapping.2"):
            told = self.gelu(told @ p[f"{layer}.weight"].T + p[f"{layer}.bias"])
        high = self.block("u_net.d_blocks.0.1", self.convolved("proj_in", x), told)
        low = self.halved(high)
        for i, part in enumerate((self.block, self.look, self.block, self.look), 1):
            low = part(f"u_net.d_blocks.1.{i}", low, told)
        for i, part in enumerate((self.block, self.look, self.block, self.look)):
            low = part(f"u_net.u_blocks.0.{i}", low, told)
        out = self.block("u_net.u_blocks.1.0", torch.cat([self.doubled(low), high], 1), told)
        return self.convolved("proj_out", out)


@torch.no_grad()
@pytest.mark.parametrize("widths", [(32, 64), (48, 128), (16, 192)])
def test_the_whole_network_a_second_time(widths):
    net = woken(widths=widths, augment_dim=9)
    hints = torch.randn(2, 9, generator=torch.Generator().manual_seed(1))
    again = Again(net)
    expected = again(X, C, hints)
    torch.testing.assert_close(
        net(X, C, None, hints).double(), expected, rtol=0, atol=2e-6 * float(expected.abs().max())
    )
    torch.testing.assert_close(net.double()(X.double(), C.double(), None, hints.double()), expected, rtol=0, atol=1e-11)


def test_a_slope_stays_one_where_the_mirror_is_not_seen():
    ramp = torch.arange(8.0).expand(1, 2, 8, 8)
    down, up = Resize(up=False)(ramp, C)[..., 1:-1], Resize(up=True)(ramp, C)[..., 1:-1]
    assert torch.allclose(down, torch.tensor([2.5, 4.5]).expand(1, 2, 4, 2))
    assert torch.allclose(up, (torch.arange(14.0) / 2 + 0.25).expand(1, 2, 16, 14))


@torch.no_grad()
def test_patches_are_pixels_of_one_place():
    """With patches of 2, a network that only copies its patches gives back the image."""
    net = woken(patch=2, widths=(32,), depths=(1,), attention=())
    for parameter in net.parameters():
        parameter.zero_()
    net.proj_in.weight[:12, :, 0, 0] = torch.eye(12)
    net.proj_out.weight[:, :12, 0, 0] = torch.eye(12)
    assert torch.equal(net(X, C), X)


def test_images_need_not_be_square():
    assert woken((1, 8, 16))(torch.randn(2, 1, 8, 16), C).shape == (2, 1, 8, 16)


@torch.no_grad()
def test_the_variance_is_the_last_channel():
    net = woken(learn_variance=True, patch=2)
    assert net.outputs(X, C).shape == (2, 13, 4, 4)
    assert torch.equal(net(X, C), F.pixel_shuffle(net.outputs(X, C)[:, :12], 2))


@torch.no_grad()
def test_a_new_network_is_deaf_to_hints_and_returns_nothing():
    net = image_v1((3, 8, 8), 0, augment_dim=4, **TINY)
    assert not net(X, C).any()
    woke = woken(augment_dim=4)
    plain, zeros, ones = (woke(X, C, None, hints) for hints in (None, torch.zeros(2, 4), torch.ones(2, 4)))
    assert torch.equal(plain, zeros)
    assert (plain - ones).abs().max() > 1e-4
    torch.nn.init.zeros_(woke.mapping_cond.weight)
    assert torch.equal(woke(X, C, None, torch.ones(2, 4)), woke(X, C))


@torch.no_grad()
def test_other_precisions_and_layouts_give_the_same_image():
    net = woken(classes=2)
    labels = torch.tensor([0, -1])
    full = net(X, C, labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = net(X, C, labels)
    beside = net.to(memory_format=torch.channels_last)(X.to(memory_format=torch.channels_last), C, labels)
    assert (low.float() - full).abs().max() < 0.1 * full.abs().max()
    torch.testing.assert_close(beside, full, rtol=0, atol=1e-4)


def test_dropout_is_for_training_alone():
    net = woken(dropout=0.5)
    assert torch.equal(net(X, C), net(X, C))
    assert torch.equal(net(X, C), woken()(X, C))
    net.train()
    torch.manual_seed(0)
    assert not torch.equal(net(X, C), net(X, C))


@pytest.mark.parametrize(
    ("shape", "options", "sentence"),
    [
        ((2,), {}, "image_v1 needs images, and these are 2"),
        ((3, 6, 8), {"widths": (32, 32, 32), "depths": None}, "multiple of 4, twice it at least, and 6x8 is not"),
        ((3, 4, 4), {"widths": (32, 32, 32), "depths": None}, "twice it at least, and 4x4 is not"),
        ((3, 8, 8), {"depths": (1,)}, "a depth for each of 2 levels"),
        ((3, 8, 8), {"wide": 7}, "an even number of waves"),
        ((3, 8, 8), {"widths": (100, 128)}, "cannot cut 100 channels into groups of 32"),
        ((3, 8, 8), {"widths": (224, 128)}, "cannot cut 224 channels into heads of 64"),
    ],
)
def test_networks_that_cannot_be(shape, options, sentence):
    with pytest.raises(UsageError, match=sentence):
        image_v1(shape, 0, **{**TINY, **options})
