"""What reading a model gives, and what a checkpoint format is: both for every program that writes models.

A package adds a format by one line of its metadata, an instance of ``Format`` below ``cmtool.formats``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from cmtool.core.denoiser import Denoiser
from cmtool.files.container import digest
from cmtool.files.header import Header

__all__ = ["Format", "LoadedModel", "WriteModel"]

ReadModel = Callable[..., "LoadedModel[Denoiser]"]
WriteModel = Callable[[Path, Denoiser, Header, torch.dtype | None], Header]
M = TypeVar("M", bound=nn.Module, covariant=True)


@dataclass(frozen=True)
class LoadedModel(Generic[M]):
    """A model that was read from a file, called as ``loaded(x, sigma, labels) -> x_0``.

    ``model``    the network behind its preconditioning; under guidance, the guided one
    ``header``   what the file says of it
    ``path``     the file or folder
    ``remarks``  what a user should know of how it was read, a sentence each
    """

    model: M
    header: Header
    path: Path
    remarks: tuple[str, ...] = ()

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.model.parameters()).device

    def __call__(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """``x`` [B, ...], ``sigma`` [B] or [], ``labels`` [B] int64 or None -> [B, ...]; see ``core.denoiser``."""
        return self.model(x, sigma, labels)


@dataclass(frozen=True)
class Format:
    """A checkpoint format of another program.

    ``read``     ``(path, backbone, *, **options) -> LoadedModel``, on the CPU. Its keyword-only arguments are the
                 options ``format.*``, its docstring the help of the format; ``backbone`` holds what the user says of
                 the network. BadFile for what is damaged, MissingInput for what is not whole, UsageError for what must
                 be said or contradicts the file.
    ``detect``   ``(path) -> bool``: whether a file or folder is of this format, by its content. It runs nothing in the
                 file and need not catch what a damaged one makes it raise.
    ``digest``   ``(path) -> str``: the SHA-256 of all weights; that of the file where the format is one file.
    ``write``    ``(path, model, header, dtype) -> Header``: writes the model, in ``dtype`` or its own precision, and
                 returns the header with the digest; None where the format is only read.
    """

    read: ReadModel
    detect: Callable[[Path], bool]
    digest: Callable[[Path], str] = digest
    write: WriteModel | None = None
