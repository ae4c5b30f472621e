"""The transformer against torch's own layers, and its positions and pixels against formulas that do not use them."""

import dataclasses
import hashlib

import cmtool_dinov2 as dino_module
import numpy as np
import pytest
import torch
from cmtool_dinov2 import Block, DINOv2, Transformer, dinov2
from PIL import Image
from torch import nn

from cmtool.errors import BadFile, MissingAsset
from cmtool.options.hint_words import word_hint
from cmtool.testing import check_features


def random_dino(width=128, depth=3, side=37):
    torch.manual_seed(0)
    net = Transformer(width, depth, 14, side * side)
    for name, parameter in net.named_parameters():
        nn.init.normal_(parameter, 1.0 if "gamma" in name or "norm" in name else 0.0, 0.05)
    return net.eval()


def test_the_blocks_are_torchs_encoder_layers_with_the_scales_folded_in():
    net, width = random_dino(), 128
    layers = []
    for block in net.blocks:
        assert isinstance(block, Block)
        layer = nn.TransformerEncoderLayer(width, width // 64, 4 * width, 0.0, "gelu", 1e-6, True, norm_first=True)
        g1, g2 = block.ls1.gamma, block.ls2.gamma
        state = {
            "self_attn.in_proj_weight": block.attn.qkv.weight,
            "self_attn.in_proj_bias": block.attn.qkv.bias,
            "self_attn.out_proj.weight": g1[:, None] * block.attn.proj.weight,
            "self_attn.out_proj.bias": g1 * block.attn.proj.bias,
            "linear1.weight": block.mlp.fc1.weight,
            "linear1.bias": block.mlp.fc1.bias,
            "linear2.weight": g2[:, None] * block.mlp.fc2.weight,
            "linear2.bias": g2 * block.mlp.fc2.bias,
        }
        for i in (1, 2):
            norm = block.get_submodule(f"norm{i}")
            state |= {f"norm{i}.{key}": value for key, value in norm.named_parameters()}
        layer.load_state_dict(state)
        layers.append(layer.train())  # without dropout it is the same, and takes no fast path
    x = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        tokens = net.patch_embed.proj(x).flatten(2).transpose(1, 2)
        h = torch.cat([net.cls_token.expand(2, -1, -1), tokens], 1) + net.positions(16, 16)
        for layer in layers:
            h = layer(h)
        torch.testing.assert_close(net(x), net.norm(h)[:, 0], rtol=1e-4, atol=1e-5)


def test_patches_are_products_with_the_kernel():
    net, x = random_dino(), torch.randn(1, 3, 28, 42)
    weight = net.patch_embed.proj.weight.flatten(1)
    wanted = torch.stack([x[0, :, r : r + 14, c : c + 14].flatten() for r in (0, 14) for c in (0, 14, 28)]) @ weight.T
    got = net.patch_embed.proj(x).flatten(2)[0].T
    assert net.patch_embed.proj.bias is not None
    torch.testing.assert_close(got, wanted + net.patch_embed.proj.bias, rtol=1e-4, atol=1e-5)


def cubic(t, a=-0.75):
    t = abs(t)
    return ((a + 2) * t - (a + 3)) * t * t + 1 if t <= 1 else (((t - 5) * t + 8) * t - 4) * a if t < 2 else 0.0


def test_positions_are_stretched_by_the_authors_scale_and_cubic_weights():
    net, side, new = random_dino(64, 1), 37, 16
    ratio = side / (new + 0.1)
    mix = np.zeros((new, side))
    for i in range(new):
        place = (i + 0.5) * ratio - 0.5
        for j in range(int(np.floor(place)) - 1, int(np.floor(place)) + 3):
            mix[i, min(max(j, 0), side - 1)] += cubic(place - j)
    grid = net.pos_embed[0, 1:].detach().double().numpy().reshape(side, side, 64)
    wanted = np.einsum("ir,jc,rcd->ijd", mix, mix, grid).reshape(new * new, 64)
    got = net.positions(new, new)[0].detach()
    np.testing.assert_allclose(got[1:].numpy(), wanted, atol=1e-5)
    assert torch.equal(got[0], net.pos_embed[0, 0])
    assert net.positions(side, side) is net.pos_embed


def test_images_are_resized_as_pillow_does_and_normalised():
    seen = []
    features = DINOv2(random_dino(64, 1), torch.device("cpu"))
    features.net.register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    # a smooth picture, whose bicubic curve stays within what Pillow can hold
    y, x = np.mgrid[:300, :260]
    picture = np.stack([y / 2 + 40, x / 2 + 60, (x + y) / 4 + 30], -1).astype(np.uint8)
    features(torch.from_numpy(picture).permute(2, 0, 1)[None])
    for channel, (mean, std) in enumerate(zip(dino_module.MEAN, dino_module.STD, strict=True)):
        plane = Image.fromarray(picture[..., channel].astype(np.float32))
        wanted = np.asarray(plane.resize((224, 224), Image.Resampling.BICUBIC)) / 255
        np.testing.assert_allclose(seen[0][0, channel].numpy() * std + mean, wanted, atol=2e-3)


def test_the_features_keep_their_contract_and_their_weights_are_proven(tmp_path, monkeypatch):
    net = random_dino(64, 1)
    torch.save(net.state_dict(), tmp_path / "mine.pth")
    with pytest.raises(BadFile, match="is not the published dinov2_vitl14"):
        dinov2(weights=str(tmp_path / "mine.pth"))
    for name in ("CMTOOL_ASSETS", "TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "nothing"))
    with pytest.raises(MissingAsset) as caught:
        dinov2()
    assert "cmtool fetch dinov2" in word_hint(caught.value.hint or "")
    sha256 = hashlib.sha256((tmp_path / "mine.pth").read_bytes()).hexdigest()
    monkeypatch.setattr(dino_module, "WEIGHTS", dataclasses.replace(dino_module.WEIGHTS, sha256=sha256))
    features = dinov2(weights=str(tmp_path / "mine.pth"))
    check_features(features)
    assert (features.name, features.label, features.dim) == ("dinov2", "FD-DINOv2", 64)
