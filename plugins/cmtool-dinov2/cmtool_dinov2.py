"""``dinov2``: the features that FD-DINOv2 is measured with.

A vision transformer of our own under the names of the published weights, which are read without running anything.
Oquab et al. 2023, arXiv 2304.07193; as features for a Frechet distance, Stein et al. 2023, arXiv 2306.04675.
"""

from collections.abc import Mapping
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cmtool.assets import Asset, locate
from cmtool.features import Features
from cmtool.features.inputs import rgb
from cmtool.options.plugin_option import Option

__all__ = ["WEIGHTS", "DINOv2", "Transformer", "dinov2"]

WEIGHTS = Asset(
    "dinov2",
    "dinov2_vitl14_pretrain.pth",
    1_217_586_395,
    "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",
    "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth",
    "or name its place with --set features.weights=PATH; --features small needs no file",
)
SIDE, HEAD, EPS = 224, 64, 1e-6  # pixels, features of an attention head, and what a norm adds to the variance
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pixels on [0, 1]
OFFSET = 0.1  # that the authors add to the side of the new grid of positions when they stretch the old one


class Attention(nn.Module):
    """``softmax(q k^T / sqrt(64)) v`` in each head, and a linear layer."""

    def __init__(self, width: int):
        super().__init__()
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, h: Tensor) -> Tensor:
        q, k, v = self.qkv(h).unflatten(-1, (3, -1, HEAD)).permute(2, 0, 3, 1, 4)  # each [B, heads, N, 64]
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """``W_2 gelu(W_1 h)``, four times as wide between."""

    def __init__(self, width: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, h: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(h)))


class Scale(nn.Module):
    """One number for each feature, under the name that the weights have."""

    def __init__(self, width: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))


class Block(nn.Module):
    """``h <- h + g_1 attend(norm(h))``, ``h <- h + g_2 mlp(norm(h))``."""

    def __init__(self, width: int):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, EPS), nn.LayerNorm(width, EPS)
        self.attn, self.mlp = Attention(width), MLP(width)
        self.ls1, self.ls2 = Scale(width), Scale(width)

    def forward(self, h: Tensor) -> Tensor:
        h = h + self.ls1.gamma * self.attn(self.norm1(h))
        return h + self.ls2.gamma * self.mlp(self.norm2(h))


class Patches(nn.Module):
    """The layer that makes tokens of patches, under the name that its weights have."""

    def __init__(self, width: int, patch: int):
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, patch)


class Transformer(nn.Module):
    """[B, 3, H, W], of mean 0 and deviation 1, -> the class token [B, width] at the end; sides are whole patches."""

    def __init__(self, width: int, depth: int, patch: int, places: int):
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + places, width))
        self.mask_token = nn.Parameter(torch.zeros(1, width))  # used in training alone
        self.patch_embed = Patches(width, patch)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width, EPS)

    @classmethod
    def of(cls, weights: Mapping[str, Tensor]) -> "Transformer":
        """The network that the shapes of the weights describe."""
        width, patch = weights["patch_embed.proj.weight"].shape[0], weights["patch_embed.proj.weight"].shape[-1]
        depth = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks."))
        net = cls(width, depth, patch, weights["pos_embed"].shape[1] - 1)
        net.load_state_dict(dict(weights))
        return net

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patch_embed.proj(x)
        h = torch.cat([self.cls_token.expand(len(x), -1, -1), patches.flatten(2).mT], dim=1)
        h = h + self.positions(*patches.shape[-2:])
        for block in self.blocks:
            h = block(h)
        return self.norm(h[:, 0])

    def positions(self, rows: int, columns: int) -> Tensor:
        """The learned positions [1, 1 + rows * columns, width], stretched (bicubic) where the grid is another one."""
        own, places = self.pos_embed[:, :1], self.pos_embed[:, 1:]
        side = round(places.shape[1] ** 0.5)
        if (rows, columns) == (side, side):
            return self.pos_embed
        scale = ((rows + OFFSET) / side, (columns + OFFSET) / side)
        square = places.mT.unflatten(2, (side, side))
        stretched = F.interpolate(square, scale_factor=scale, mode="bicubic")
        return torch.cat([own, stretched.flatten(2).mT], dim=1)


class DINOv2(Features):
    """The class token of DINOv2 for images of any size, resized to 224 x 224 (bicubic, antialiased), as EDM2 does."""

    name, label = "dinov2", "FD-DINOv2"
    fingerprint = f"{WEIGHTS.filename} {WEIGHTS.sha256[:16]} {SIDE} bicubic"

    def __init__(self, net: Transformer, device: torch.device):
        self.net, self.device, self.dim = net.to(device).eval(), device, net.cls_token.shape[-1]
        self.mean, self.std = (torch.tensor(each, device=device).view(3, 1, 1) for each in (MEAN, STD))

    @torch.inference_mode()
    def __call__(self, images: Tensor, /) -> Tensor:
        x = rgb(images, self.name).to(self.device).float()
        if x.shape[-2:] != (SIDE, SIDE):
            x = F.interpolate(x, (SIDE, SIDE), mode="bicubic", antialias=True)
        return self.net((x / 255 - self.mean) / self.std).float()


def dinov2(
    *,
    weights: Annotated[str | None, Option("file of the weights, where it is in none of the usual folders")] = None,
    device: Annotated[str, Option("where the network runs; by default where the command does")] = "cpu",
) -> DINOv2:
    """DINOv2 ViT-L/14: the class token, 1024 numbers, of images resized to 224 pixels.

    Paper: Oquab et al. 2023, arXiv 2304.07193; for a Frechet distance Stein et al. 2023, arXiv 2306.04675.
    Use: for FD-DINOv2, beside or in place of FID, where images are photographs.

    MissingAsset when the weights are nowhere, BadFile when they are not the published ones.
    """
    path = locate(WEIGHTS, weights)
    return DINOv2(Transformer.of(torch.load(path, map_location="cpu", weights_only=True)), torch.device(device))
