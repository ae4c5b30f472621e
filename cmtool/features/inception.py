"""``inception``: the network and the resizing that FID is defined by."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
from torch import Tensor

from cmtool.assets import Asset, locate
from cmtool.errors import Hint, Setting
from cmtool.features import Features
from cmtool.features.inception_net import InceptionNet
from cmtool.features.inputs import DeviceOption, in_chunks, rgb
from cmtool.features.resizing import ScriptedInception, resize_tensorflow, resizer
from cmtool.options.plugin_option import Option

__all__ = ["MODES", "NETWORKS", "PORT", "TORCHSCRIPT", "Inception", "inception"]

OTHERWISE = Hint(
    "or name its place with {}; {} needs no file, but its distance is no FID",
    Setting("features.weights", "PATH"),
    Setting("features", "small"),
)
TORCHSCRIPT = Asset(
    "inception",
    "inception-2015-12-05.pt",
    95_607_719,
    "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4",
    "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt",
    OTHERWISE,
)
"""FID's network as NVIDIA's TorchScript file, 96 MB.

Paper: Heusel et al. 2017, arXiv 1706.08500.
Use: for FID; clean-fid reads it in its modes clean and legacy_tensorflow.
"""
PORT = Asset(
    "inception-pth",
    "pt_inception-2015-12-05-6726825d.pth",
    95_628_359,
    "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
    OTHERWISE,
    also=("weights-inception-2015-12-05-6726825d.pth",),  # the same bytes, as torch-fidelity calls them
)
"""FID's network as the port to PyTorch of pytorch-fid and torch-fidelity, 96 MB.

Paper: Heusel et al. 2017, arXiv 1706.08500.
Use: for sFID, and for numbers that stand beside those of pytorch-fid and torch-fidelity.
"""
NETWORKS = {"torchscript": TORCHSCRIPT, "pth": PORT}
CHUNK, LARGE = 4, 32  # images a pass, on a processor and on an accelerator
MODES = ("clean", "legacy_pytorch", "legacy_tensorflow")


class Inception(Features):
    """The 2048 pooled features of the Inception network of 2015-12-05.

    ``mode`` is how images are resized to 299 x 299 pixels: ``clean`` (bicubic with an antialiasing filter, in floating
    point), ``legacy_pytorch`` (bilinear, no filter) or ``legacy_tensorflow`` (bilinear between the upper left corners
    of pixels). ``look`` gives more than the features: the probabilities of the Inception Score, and with the network
    ``pth`` the spatial features of sFID; ``further`` names what there is.
    Heusel et al. 2017, arXiv:1706.08500; Parmar, Zhang and Zhu 2022, arXiv:2104.11222.
    """

    name, label, dim = "inception", "FID", 2048

    def __init__(self, network: ScriptedInception | InceptionNet, asset: Asset, mode: str, device: torch.device):
        self.network, self.mode, self.device = network.to(device).eval(), mode, device
        self.resize: Callable[[Tensor], Tensor] = resizer(mode)
        self.further = network.further if isinstance(network, ScriptedInception) else ("probabilities", "spatial")
        self.fingerprint = f"{asset.filename} {asset.sha256[:16]} {mode}"

    def __call__(self, images: Tensor, /) -> Tensor:
        return self.look(images)["features"]

    def look(self, images: Tensor, /) -> dict[str, Tensor]:
        """``features`` float32 [B, 2048], ``probabilities`` [B, 1008], ``spatial`` [B, 2023]; those that there are."""
        size = CHUNK if self.device.type == "cpu" else LARGE
        found = in_chunks(self._some, self.resize(rgb(images, self.name)).to(self.device), size)
        return {key: torch.cat([some[key] for some in found])[: len(images)] for key in found[0]}

    @torch.inference_mode()
    def _some(self, x: Tensor) -> dict[str, Tensor]:
        if isinstance(self.network, ScriptedInception):
            return self.network(x, self.mode == "legacy_tensorflow")
        # clean-fid and pytorch-fid map [0, 255] to [-1, 1], TensorFlow's graph and its other ports do not quite
        x = x / 127.5 - 1 if self.mode == "legacy_pytorch" else (resize_tensorflow(x) - 128) / 128
        return self.network(x)._asdict()


def inception(
    *,
    weights: Annotated[str | None, Option("path of the file of weights; none: where the command fetch puts it")] = None,
    mode: Annotated[str, Option("how images are resized to 299 x 299 pixels", choices=MODES)] = "clean",
    network: Annotated[
        str | None,
        Option("file of the network; none: pth for legacy_pytorch and for weights so called", choices=tuple(NETWORKS)),
    ] = None,
    device: DeviceOption = "cpu",
) -> Inception:
    """The 2048 pooled features of the Inception network of 2015-12-05; the distance is FID.

    Formula: ``FID = |mu_1 - mu_2|^2 + tr(C_1 + C_2 - 2 (C_1 C_2)^(1/2))`` of their means and covariances.
    Paper: Heusel et al. 2017, arXiv 1706.08500; the modes: Parmar, Zhang and Zhu 2022, arXiv 2104.11222.
    Use: for numbers to stand beside published ones, on 10,000 images or better 50,000; --protocol chooses mode and
    network as the tool did whose number it is. Its weights are fetched once: cmtool fetch inception.

    The mode ``clean`` is bicubic with an antialiasing filter, ``legacy_pytorch`` bilinear without one,
    ``legacy_tensorflow`` bilinear between the upper left corners of pixels. ``torchscript`` is NVIDIA's file of the
    network, ``pth`` the port of pytorch-fid and torch-fidelity, in which nothing is run.

    MissingAsset when the weights are nowhere, BadFile when they are not the published ones.
    """
    ported = mode == "legacy_pytorch" or Path(weights or "").suffix == ".pth"
    network = network or ("pth" if ported else "torchscript")
    asset = NETWORKS[network]
    path, where = locate(asset, weights), torch.device(device)
    return Inception(_port(path) if network == "pth" else ScriptedInception(path), asset, mode, where)


def _port(path: Path) -> InceptionNet:
    net = InceptionNet()
    net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return net
