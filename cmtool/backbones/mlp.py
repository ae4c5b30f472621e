"""A residual multilayer perceptron for points, and for anything small enough to be flattened."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cmtool.errors import UsageError

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
    """The rows of an embedding table whose last one is "no class", asked for by -1 or by None."""
    none = table.num_embeddings - 1
    if labels is None:
        return torch.full((n,), none, device=table.weight.device)
    return torch.where(labels < 0, none, labels)


class Block(nn.Module):
    """``h + W_2 drop(silu((1 + a) W_1 h + b))`` with ``a, b`` linear in the embedding of level and label."""

    def __init__(self, width: int, dropout: float):
        super().__init__()
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)
        self.modulate = nn.Linear(width, 2 * width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        a, b = self.modulate(embedding).chunk(2, dim=1)
        return h + self.second(self.dropout(F.silu((1 + a) * self.first(h) + b)))


class MLP(nn.Module):
    """``net(x [B, *shape], c_noise [B], labels [B] or None) -> [B, *shape]``; it starts as the zero function.

    ``augment_labels`` [B, A] say how a training image was augmented, ``target`` [B, T] to which noise level a step of a
    flow map leads; none are as good as zeros. ``conditions`` are the numbers A and T.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        classes: int,
        width: int,
        depth: int,
        dropout: float,
        conditions: tuple[int, int] = (0, 0),
    ):
        super().__init__()
        size, waves, (augment_dim, target_dim) = math.prod(shape), 8, conditions
        self.waves = SinusoidalEmbedding(waves)
        self.level = nn.Sequential(nn.Linear(2 * waves, width), nn.SiLU(), nn.Linear(width, width))
        self.label = nn.Embedding(classes + 1, width) if classes else None  # the last row is "no class"
        self.map_augment = nn.Linear(augment_dim, width, bias=False) if augment_dim else None
        self.map_target = nn.Linear(target_dim, width, bias=False) if target_dim else None
        self.enter = nn.Linear(size, width)
        self.blocks = nn.ModuleList(Block(width, dropout) for _ in range(depth))
        self.leave = nn.Linear(width, size)
        for condition in (self.map_augment, self.map_target):
            if condition:
                nn.init.zeros_(condition.weight)
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
        if self.map_augment and augment_labels is not None:
            embedding = embedding + self.map_augment(augment_labels)
        if self.map_target and target is not None:
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
    width: int = 128,
    depth: int = 3,
    dropout: float = 0.0,
    augment_dim: int = 0,
    target_dim: int = 0,
) -> nn.Module:
    """A residual MLP of ``depth`` blocks for points ``(D,)``, and for images of any shape, which it flattens.

    ``augment_dim`` numbers may say how a training image was augmented, ``target_dim`` where a step of a flow map ends.
    """
    if width < 1 or depth < 1 or not 0 <= dropout < 1:
        raise UsageError("mlp needs a width and a depth of 1 or more, and a dropout from 0 to below 1")
    return MLP(tuple(shape), classes, width, depth, dropout, (augment_dim, target_dim))
