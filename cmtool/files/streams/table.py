"""The formats of image streams, by suffix: how each is read, and what takes its images in."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cmtool.files.streams import npy, npz, sheet, tar, zip
from cmtool.files.streams.item import Item
from cmtool.files.streams.sink import Sink
from cmtool.pictures import SUFFIXES

__all__ = ["FORMATS", "WRITTEN", "Format"]


@dataclass(frozen=True)
class Format:
    """``read(path)`` gives the images; ``sink(file, shape, n, labelled)`` takes them, where the format is written.

    A sink that ``grows`` goes on in a file that was cut; one that takes ``points`` takes more than images.
    """

    read: Callable[[Path], Iterator[Item]]
    sink: Callable[..., Sink] | None = None
    grows: bool = False
    points: bool = False


FORMATS = {
    **dict.fromkeys(SUFFIXES, Format(sheet.read)),
    ".tar": Format(tar.read, tar.TarSink, grows=True),
    ".zip": Format(zip.read, zip.ZipSink, grows=True),
    ".npz": Format(npz.read, npz.NpzSink, grows=True, points=True),
    ".npy": Format(npy.read, npy.NpySink, grows=True, points=True),
    ".png": Format(sheet.read, sheet.SheetSink),
}
WRITTEN = [suffix for suffix, format in FORMATS.items() if format.sink]
