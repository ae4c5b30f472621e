"""``.png``: one picture, or a sheet of many that says how it is laid out, so that each is read back exactly."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, PngImagePlugin

from cmtool.errors import UsageError, report_damage
from cmtool.files.streams.item import Item
from cmtool.files.streams.labels import whole_label
from cmtool.files.streams.names import SkippedFiles
from cmtool.pictures import MAX_BYTES, MAX_PIXELS, decode, planes
from cmtool.text_files import dump_json

__all__ = ["LAYOUT", "SheetSink", "is_sheet", "read", "read_bytes"]

GAP, PAPER = 2, 255
LAYOUT = "cmtool:sheet"  # the text chunk of the layout: n, columns, size [H, W], gap, scale, labels
SIGNATURE = b"\x89PNG\r\n\x1a\n"
LEAST, EACH = 1 << 12, 16  # bytes of a layout, and more for each pixel


@dataclass(frozen=True)
class Layout:
    """``n`` images of ``height`` x ``width``, ``columns`` in a row, ``gap`` apart, each enlarged ``scale`` times."""

    n: int
    columns: int
    height: int
    width: int
    gap: int
    scale: int
    labels: list[int | None]

    def corner(self, i: int) -> tuple[int, int]:
        """Top and left of the i-th image."""
        row, column = divmod(i, self.columns)
        return (
            row * (self.height * self.scale + self.gap) + self.gap,
            column * (self.width * self.scale + self.gap) + self.gap,
        )

    @property
    def size(self) -> tuple[int, int]:
        return self.height, self.width


def read(path: Path, passed: SkippedFiles) -> Iterator[Item]:
    """The images of a sheet, row by row, or the one picture."""
    pixels = decode(path)  # says in a sentence what is wrong
    return _cut(planes(pixels), path.read_bytes(), str(path), path.name)


def is_sheet(path: Path) -> bool:
    """Whether a file is a picture with a layout of ours; its pixels are not decoded."""
    with path.open("rb") as file:
        return _text(file.read(MAX_BYTES)) is not None


def read_bytes(data: bytes, name: str) -> Iterator[Item]:
    """The same, of a file's bytes."""
    return _cut(planes(decode(data, name)), data, name, name.replace(" ", "-"))


def _cut(picture: np.ndarray, data: bytes, name: str, key: str) -> Iterator[Item]:
    text = _text(data)
    if text is None:
        yield Item(name, picture, key=key)
        return
    with report_damage(name, "is not a sheet that is laid out as it says, or is damaged"):
        layout = _layout(text, picture, name)
    for i in range(layout.n):
        top, left = layout.corner(i)
        scale, (height, width) = layout.scale, layout.size
        tile = picture[:, top : top + height * scale : scale, left : left + width * scale : scale]
        yield Item(f"{name}:{i}", tile, layout.labels[i] if layout.labels else None, number=i)


def _text(data: bytes) -> bytes | None:
    """The layout that a PNG carries before its pixels; no other text is looked at."""
    at = len(SIGNATURE)
    while data.startswith(SIGNATURE) and (head := data[at : at + 8])[4:] not in (b"", b"IDAT", b"IEND"):
        size = int.from_bytes(head[:4], "big")
        if head[4:] == b"tEXt" and data[at + 8 : at + 9 + len(LAYOUT)] == f"{LAYOUT}\0".encode():
            return data[at + 9 + len(LAYOUT) : at + 8 + size]
        at += size + 12
    return None


def _layout(text: bytes, picture: np.ndarray, name: str) -> Layout:
    """The layout where every image lies within the picture; ValueError and what json raises where none does."""
    _, high, wide = picture.shape
    if len(text) > LEAST + EACH * high * wide:
        raise ValueError("its layout is longer than its pixels can be many")
    found = json.loads(text)
    sizes = (found["n"], found["columns"], *found["size"], found["gap"], found["scale"])
    if any(type(size) is not int for size in sizes):
        raise ValueError("sizes are whole numbers")
    n, columns, height, width, gap, scale = sizes
    if min(n, columns, height, width, scale) < 1 or gap < 0:
        raise ValueError("sizes are at least 1")
    rows, across = -(-n // columns), min(n, columns)
    if rows * (height * scale + gap) > high or across * (width * scale + gap) > wide:
        raise ValueError("it is smaller than it says")
    labels = found.get("labels") or []
    if labels and (not isinstance(labels, list) or len(labels) != n):
        raise ValueError(f"{n} images have as many labels")
    whole = [None if label is None else whole_label(label, name) for label in labels]
    return Layout(n, columns, height, width, gap, scale, whole)


class SheetSink:
    """One picture of all images, about square, which is in memory until it is written."""

    def __init__(self, file: BinaryIO, shape: tuple[int, ...], n: int, labelled: bool):
        channels, height, width = shape
        self.file, self.columns = file, math.ceil(math.sqrt(n))
        self.cell = height + GAP, width + GAP
        size = -(-n // self.columns) * self.cell[0] + GAP, self.columns * self.cell[1] + GAP
        if math.prod(size) > MAX_PIXELS:
            raise UsageError(
                f"{n:,} images are too many for one picture", "write them to a folder/, .zip, .tar or .npz"
            )
        self.sheet = np.full((channels, *size), PAPER, dtype=np.uint8)
        self.layout = {"n": n, "columns": self.columns, "size": [height, width], "gap": GAP, "scale": 1, "labels": None}
        self.labels: list[int | None] | None = [] if labelled else None
        self.count = 0

    def begin(self) -> None:
        pass

    def prepare(self, seed: int, image: np.ndarray) -> bytes:
        return image.tobytes()

    def add(self, seed: int, data: bytes, label: int | None) -> None:
        row, column = divmod(self.count, self.columns)
        top, left = row * self.cell[0] + GAP, column * self.cell[1] + GAP
        tile = self.sheet[:, top : top + self.cell[0] - GAP, left : left + self.cell[1] - GAP]
        tile[...] = np.frombuffer(data, np.uint8).reshape(tile.shape)
        self.count += 1
        if self.labels is not None:
            self.labels.append(label)

    def finish(self) -> None:
        text = PngImagePlugin.PngInfo()
        text.add_text(LAYOUT, dump_json(self.layout | {"labels": self.labels}))
        pixels = self.sheet[0] if len(self.sheet) == 1 else self.sheet.transpose(1, 2, 0)
        Image.fromarray(np.ascontiguousarray(pixels)).save(self.file, format="PNG", pnginfo=text)
