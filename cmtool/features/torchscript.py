"""NVIDIA's TorchScript file of the Inception network, through clean-fid's wrapper."""

import contextlib
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional as F

from cmtool.features.inception_net import CLASSES

__all__ = ["Scripted", "quiet"]


class Scripted(nn.Module):
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
