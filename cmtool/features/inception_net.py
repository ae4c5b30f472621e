"""The Inception network of FID in plain torch, under the names of the ``.pth`` port of its weights."""

from functools import partial, reduce
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["CLASSES", "InceptionNet", "InceptionOutputs"]

POOLS = {
    "average": partial(F.avg_pool2d, kernel_size=3, stride=1, padding=1, count_include_pad=False),
    "largest": partial(F.max_pool2d, kernel_size=3, stride=1, padding=1),
    "halved": partial(F.max_pool2d, kernel_size=3, stride=2),
}
CLASSES, SPATIAL = 1008, 7  # of a layer of 17 x 17 pixels, sFID looks at the first 7 channels


class Conv(nn.Module):
    """Convolution without a bias, batch normalisation, ReLU."""

    def __init__(self, inputs: int, outputs: int, high: int, wide: int, stride: int = 1, padded: bool = True):
        super().__init__()
        padding = (high // 2, wide // 2) if padded and stride == 1 else (0, 0)
        self.conv = nn.Conv2d(inputs, outputs, (high, wide), stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class Mixed(nn.Module):
    """Branches side by side, whose channels are put one behind another.

    A branch is a list of steps: a pool by its name, or a convolution ``(name, outputs, height, width[, stride])``, and
    at its end perhaps a set of convolutions that all take the same input.
    """

    def __init__(self, inputs: int, *branches: list):
        super().__init__()
        self.branches = [[self._names(step) for step in branch] for branch in branches]
        for branch in branches:
            width = inputs
            for step in branch:
                for name, *size in _convolutions(step):
                    self.add_module(f"branch{name}", Conv(width, *size))
                width = width if isinstance(step, str) else _convolutions(step)[0][1]

    @staticmethod
    def _names(step) -> list[str]:
        return [step] if isinstance(step, str) else [f"branch{name}" for name, *_ in _convolutions(step)]

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([reduce(self._take, branch, x) for branch in self.branches], dim=1)

    def _take(self, x: Tensor, names: list[str]) -> Tensor:
        parts = [POOLS[name](x) if name in POOLS else self.get_submodule(name)(x) for name in names]
        return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]


def _convolutions(step) -> list[tuple]:
    return [] if isinstance(step, str) else step if isinstance(step, list) else [step]


def fine(inputs: int, pooled: int) -> Mixed:
    """35 x 35 pixels."""
    double = [("3x3dbl_1", 64, 1, 1), ("3x3dbl_2", 96, 3, 3), ("3x3dbl_3", 96, 3, 3)]
    five = [("5x5_1", 48, 1, 1), ("5x5_2", 64, 5, 5)]
    return Mixed(inputs, [("1x1", 64, 1, 1)], five, double, ["average", ("_pool", pooled, 1, 1)])


def fine_to_middle() -> Mixed:
    double = [("3x3dbl_1", 64, 1, 1), ("3x3dbl_2", 96, 3, 3), ("3x3dbl_3", 96, 3, 3, 2)]
    return Mixed(288, [("3x3", 384, 3, 3, 2)], double, ["halved"])


def middle(width: int) -> Mixed:
    """17 x 17 pixels; a square kernel is taken as a row and a column."""
    seven = [("7x7_1", width, 1, 1), ("7x7_2", width, 1, 7), ("7x7_3", 192, 7, 1)]
    shapes = ((width, 1, 1), (width, 7, 1), (width, 1, 7), (width, 7, 1), (192, 1, 7))
    double = [(f"7x7dbl_{i}", *shape) for i, shape in enumerate(shapes, 1)]
    return Mixed(768, [("1x1", 192, 1, 1)], seven, double, ["average", ("_pool", 192, 1, 1)])


def middle_to_coarse() -> Mixed:
    three = [("3x3_1", 192, 1, 1), ("3x3_2", 320, 3, 3, 2)]
    seven = [("7x7x3_1", 192, 1, 1), ("7x7x3_2", 192, 1, 7), ("7x7x3_3", 192, 7, 1), ("7x7x3_4", 192, 3, 3, 2)]
    return Mixed(768, three, seven, ["halved"])


def coarse(inputs: int, pool: str) -> Mixed:
    """8 x 8 pixels."""
    three = [("3x3_1", 384, 1, 1), [("3x3_2a", 384, 1, 3), ("3x3_2b", 384, 3, 1)]]
    ends = [("3x3dbl_3a", 384, 1, 3), ("3x3dbl_3b", 384, 3, 1)]
    double = [("3x3dbl_1", 448, 1, 1), ("3x3dbl_2", 384, 3, 3), ends]
    return Mixed(inputs, [("1x1", 320, 1, 1)], three, double, [pool, ("_pool", 192, 1, 1)])


class InceptionOutputs(NamedTuple):
    """What the network says of images: pooled features [B, 2048], probabilities [B, 1008], spatial features [B, 2023].

    The probabilities leave out the bias of the last layer, as the Inception Score does; the spatial features are
    ordered (row, column, channel), as guided-diffusion's.
    """

    features: Tensor
    probabilities: Tensor
    spatial: Tensor


class InceptionNet(nn.Module):
    """float32 [B, 3, 299, 299] in [-1, 1] -> ``InceptionOutputs``.

    Szegedy et al. 2015, arXiv:1512.00567, as the TensorFlow file of 2015-12-05 has it: 1008 classes, averages that do
    not count the padding, and a maximum instead of the average in the last block.
    """

    def __init__(self):
        super().__init__()
        self.Conv2d_1a_3x3, self.Conv2d_2a_3x3 = Conv(3, 32, 3, 3, 2), Conv(32, 32, 3, 3, padded=False)
        self.Conv2d_2b_3x3, self.Conv2d_3b_1x1 = Conv(32, 64, 3, 3), Conv(64, 80, 1, 1)
        self.Conv2d_4a_3x3 = Conv(80, 192, 3, 3, padded=False)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = fine(192, 32), fine(256, 64), fine(288, 64)
        self.Mixed_6a = fine_to_middle()
        self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e = (middle(w) for w in (128, 160, 160, 192))
        self.Mixed_7a = middle_to_coarse()
        self.Mixed_7b, self.Mixed_7c = coarse(1280, "average"), coarse(2048, "largest")
        self.fc = nn.Linear(2048, CLASSES)

    def forward(self, x: Tensor) -> InceptionOutputs:
        x = POOLS["halved"](self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))))
        x = POOLS["halved"](self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)))
        x = self.Mixed_6a(self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x))))
        x = self.Mixed_6c(self.Mixed_6b(x))
        spatial = self.Mixed_6d.get_submodule("branch1x1")(x)[:, :SPATIAL].permute(0, 2, 3, 1).flatten(1)
        x = self.Mixed_6e(self.Mixed_6d(x))
        features = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x))).mean(dim=(2, 3))
        return InceptionOutputs(features, F.linear(features, self.fc.weight).softmax(1), spatial)
