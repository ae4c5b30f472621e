"""The blocks of the U-Net of Dhariwal and Nichol 2021, arXiv 2105.05233, under the names of the published weights."""

from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["QKV", "Attention", "Block", "Down", "Layout", "Norm", "Up", "zero"]

M = TypeVar("M", bound=nn.Module)


class Layout(NamedTuple):
    """How queries, keys and values share the rows of one weight, and over how many axes it is stored to convolve."""

    rows: tuple[str, str, str]
    axes: int


QKV = {
    "flash": Layout(("three", "head", "dim"), 2),
    "new": Layout(("three", "head", "dim"), 1),
    "legacy": Layout(("head", "three", "dim"), 1),
}


class Norm(nn.GroupNorm):
    """32 groups, added up in the precision of its weights, which is float32 also where the image is in float16."""

    def __init__(self, channels: int):
        super().__init__(32, channels)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.to(self.weight.dtype)).to(input.dtype)


class Block(nn.Module):
    """Two convolutions and a skip connection; the embedding is added between them, or scales and shifts there."""

    def __init__(
        self, inputs: int, outputs: int, embedding: int, dropout: float, scale_shift: bool = True, resize: str = ""
    ):
        super().__init__()
        self.scale_shift = scale_shift
        self.resize = RESIZE[resize]
        self.in_layers = nn.Sequential(Norm(inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1))
        # Its activation is the same in all blocks and is done once, outside; Identity keeps the names of the weights.
        self.emb_layers = nn.Sequential(nn.Identity(), nn.Linear(embedding, (1 + scale_shift) * outputs))
        last = zero(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.out_layers = nn.Sequential(Norm(outputs), nn.SiLU(), nn.Dropout(dropout), last)
        self.skip_connection = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        norm, activate, convolve = self.in_layers
        h = convolve(self.resize(activate(norm(x))))
        conditioning = self.emb_layers(embedding)[:, :, None, None].to(h.dtype)
        norm, *rest = self.out_layers
        if self.scale_shift:
            scale, shift = conditioning.chunk(2, 1)
            h = norm(h) * (1 + scale) + shift
        else:
            h = norm(h + conditioning)
        for layer in rest:
            h = layer(h)
        return self.skip_connection(self.resize(x)) + h


class Attention(nn.Module):
    """Self-attention of all positions; written out, since the fused kernels have no forward-mode derivative."""

    def __init__(self, channels: int, num_heads: int, qkv: str):
        super().__init__()
        self.layout, self.num_heads = QKV[qkv], num_heads
        convolution = nn.Conv2d if self.layout.axes == 2 else nn.Conv1d
        self.norm = Norm(channels)
        self.qkv = convolution(channels, 3 * channels, 1)
        self.proj_out = zero(convolution(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        rows = self.qkv(self.to_layout(self.norm(x))).flatten(2)
        sizes = {"three": 3, "head": self.num_heads, "dim": -1}
        parts = rows.unflatten(1, [sizes[name] for name in self.layout.rows])
        q, k, v = parts.unbind(1 + self.layout.rows.index("three"))  # [B, heads, d, N]
        scale = q.shape[2] ** -0.25  # of both, so that float16 holds their product
        scores = (q * scale).transpose(2, 3) @ (k * scale)
        weights = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(v.dtype)
        out = (v @ weights.transpose(2, 3)).reshape(x.shape)
        return x + self.proj_out(self.to_layout(out)).reshape(x.shape)

    def to_layout(self, x: Tensor) -> Tensor:
        """[B, C, H, W], or [B, C, H W] for weights that convolve over a line."""
        return x if self.layout.axes == 2 else x.flatten(2)


class Down(nn.Module):
    """Half the side, by a convolution of stride 2, or by means of 2x2 pixels."""

    def __init__(self, channels: int, convolves: bool = True):
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1) if convolves else nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class Up(nn.Module):
    """Twice the side, by repetition and, where it ``convolves``, a convolution."""

    def __init__(self, channels: int, convolves: bool = True):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1) if convolves else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(upsample(x))


def upsample(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def downsample(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 2)


def unchanged(x: Tensor) -> Tensor:
    return x


RESIZE = {"": unchanged, "down": downsample, "up": upsample}


def zero(module: M) -> M:
    """The layer with all parameters 0, so that a deep network starts as the identity."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module
