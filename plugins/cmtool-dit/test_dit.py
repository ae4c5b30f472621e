"""The transformer's parts against formulas that do not use them."""

import math

import pytest
import torch
from cmtool_dit import Block, DiT, dit, position_embedding
from torch import nn

from cmtool.errors import UsageError
from cmtool.options import registry
from cmtool.testing import check_backbone


@pytest.mark.parametrize(
    ("shape", "classes", "options"),
    [
        ((3, 16, 16), 10, {}),
        ((1, 8, 12), 0, {"patch_size": 2, "hidden_dim": 32, "depth": 1, "num_heads": 2, "dropout": 0.1}),
    ],
)
def test_dit_keeps_the_contract_of_a_backbone(shape, classes, options):
    check_backbone(dit, shape, classes, **options)


def test_a_new_dit_is_the_zero_function_and_its_blocks_do_nothing():
    net, h = dit((3, 8, 8), 0, hidden_dim=32, depth=2, num_heads=2), torch.randn(2, 4, 32)
    assert not net(torch.randn(2, 3, 8, 8), torch.randn(2), None).any()
    assert torch.equal(first_block(net)(h, torch.randn(2, 32)), h)


def test_the_number_of_weights_is_that_of_the_formula():
    w, depth, inputs, classes, waves = 32, 3, 3 * 16, 10, 32
    blocks = depth * (18 * w**2 + 15 * w)  # 6 + 3 + 1 + 4 + 4 squares, as many biases as there are outputs
    condition = waves * w + w + w**2 + w + (classes + 1) * w
    ends = inputs * w + w + 2 * w**2 + 2 * w + w * inputs + inputs
    net = dit((3, 16, 16), classes, hidden_dim=w, depth=depth, num_heads=2)
    assert sum(p.numel() for p in net.parameters()) == blocks + condition + ends


def test_products_of_positions_depend_on_the_distance_alone():
    width, rows, columns = 24, 5, 7
    table = position_embedding(width, rows, columns).double()
    where = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).double()
    frequencies = torch.tensor([10000 ** (-4 * k / width) for k in range(width // 4)], dtype=torch.float64)
    apart = (where[:, None] - where[None])[..., None] * frequencies  # cos(a) cos(b) + sin(a) sin(b) = cos(a - b)
    torch.testing.assert_close(table @ table.T, apart.cos().sum((-1, -2)), atol=1e-5, rtol=0)


def test_without_positions_the_order_of_the_patches_does_not_matter():
    torch.manual_seed(0)
    net = awake(dit((3, 8, 8), 0, hidden_dim=32, depth=2, num_heads=4))
    net.positions.zero_()
    x, c_noise = torch.randn(2, 3, 8, 8), torch.tensor([-1.0, 0.5])
    rolled = x.roll((4, 4), dims=(2, 3))
    torch.testing.assert_close(net(rolled, c_noise), net(x, c_noise).roll((4, 4), dims=(2, 3)), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(net(x.roll(1, 3), c_noise), net(x, c_noise).roll(1, 3), atol=1e-3)


def test_attention_is_the_softmax_of_scaled_products_head_by_head():
    torch.manual_seed(0)
    block, h, heads, d = (
        first_block(dit((3, 8, 8), 0, hidden_dim=32, depth=1, num_heads=4)),
        torch.randn(2, 4, 32),
        4,
        8,
    )
    q, k, v = (h @ block.qkv.weight.T + block.qkv.bias).chunk(3, dim=-1)
    parts = []
    for head in range(heads):
        part = slice(head * d, (head + 1) * d)
        weights = (q[..., part] @ k[..., part].mT / math.sqrt(d)).softmax(-1)
        parts.append(weights @ v[..., part])
    torch.testing.assert_close(block.attend(h), block.out(torch.cat(parts, -1)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("shape", "options", "words"),
    [
        ((3, 30, 30), {}, "patches of 4 do not tile images of 30x30"),
        ((2,), {}, "needs images"),
        ((3, 32, 32), {"num_heads": 5}, "hidden_dim of 192"),
        ((3, 32, 32), {"patch_size": 0}, "option 'patch_size' .* must be at least 1"),
    ],
)
def test_options_that_cannot_be_are_named(shape, options, words):
    with pytest.raises(UsageError, match=words):
        registry.build("backbones", {"name": "dit", **options}, shape, 0)


def awake(net: DiT) -> DiT:
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.2)
    return net


def first_block(net: DiT) -> Block:
    block = net.blocks[0]
    assert isinstance(block, Block)
    return block
