"""``small``: the features of a network that comes with the package, for use without a download."""

import hashlib
from pathlib import Path

import torch
from safetensors.torch import load
from torch import Tensor, nn

from cmtool.errors import BadFile
from cmtool.features import Features
from cmtool.features.inputs import DeviceOption, in_chunks, rgb

__all__ = ["SHA256", "WEIGHTS", "Net", "Small", "small"]

WEIGHTS = Path(__file__).with_name("small.safetensors")
SHA256 = "8a4b06255ef22bb621ffce0f0cd5cce9c13f4808058c80113cc1cd7f6c6d12ff"
SIDE = 32
CHUNK = 8  # images a pass, which fit into the cache of a processor


class Net(nn.Module):
    """[B, 3, 32, 32] in [-1, 1] -> [B, 64]: 24 averages of fine texture and 40 of what the whole picture shows."""

    def __init__(self):
        super().__init__()
        self.fine = nn.Sequential(*_layer(3, 24), *_layer(24, 32, 2))
        self.coarse = nn.Sequential(*_layer(32, 64, 2), *_layer(64, 64), *_layer(64, 96, 2))
        self.texture, self.content = nn.Linear(32, 24), nn.Linear(96, 40)

    def pooled(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The averages [B, 32] and [B, 96] of the fine and the coarse activations."""
        fine = self.fine(x)
        return fine.mean(dim=(2, 3)), self.coarse(fine).mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        fine, coarse = self.pooled(x)
        return torch.cat([self.texture(fine), self.content(coarse)], dim=1)


def _layer(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, stride, padding=1), nn.LeakyReLU(0.1)]


class Small(Features):
    """64 features of images of any size, resized to 32 x 32: uncorrelated and of unit variance on the training images.

    ``train_small`` trained the network on the data sets digits and shapes to tell what a picture shows and how it is
    damaged. Called on uint8 [B, 1 or 3, H, W], it gives float32 [B, 64]; UsageError for points.
    """

    name, label, dim = "small", "FD-small", 64
    fingerprint = f"small {SHA256[:16]}"

    def __init__(self, net: Net, device: torch.device):
        self.net, self.device = net.to(device).to(memory_format=torch.channels_last).eval(), device

    def __call__(self, images: Tensor, /) -> Tensor:
        return torch.cat(in_chunks(self._some, rgb(images, self.name), CHUNK))[: len(images)]

    @torch.inference_mode()
    def _some(self, images: Tensor) -> Tensor:
        x = images.to(self.device).float()
        if x.shape[-2:] != (SIDE, SIDE):
            x = nn.functional.interpolate(x, [SIDE, SIDE], mode="bilinear", antialias=True)
        return self.net((x / 127.5 - 1).contiguous(memory_format=torch.channels_last))


def small(*, device: DeviceOption = "cpu") -> Small:
    """64 features of a small convolutional network that comes with the package; the distance is called FD-small.

    Formula: ``FD = |mu_1 - mu_2|^2 + tr(C_1 + C_2 - 2 (C_1 C_2)^(1/2))`` of their means and covariances.
    Use: to compare models of digits, shapes and other images of up to 32 x 32 pixels without a download. It ranks your
    own models; it says nothing beside a published FID.

    BadFile when the file of its weights is not the one that came with the package.
    """
    contents = WEIGHTS.read_bytes()
    if hashlib.sha256(contents).hexdigest() != SHA256:
        raise BadFile(f"{WEIGHTS} is damaged", "install cmtool again")
    net = Net()
    net.load_state_dict(load(contents))
    return Small(net, torch.device(device))
