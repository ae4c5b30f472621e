"""``dit``: a small diffusion transformer as a backbone for cmtool.

Cut the image into patches, let them attend to each other, put them back; noise level and class scale, shift and gate
every layer, with gates that start closed. Source: Peebles and Xie 2023, arXiv 2212.09748, section 3.2.
"""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cmtool.backbones.shared_options import AugmentDim, Dropout, PatchSize, TargetDim
from cmtool.errors import UsageError
from cmtool.options.plugin_option import Option
from cmtool.options.types import at_least

__all__ = ["DiT", "dit", "position_embedding"]


def position_embedding(hidden_dim: int, rows: int, columns: int) -> Tensor:
    """Fixed sines and cosines of row and column, [rows * columns, hidden_dim]; a quarter of the features for each.

    ``sin(p w_k), cos(p w_k)`` with ``w_k = 10000^(-4 k / hidden_dim)`` along each axis.
    Source: Vaswani et al. 2017, arXiv 1706.03762, section 3.5, which has one axis.
    """
    quarter = hidden_dim // 4
    frequencies = 10000.0 ** (-torch.arange(quarter) / quarter)
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    angles = torch.cat([row.reshape(-1, 1) * frequencies, column.reshape(-1, 1) * frequencies], dim=1)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def modulate(h: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Normalise the tokens [B, N, D] and give them the scale and shift [B, D] of their image."""
    return F.layer_norm(h, h.shape[-1:]) * (1 + scale[:, None]) + shift[:, None]


class Embedding(nn.Module):
    """Noise level, class and the other conditions as one vector [B, D]; the last row of the table is "no class".

    Augment labels and the target of a flow map's step enter by layers that start as zeros; None is as good as zeros.
    """

    waves: Tensor

    def __init__(self, hidden_dim: int, classes: int, augment_dim: int, target_dim: int, frequencies: int = 16):
        super().__init__()
        # c_noise spans about 4, so waves of 0.5 to 8 rad resolve it and keep the derivative in the level small.
        waves = torch.logspace(math.log2(0.5), math.log2(8.0), frequencies, base=2.0)
        self.register_buffer("waves", waves, persistent=False)
        self.level = nn.Sequential(nn.Linear(2 * frequencies, hidden_dim), nn.SiLU(), nn.Linear(hidden_dim, hidden_dim))
        self.label = nn.Embedding(classes + 1, hidden_dim) if classes else None
        self.map_augment = nn.Linear(augment_dim, hidden_dim, bias=False) if augment_dim else None
        self.map_target = nn.Linear(target_dim, hidden_dim, bias=False) if target_dim else None
        for layer in (self.map_augment, self.map_target):
            if layer is not None:
                nn.init.zeros_(layer.weight)

    def forward(
        self, c_noise: Tensor, labels: Tensor | None, augment_labels: Tensor | None, target: Tensor | None
    ) -> Tensor:
        angles = c_noise[:, None] * self.waves
        embedding = self.level(torch.cat([angles.sin(), angles.cos()], dim=1))
        if self.label is not None:
            none = torch.full_like(c_noise, self.label.num_embeddings - 1, dtype=torch.long)
            embedding = embedding + self.label(none if labels is None else torch.where(labels < 0, none, labels))
        if self.map_augment is not None and augment_labels is not None:
            embedding = embedding + self.map_augment(augment_labels)
        if self.map_target is not None and target is not None:
            embedding = embedding + self.map_target(target)
        return F.silu(embedding)


class Block(nn.Module):
    """adaLN-Zero: ``h <- h + a_1 attend(n_1(h))``, ``h <- h + a_2 mlp(n_2(h))``, ``n_i(h) = norm(h) (1 + g_i) + b_i``.

    The six vectors ``a, b, g`` are linear in the embedding and start as zeros, so a new block does nothing.
    """

    def __init__(self, hidden_dim: int, num_heads: int, dropout: float):
        super().__init__()
        self.num_heads, self.dropout = num_heads, nn.Dropout(dropout)
        self.adaptive = nn.Linear(hidden_dim, 6 * hidden_dim)
        self.qkv, self.out = nn.Linear(hidden_dim, 3 * hidden_dim), nn.Linear(hidden_dim, hidden_dim)
        self.wide, self.narrow = nn.Linear(hidden_dim, 4 * hidden_dim), nn.Linear(4 * hidden_dim, hidden_dim)
        nn.init.zeros_(self.adaptive.weight)
        nn.init.zeros_(self.adaptive.bias)

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = self.adaptive(embedding).chunk(6, dim=1)
        h = h + gate_1[:, None] * self.attend(modulate(h, shift_1, scale_1))
        inner = F.gelu(self.wide(modulate(h, shift_2, scale_2)), approximate="tanh")
        return h + gate_2[:, None] * self.narrow(self.dropout(inner))

    def attend(self, h: Tensor) -> Tensor:
        """Self-attention of the tokens [B, N, D]."""
        q, k, v = self.qkv(h).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)  # each [B, heads, N, d]
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


@dataclass(frozen=True)
class DiTConfig:
    """The size of a network for images of one ``shape``."""

    shape: tuple[int, int, int]
    classes: int
    patch_size: int
    hidden_dim: int
    depth: int
    num_heads: int
    dropout: float
    augment_dim: int
    target_dim: int


class DiT(nn.Module):
    """``net(x [B, C, H, W], c_noise [B], labels [B], augment_labels [B, A], target [B, T]) -> [B, C, H, W]``.

    It starts as the zero function.
    """

    positions: Tensor

    def __init__(self, config: DiTConfig):
        super().__init__()
        (channels, rows, columns), patch_size, dim = config.shape, config.patch_size, config.hidden_dim
        pixels = channels * patch_size**2
        self.patch_size, self.rows = patch_size, rows // patch_size
        self.condition = Embedding(dim, config.classes, config.augment_dim, config.target_dim)
        self.enter = nn.Linear(pixels, dim)
        self.register_buffer("positions", position_embedding(dim, self.rows, columns // patch_size), persistent=False)
        self.blocks = nn.ModuleList(Block(dim, config.num_heads, config.dropout) for _ in range(config.depth))
        self.adaptive, self.leave = nn.Linear(dim, 2 * dim), nn.Linear(dim, pixels)
        for layer in (self.adaptive, self.leave):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self,
        x: Tensor,
        c_noise: Tensor,
        labels: Tensor | None = None,
        augment_labels: Tensor | None = None,
        target: Tensor | None = None,
    ) -> Tensor:
        embedding = self.condition(c_noise, labels, augment_labels, target)
        patches = F.pixel_unshuffle(x, self.patch_size)  # [B, C patch_size^2, rows, columns]
        h = self.enter(patches.flatten(2).mT) + self.positions
        for block in self.blocks:
            h = block(h, embedding)
        h = self.leave(modulate(h, *self.adaptive(embedding).chunk(2, dim=1)))
        return F.pixel_shuffle(h.mT.unflatten(2, (self.rows, -1)), self.patch_size)


def dit(
    shape: tuple[int, ...],
    classes: int,
    *,
    patch_size: PatchSize = 4,
    hidden_dim: Annotated[int, Option("features of a token, a multiple of 4 and of num_heads", at_least(4))] = 192,
    depth: Annotated[int, Option("transformer blocks", at_least(1, 1000))] = 6,
    num_heads: Annotated[int, Option("attention heads", at_least(1))] = 3,
    dropout: Dropout = 0.0,
    augment_dim: AugmentDim = 0,
    target_dim: TargetDim = 0,
) -> DiT:
    """A small diffusion transformer over patches, for images whose sides are multiples of ``patch_size``.

    Formula: ``h <- h + a_1 attend(n_1(h))``, ``h <- h + a_2 mlp(n_2(h))`` in each block (adaLN-Zero)
    Paper: Peebles and Xie 2023, arXiv 2212.09748, section 3.2.
    Use: in place of a U-Net where attention over the whole image pays; 4 million parameters without options.
    """
    if len(shape) != 3:
        raise UsageError(f"dit needs images, and these are points of {shape[0]} numbers", "use the backbone mlp")
    channels, rows, columns = shape
    if rows % patch_size or columns % patch_size:
        raise UsageError(
            f"patches of {patch_size} do not tile images of {columns}x{rows}",
            "choose a size that does: backbone.patch_size=2",
        )
    if hidden_dim % 4 or hidden_dim % num_heads:
        raise UsageError(f"a hidden_dim of {hidden_dim} is not a multiple of 4 and of the {num_heads} heads of dit")
    stack = patch_size, hidden_dim, depth, num_heads, dropout, augment_dim, target_dim
    return DiT(DiTConfig((channels, rows, columns), classes, *stack))
