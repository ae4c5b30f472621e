"""A perceptual distance of two images: LPIPS (Zhang et al. 2018, arXiv 1801.03924)."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cmtool.assets import Asset, locate
from cmtool.errors import Hint, Setting, UsageError
from cmtool.options.plugin_option import Option

__all__ = ["LINEAR", "LPIPS", "VGG16", "lpips", "lpips_max"]

OTHERWISE = Hint("{} needs no file", Setting("method.metric", "pseudo-huber"))
VGG16 = Asset(
    "vgg16",
    "vgg16-397923af.pth",
    553_433_881,
    "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
    "https://download.pytorch.org/models/vgg16-397923af.pth",
    OTHERWISE,
)
"""The network VGG16 of torchvision, 553 MB.

Use: for the distances lpips and lpips-max, beside lpips-vgg.
"""
LINEAR = Asset(
    "lpips-vgg",
    "lpips-vgg-v0.1.pth",
    7_289,
    "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
    "https://github.com/richzhang/PerceptualSimilarity/raw/master/lpips/weights/v0.1/vgg.pth",
    OTHERWISE,
)
"""The weights of LPIPS for the features of VGG16, 7 kB.

Paper: Zhang et al. 2018, arXiv 1801.03924.
Use: for the distances lpips and lpips-max, beside vgg16.
"""

# The convolutions of each block by their number in the file; what a block ends with is relu1_2, ..., relu5_3.
BLOCKS = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pixels on [0, 1]
POOLS = {"average": F.avg_pool2d, "max": F.max_pool2d}


class LPIPS(nn.Module):
    """``sum_l mean_hw sum_c w_lc (f_l(a) - f_l(b))^2`` of two batches [B, 1 or 3, H, W] in [-1, 1], one number each.

    ``f_l`` are VGG16's features relu1_2, relu2_2, relu3_3, relu4_3 and relu5_3, at each pixel divided by their norm
    over the channels, and ``w_l >= 0`` the published linear weights. ``pool`` is what lies between the blocks, "max"
    or "average"; ``resize`` brings images whose width is below 256 to 224 x 224 (bilinear) first. In float32, whatever
    the precision of the run. The weights are buffers that go to no checkpoint.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, trunk: Mapping[str, Tensor], linear: Mapping[str, Tensor], pool: str, resize: bool):
        super().__init__()
        self.pool, self.resize = POOLS[pool], resize
        keep = partial(self.register_buffer, persistent=False)
        for i in sum(BLOCKS, ()):
            keep(f"weight{i}", trunk[f"features.{i}.weight"])
            keep(f"bias{i}", trunk[f"features.{i}.bias"])
        for i in range(len(BLOCKS)):
            keep(f"linear{i}", linear[f"lin{i}.model.1.weight"])
        keep("shift", 2 * torch.tensor(MEAN).reshape(3, 1, 1) - 1)
        keep("scale", 2 * torch.tensor(STD).reshape(3, 1, 1))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        with torch.autocast(a.device.type, enabled=False):
            pairs = zip(self.features(a), self.features(b), strict=True)
            parts = [F.conv2d((f - g).square(), self.get_buffer(f"linear{i}")) for i, (f, g) in enumerate(pairs)]
            return torch.stack([part.flatten(1).mean(1) for part in parts]).sum(0)

    def features(self, images: Tensor) -> Iterator[Tensor]:
        """The five maps, each of unit norm at every pixel."""
        h = (self._resize(images) - self.shift) / self.scale
        for i, block in enumerate(BLOCKS):
            h = self.pool(h, 2) if i else h
            for j in block:
                h = F.relu(F.conv2d(h, self.get_buffer(f"weight{j}"), self.get_buffer(f"bias{j}"), padding=1))
            # vector_norm, unlike the root of a sum, has a gradient where no feature is alive
            yield h / (torch.linalg.vector_norm(h, dim=1, keepdim=True) + 1e-10)

    def _resize(self, images: Tensor) -> Tensor:
        if images.ndim != 4 or images.shape[1] not in (1, 3):
            shape = "x".join(map(str, images.shape[1:]))
            raise UsageError(f"LPIPS compares grey or colour images, not data of shape {shape}", OTHERWISE)
        if min(images.shape[2:]) < 16 and not self.resize:
            raise UsageError("LPIPS without resizing needs 16 pixels a side", "the metric 'lpips' resizes")
        colour = images.to(self.shift).expand(-1, 3, -1, -1)
        small = self.resize and colour.shape[-1] < 256
        return F.interpolate(colour, size=(224, 224), mode="bilinear") if small else colour


PoolOption = Annotated[str, Option("what lies between the blocks of the network", choices=tuple(POOLS))]
ResizeOption = Annotated[bool, Option("bring images whose width is below 256 to 224 x 224 first")]


def lpips(*, pool: PoolOption = "average", resize: ResizeOption = True) -> LPIPS:
    """LPIPS as OpenAI train consistency models: features of VGG16, of images brought to 224 x 224.

    Formula: ``sum_l mean_hw sum_c w_lc (f_l(a) - f_l(b))^2``, f_l the normalized features of five layers
    Paper: Zhang et al. 2018, arXiv 1801.03924.
    Use: as the metric of 'cd', 'ct', 'cmt' and their relatives on images of natural scenes, as their authors do.

    MissingAsset when a file of weights is nowhere, BadFile when it is not the published one.
    """
    trunk, linear = (torch.load(locate(asset), map_location="cpu", weights_only=True) for asset in (VGG16, LINEAR))
    return LPIPS(trunk, linear, pool, resize)


def lpips_max(*, pool: PoolOption = "max", resize: ResizeOption = False) -> LPIPS:
    """LPIPS as it is reported: with maxima between the blocks, of images as large as they are.

    Formula: that of 'lpips'
    Paper: Zhang et al. 2018, arXiv 1801.03924.
    Use: to compare with numbers of others; images need 16 pixels a side.
    """
    return lpips(pool=pool, resize=resize)
