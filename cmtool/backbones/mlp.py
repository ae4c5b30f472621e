"""A residual multilayer perceptron for points, and for anything small enough to be flattened.

Modules keep the names that their weights have in checkpoints.
"""

import math
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cmtool.backbones.shared_options import AugmentDim, Dropout, TargetDim
from cmtool.options.plugin_option import Option
from cmtool.options.types import at_least

__all__ = ["MLP", "SinusoidalEmbedding", "mlp"]


class SinusoidalEmbedding(nn.Module):
    """``c -> (cos w_k c, sin w_k c)`` with ``w_k`` geometric from 0.5 to 8, [B] -> [B, 2 n].

    The frequencies are low on purpose: c_noise spans about 4 (log sigma / 4) or 1.6 (an angle), and the derivative with
    respect to it, which consistency training differentiates through, grows with the highest frequency.
    """

    frequencies: Tensor

    def __init__(self, n: int = 8):
        super().__init__()
        powers = torch.linspace(math.log(0.5), math.log(8.0), n, dtype=torch.float64)
        self.register_buffer("frequencies", powers.exp().float(), persistent=False)

    def forward(self, c: Tensor) -> Tensor:
        angle = c[:, None] * self.frequencies
        return torch.cat([angle.cos(), angle.sin()], dim=1)


def rows(labels: Tensor | None, n: int, table: nn.Embedding) -> Tensor:
    """The indices of rows of an embedding table whose last row is "no class", given as -1 or None."""
    none = table.num_embeddings - 1
    if labels is None:
        return torch.full((n,), none, device=table.weight.device)
    return torch.where(labels < 0, none, labels)


class Block(nn.Module):
    """``h + W_2 drop(silu((1 + a) W_1 h + b))`` with ``a, b`` linear in the embedding of noise level and label."""

    def __init__(self, hidden_dim: int, dropout: float):
        super().__init__()
        self.first, self.second = nn.Linear(hidden_dim, hidden_dim), nn.Linear(hidden_dim, hidden_dim)
        self.modulate = nn.Linear(hidden_dim, 2 * hidden_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        a, b = self.modulate(embedding).chunk(2, dim=1)
        return h + self.second(self.dropout(F.silu((1 + a) * self.first(h) + b)))


class MLP(nn.Module):
    """``net(x [B, *shape], c_noise [B], labels [B], augment_labels [B, A], target [B, T]) -> like x``.

    It starts as the zero function. ``conditions`` are the numbers A and T; of these None is as good as zeros.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        classes: int,
        hidden_dim: int,
        depth: int,
        dropout: float,
        conditions: tuple[int, int] = (0, 0),
    ):
        super().__init__()
        size, frequencies, dim, (augment_dim, target_dim) = math.prod(shape), 8, hidden_dim, conditions
        self.waves = SinusoidalEmbedding(frequencies)
        self.level = nn.Sequential(nn.Linear(2 * frequencies, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.label = nn.Embedding(classes + 1, dim) if classes else None  # the last row is "no class"
        self.map_augment = nn.Linear(augment_dim, dim, bias=False) if augment_dim else None
        self.map_target = nn.Linear(target_dim, dim, bias=False) if target_dim else None
        self.enter = nn.Linear(size, dim)
        self.blocks = nn.ModuleList(Block(dim, dropout) for _ in range(depth))
        self.leave = nn.Linear(dim, size)
        for layer in (self.map_augment, self.map_target):
            if layer is not None:
                nn.init.zeros_(layer.weight)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(
        self,
        x: Tensor,
        c_noise: Tensor,
        labels: Tensor | None = None,
        augment_labels: Tensor | None = None,
        target: Tensor | None = None,
    ) -> Tensor:
        embedding = self.level(self.waves(c_noise))
        if self.label:
            embedding = embedding + self.label(rows(labels, len(x), self.label))
        if self.map_augment is not None and augment_labels is not None:
            embedding = embedding + self.map_augment(augment_labels)
        if self.map_target is not None and target is not None:
            embedding = embedding + self.map_target(target)
        embedding = F.silu(embedding)
        h = self.enter(x.flatten(1))
        for block in self.blocks:
            h = block(h, embedding)
        return self.leave(F.silu(h)).reshape(x.shape)


def mlp(
    shape: tuple[int, ...],
    classes: int,
    *,
    hidden_dim: Annotated[int, Option("features of every layer", at_least(1, 1 << 20))] = 128,
    depth: Annotated[int, Option("residual blocks", at_least(1, 1000))] = 3,
    dropout: Dropout = 0.0,
    augment_dim: AugmentDim = 0,
    target_dim: TargetDim = 0,
) -> MLP:
    """A residual multilayer perceptron for points (D,), and for images of any shape, which it flattens.

    Formula: ``h <- h + W_2 silu((1 + a) W_1 h + b)`` in each block, ``a, b`` linear in the embedding
    Use: for data that are points; for images only where they are tiny.
    """
    return MLP(tuple(shape), classes, hidden_dim, depth, dropout, (augment_dim, target_dim))
