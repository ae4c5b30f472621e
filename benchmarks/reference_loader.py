"""What loaders of the field do with a zip of images, for comparison: one picture at a time, in a DataLoader.

Written from the public description of EDM's loader: a member of the zip is opened by its name, decoded by Pillow,
turned to [C, H, W] and collated by ``torch.utils.data.DataLoader``, with one worker process unless told otherwise; with
``cache`` decoded pictures stay in a dictionary of that process, as is the default there. Where ``$EDM_REPO`` names a
clone of the original, its own data set class is measured instead.
"""

import json
import os
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Sampler

__all__ = ["EndlessOrder", "ZipPictures", "open_reference", "read_batches"]


class ZipPictures(Dataset):
    """Pictures of a zip with a ``dataset.json``: uint8 [C, H, W] and a one-hot label."""

    def __init__(self, path: Path, cache: bool = False):
        self.path, self.cache = path, cache
        self.kept: dict[int, np.ndarray] = {}
        self.archive: zipfile.ZipFile | None = None
        with zipfile.ZipFile(path) as archive:
            self.names = sorted(name for name in archive.namelist() if name.endswith(".png"))
            labels = dict(json.loads(archive.read("dataset.json"))["labels"])
        self.labels = np.array([labels[name] for name in self.names])
        self.classes = int(self.labels.max()) + 1

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        image = self.kept.get(index)
        if image is None:
            image = self._read(index)
            if self.cache:
                self.kept[index] = image
        label = np.zeros(self.classes, np.float32)
        label[self.labels[index]] = 1
        return image.copy(), label

    def _read(self, index: int) -> np.ndarray:
        if self.archive is None:  # each worker has its own
            self.archive = zipfile.ZipFile(self.path)
        with self.archive.open(self.names[index]) as file:
            pixels = np.array(Image.open(file))
        return (pixels[..., None] if pixels.ndim == 2 else pixels).transpose(2, 0, 1)


class EndlessOrder(Sampler):
    """Epoch after epoch, each shuffled."""

    def __init__(self, length: int, seed: int = 0):
        self.length, self.random = length, np.random.default_rng(seed)

    def __iter__(self) -> Iterator[int]:
        while True:
            yield from self.random.permutation(self.length).tolist()


def open_reference(path: Path, cache: bool) -> Any:
    """The original's data set where there is a clone of it, else ours."""
    clone = os.environ.get("EDM_REPO")
    if not clone:
        return ZipPictures(path, cache)
    if clone not in sys.path:
        sys.path.insert(0, clone)
    from training.dataset import ImageFolderDataset  # type: ignore[import-not-found]

    return ImageFolderDataset(path=str(path), use_labels=True, xflip=False, cache=cache)


def read_batches(path: Path, batch: int, workers: int, cache: bool) -> Iterator[torch.Tensor]:
    """Batches uint8 [B, C, H, W] without end."""
    dataset = open_reference(path, cache)
    order = EndlessOrder(len(dataset))
    ahead = 2 if workers else None
    for images, _ in DataLoader(dataset, batch, sampler=order, num_workers=workers, prefetch_factor=ahead):
        yield images
