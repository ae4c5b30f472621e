"""How images reach the size of the Inception network, and NVIDIA's TorchScript file of that network."""

import contextlib
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cmtool.features.inception_net import CLASSES

__all__ = ["SIDE", "ScriptedInception", "quiet", "resize_tensorflow", "resizer"]


SIDE = 299


def resizer(mode: str) -> Callable[[Tensor], Tensor]:
    """uint8 [B, 3, H, W] -> float32 in [0, 255], [B, 3, 299, 299] or, where the network resizes, [B, 3, H, W]."""
    with quiet():
        from cleanfid.resize import build_resizer

        one = build_resizer(mode)

    def resize(images: Tensor) -> Tensor:
        rows = [one(image) for image in images.permute(0, 2, 3, 1).contiguous().cpu().numpy()]
        return torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2).float()

    return resize


def resize_tensorflow(x: Tensor, side: int = SIDE) -> Tensor:
    """[B, C, H, W] -> [B, C, side, side], bilinear between the upper left corners of pixels, as TensorFlow 1 resizes.

    Output pixel i lies at ``i H / side`` of the input, and beyond its last pixel nothing changes.
    """
    return _along(_along(x, 2, side), 3, side)


def _along(x: Tensor, dim: int, side: int) -> Tensor:
    size = x.shape[dim]
    if size == side:
        return x
    place = torch.arange(side, device=x.device, dtype=torch.float32) * (size / side)
    low = place.long().clamp(max=size - 1)
    share = (place - low).view(-1, *[1] * (x.ndim - 1 - dim))
    a, b = x.index_select(dim, low), x.index_select(dim, (low + 1).clamp(max=size - 1))
    return a + (b - a) * share


class ScriptedInception(nn.Module):
    """``net(x in [0, 255], resize)``: features [B, 2048] and, where the file has the last layer, probabilities.

    ``x`` is [B, 3, 299, 299]; with ``resize`` it is of any size and the file resizes as TensorFlow did. The
    probabilities leave out the bias of the last layer, as the Inception Score does.
    """

    def __init__(self, path: Path):
        super().__init__()
        with tempfile.TemporaryDirectory() as folder, quiet():  # clean-fid wants a folder and the published name
            from cleanfid.inception_torchscript import InceptionV3W

            (Path(folder) / "inception-2015-12-05.pt").symlink_to(path.resolve())
            self.wrapped = InceptionV3W(folder, download=False)
        last = [w for w in self.wrapped.base.state_dict().values() if tuple(w.shape) == (CLASSES, 2048)]
        self.further = ("probabilities",) if last else ()
        self.register_buffer("last", last[0] if last else None)

    def forward(self, x: Tensor, resize: bool) -> dict[str, Tensor]:
        self.wrapped.resize_inside = resize
        found = {"features": self.wrapped(x).float()}
        if isinstance(self.last, Tensor):
            found["probabilities"] = F.linear(found["features"], self.last.float()).softmax(1)
        return found


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """clean-fid prints to standard output and silences every warning for good, and TorchScript is deprecated."""
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
