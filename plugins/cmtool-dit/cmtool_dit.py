"""``dit``: a small diffusion transformer as a backbone for cmtool.

Cut the image into patches, let them attend to each other, put them back; noise level and class scale, shift and gate
every layer, with gates that start closed. Source: Peebles and Xie 2023, arXiv 2212.09748, section 3.2.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cmtool.errors import UsageError

__all__ = ["DiT", "dit", "positions"]


def positions(width: int, rows: int, columns: int) -> Tensor:
    """Fixed sines and cosines of row and column, [rows * columns, width]; a quarter of the width for each of the four.

    ``sin(p w_k), cos(p w_k)`` with ``w_k = 10000^(-4 k / width)`` along each axis.
    Source: Vaswani et al. 2017, arXiv 1706.03762, section 3.5, which has one axis.
    """
    quarter = width // 4
    frequencies = 10000.0 ** (-torch.arange(quarter) / quarter)
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    angles = torch.cat([row.reshape(-1, 1) * frequencies, column.reshape(-1, 1) * frequencies], dim=1)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def modulate(h: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Normalise the tokens [B, N, W] and give them the scale and shift [B, W] of their image."""
    return F.layer_norm(h, h.shape[-1:]) * (1 + scale[:, None]) + shift[:, None]


class Condition(nn.Module):
    """Noise level and class as one vector [B, W]; the last row of the table is "no class"."""

    waves: Tensor

    def __init__(self, width: int, classes: int, frequencies: int = 16):
        super().__init__()
        # c_noise spans about 4, so waves of 0.5 to 8 rad resolve it and keep the derivative in the level small.
        waves = torch.logspace(math.log2(0.5), math.log2(8.0), frequencies, base=2.0)
        self.register_buffer("waves", waves, persistent=False)
        self.level = nn.Sequential(nn.Linear(2 * frequencies, width), nn.SiLU(), nn.Linear(width, width))
        self.label = nn.Embedding(classes + 1, width) if classes else None

    def forward(self, c_noise: Tensor, labels: Tensor | None) -> Tensor:
        angles = c_noise[:, None] * self.waves
        embedding = self.level(torch.cat([angles.sin(), angles.cos()], dim=1))
        if self.label is not None:
            none = torch.full_like(c_noise, self.label.num_embeddings - 1, dtype=torch.long)
            embedding = embedding + self.label(none if labels is None else torch.where(labels < 0, none, labels))
        return F.silu(embedding)


class Block(nn.Module):
    """adaLN-Zero: ``h <- h + a_1 attend(n_1(h))``, ``h <- h + a_2 mlp(n_2(h))``, ``n_i(h) = norm(h) (1 + g_i) + b_i``.

    The six vectors ``a, b, g`` are linear in the condition and start as zeros, so a new block does nothing.
    """

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, nn.Dropout(dropout)
        self.adaptive = nn.Linear(width, 6 * width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        nn.init.zeros_(self.adaptive.weight)
        nn.init.zeros_(self.adaptive.bias)

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = self.adaptive(condition).chunk(6, dim=1)
        h = h + gate_1[:, None] * self.attend(modulate(h, shift_1, scale_1))
        inner = F.gelu(self.wide(modulate(h, shift_2, scale_2)), approximate="tanh")
        return h + gate_2[:, None] * self.narrow(self.dropout(inner))

    def attend(self, h: Tensor) -> Tensor:
        q, k, v = self.qkv(h).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each [B, heads, N, W / heads]
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class DiT(nn.Module):
    """``net(x [B, C, H, W], c_noise [B], labels [B] or None) -> [B, C, H, W]``; it starts as the zero function."""

    places: Tensor

    def __init__(
        self, shape: tuple[int, ...], classes: int, patch: int, width: int, depth: int, heads: int, dropout: float
    ):
        super().__init__()
        channels, rows, columns = shape
        self.patch, self.rows = patch, rows // patch
        self.condition = Condition(width, classes)
        self.enter = nn.Linear(channels * patch**2, width)
        self.register_buffer("places", positions(width, self.rows, columns // patch), persistent=False)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(depth))
        self.adaptive, self.leave = nn.Linear(width, 2 * width), nn.Linear(width, channels * patch**2)
        for layer in (self.adaptive, self.leave):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        condition = self.condition(c_noise, labels)
        patches = F.pixel_unshuffle(x, self.patch)  # [B, C patch^2, rows, columns]
        h = self.enter(patches.flatten(2).mT) + self.places
        for block in self.blocks:
            h = block(h, condition)
        h = self.leave(modulate(h, *self.adaptive(condition).chunk(2, dim=1)))
        return F.pixel_shuffle(h.mT.unflatten(2, (self.rows, -1)), self.patch)


def dit(
    shape: tuple[int, ...],
    classes: int,
    *,
    patch: int = 4,
    width: int = 192,
    depth: int = 6,
    heads: int = 3,
    dropout: float = 0.0,
) -> nn.Module:
    """A transformer of ``depth`` blocks over patches of ``patch`` x ``patch`` pixels; 4 million weights by default.

    ``shape`` = (C, H, W) with sides that are multiples of ``patch``; ``width`` is a multiple of 4 and of ``heads``.
    """
    if len(shape) != 3:
        raise UsageError(f"dit needs images, and these are points of {shape[0]} numbers", "use the backbone mlp")
    if patch < 1 or shape[1] % patch or shape[2] % patch:
        sides = f"{shape[2]}x{shape[1]}"
        raise UsageError(f"patches of {patch} do not tile images of {sides}", "choose one that does: backbone.patch=2")
    if heads < 1 or width % 4 or width % heads:
        raise UsageError(f"a width of {width} is not a multiple of 4 and of the {heads} heads of dit")
    return DiT(tuple(shape), classes, patch, width, depth, heads, dropout)
