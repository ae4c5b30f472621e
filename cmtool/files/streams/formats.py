"""The formats of image streams, by suffix: how each is read, and what takes its images in."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cmtool.files.streams import npy, npz, sheet, tar, zip
from cmtool.files.streams.item import Item
from cmtool.files.streams.names import SkippedFiles
from cmtool.files.streams.sink import Sink
from cmtool.pictures import SUFFIXES

__all__ = ["FORMATS", "WRITTEN", "StreamFormat"]


@dataclass(frozen=True)
class StreamFormat:
    """``read(path, passed)`` gives the images; ``sink(file, shape, n, labelled)`` takes them, where it is written.

    A sink that ``grows`` goes on in a file that was cut; one that takes ``points`` takes more than images. Where images
    are ``named``, a sink takes a function from seeds to names as well, and images need not have one size. ``keys``
    tells the names alone, where that is quicker than reading all.
    """

    read: Callable[[Path, SkippedFiles], Iterator[Item]]
    sink: Callable[..., Sink] | None = None
    grows: bool = False
    points: bool = False
    named: bool = False
    keys: Callable[[Path], list[str]] | None = None


FORMATS = {
    **dict.fromkeys(SUFFIXES, StreamFormat(sheet.read)),
    ".tar": StreamFormat(tar.read, tar.TarSink, grows=True, named=True),
    ".zip": StreamFormat(zip.read, zip.ZipSink, grows=True, named=True, keys=zip.keys),
    ".npz": StreamFormat(npz.read, npz.NpzSink, grows=True, points=True),
    ".npy": StreamFormat(npy.read, npy.NpySink, grows=True, points=True),
    ".png": StreamFormat(sheet.read, sheet.SheetSink),
}
WRITTEN = [suffix for suffix, format in FORMATS.items() if format.sink]
