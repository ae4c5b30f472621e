"""``inception``: the network and the resizing that FID is defined by, as clean-fid has them."""

import contextlib
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from cmtool.assets import Asset, locate
from cmtool.errors import unknown
from cmtool.features.rgb import rgb

__all__ = ["INCEPTION", "MODES", "Inception", "inception", "resizer"]

INCEPTION = Asset(
    "inception-2015-12-05.pt",
    95_607_719,
    "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4",
    "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt",
    "or name its place with --set features.weights=PATH; --features small needs no file, but its distance is no FID",
)
MODES = ("clean", "legacy_pytorch", "legacy_tensorflow")


class Inception:
    """The 2048 pooled features of the Inception network of 2015-12-05.

    ``mode`` is the way images reach its 299 x 299 pixels: ``clean`` (bicubic with an antialiasing filter, in floating
    point), ``legacy_pytorch`` (bilinear, no filter) or ``legacy_tensorflow`` (the network's own). All three use one
    set of weights; clean-fid's ``legacy_pytorch`` reads a port of them, so its numbers differ in the last digits.
    Heusel et al. 2017, arXiv:1706.08500; Parmar, Zhang and Zhu 2022, arXiv:2104.11222.
    """

    name, label, dim = "inception", "FID", 2048

    def __init__(self, network: nn.Module, mode: str, device: torch.device):
        self.network, self.device = network.to(device), device
        self.resize = resizer(mode)
        self.fingerprint = f"{INCEPTION.filename} {INCEPTION.sha256[:16]} {mode}"

    @torch.inference_mode()
    def __call__(self, images: Tensor, /) -> Tensor:
        return self.network(self.resize(rgb(images, self.name)).to(self.device)).float()


def inception(*, weights: str | None = None, mode: str = "clean", device: str = "cpu") -> Inception:
    """FID's features; ``weights`` is the path of ``inception-2015-12-05.pt`` where it is in none of the usual folders.

    MissingAsset when the weights are nowhere, BadFile when they are not the published ones.
    """
    if mode not in MODES:
        raise unknown("mode of the features 'inception'", mode, MODES)
    return Inception(_network(locate(INCEPTION, weights), mode), mode, torch.device(device))


def resizer(mode: str) -> Callable[[Tensor], Tensor]:
    """uint8 [B, 3, H, W] -> float32 in [0, 255], [B, 3, 299, 299] or, where the network resizes, [B, 3, H, W]."""
    with _quiet():
        from cleanfid.resize import build_resizer

        one = build_resizer(mode)

    def resize(images: Tensor) -> Tensor:
        rows = [one(image) for image in images.permute(0, 2, 3, 1).contiguous().cpu().numpy()]
        return torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2).float()

    return resize


def _network(path: Path, mode: str) -> nn.Module:
    """clean-fid's wrapper around the verified file, for which it wants a folder and the published name."""
    with tempfile.TemporaryDirectory() as folder, _quiet():
        from cleanfid.inception_torchscript import InceptionV3W

        (Path(folder) / INCEPTION.filename).symlink_to(path.resolve())
        return InceptionV3W(folder, download=False, resize_inside=mode == "legacy_tensorflow").eval()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """clean-fid prints to standard output and silences every warning for good, and TorchScript is deprecated."""
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
