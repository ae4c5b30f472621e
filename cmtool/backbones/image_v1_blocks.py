"""The blocks of k-diffusion's U-Net, under the names of its weights.

A group is 32 channels and a head 64; where there are fewer channels than that, there is one. The sum of a block and its
skip connection is not rescaled: each of them begins as the identity.
"""

import math
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Attention", "Block", "Resize", "zero"]

GROUP, HEAD = 32, 64
TAPS = (1.0, 3.0, 3.0, 1.0)  # of linear interpolation, at half the side and at twice
M = TypeVar("M", bound=nn.Module)


class AdaGN(nn.Module):
    """A group norm that is scaled and shifted by the conditioning, ``(1 + a) norm(x) + b``."""

    def __init__(self, channels: int, mapping_dim: int):
        super().__init__()
        self.groups = max(1, channels // GROUP)
        self.mapper = zero(nn.Linear(mapping_dim, 2 * channels))

    def forward(self, x: Tensor, conditioning: Tensor) -> Tensor:
        scale, shift = self.mapper(conditioning)[:, :, None, None].chunk(2, 1)
        return F.group_norm(x, self.groups) * (1 + scale) + shift


class Block(nn.Module):
    """Twice norm, GELU, convolution and dropout of whole channels; and a skip connection."""

    def __init__(self, inputs: int, inner: int, outputs: int, mapping_dim: int, dropout: float):
        super().__init__()
        self.dropout = dropout
        parts = {
            "0": AdaGN(inputs, mapping_dim),
            "2": nn.Conv2d(inputs, inner, 3, padding=1),
            "4": AdaGN(inner, mapping_dim),
            "6": zero(nn.Conv2d(inner, outputs, 3, padding=1)),
        }
        self.main = nn.ModuleDict(parts)  # the numbers between belong to parts without weights
        self.skip = nn.Conv2d(inputs, outputs, 1, bias=False) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, conditioning: Tensor) -> Tensor:
        h = x
        for norm, convolve in (("0", "2"), ("4", "6")):
            h = self.main[convolve](F.gelu(self.main[norm](h, conditioning)))
            h = F.dropout2d(h, self.dropout, self.training)
        return self.skip(x) + h


class Attention(nn.Module):
    """Self-attention of all positions; written out, since the fused kernels have no forward-mode derivative."""

    def __init__(self, channels: int, mapping_dim: int, dropout: float):
        super().__init__()
        self.num_heads, self.dropout = max(1, channels // HEAD), dropout
        self.norm_in = AdaGN(channels, mapping_dim)
        self.qkv_proj = nn.Conv2d(channels, 3 * channels, 1)
        self.out_proj = zero(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor, conditioning: Tensor) -> Tensor:
        qkv = self.qkv_proj(self.norm_in(x, conditioning)).flatten(2).unflatten(1, (3, self.num_heads, -1))
        q, k, v = qkv.unbind(1)  # [B, heads, d, N]
        weights = torch.softmax(q.transpose(-1, -2) @ k / math.sqrt(q.shape[-2]), -1)
        # k-diffusion also drops weights when it samples; its networks were trained for the mean, which this is.
        weights = F.dropout(weights, self.dropout, self.training)
        return x + self.out_proj((v @ weights.transpose(-1, -2)).flatten(1, 2).view_as(x))


class Resize(nn.Module):
    """Half the side or twice, by linear interpolation of the image and of its reflection around it."""

    kernel: Tensor

    def __init__(self, up: bool):
        super().__init__()
        self.up, line = up, torch.tensor(TAPS) / sum(TAPS) * (2 if up else 1)
        self.register_buffer("kernel", torch.outer(line, line))

    def forward(self, x: Tensor, conditioning: Tensor) -> Tensor:
        n = x.shape[1]
        x, taps = F.pad(x, (1, 1, 1, 1), "reflect"), self.kernel.to(x).expand(n, 1, -1, -1)
        if self.up:
            return F.conv_transpose2d(x, taps, stride=2, padding=3, groups=n)
        return F.conv2d(x, taps, stride=2, groups=n)


def zero(module: M) -> M:
    """The layer with all parameters 0."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module
