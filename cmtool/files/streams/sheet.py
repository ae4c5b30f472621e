"""``.png``: one picture, or a sheet of many that says how it is laid out, so that each is read back exactly."""

import io
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, PngImagePlugin

from cmtool.errors import BadFile, UsageError
from cmtool.files.streams.item import Item
from cmtool.pictures import MAX_PIXELS, decode, planes

__all__ = ["LAYOUT", "SheetSink", "is_sheet", "read", "read_bytes"]

GAP, PAPER = 2, 255
LAYOUT = "cmtool:sheet"  # the text chunk of the layout: n, columns, size [H, W], gap, scale, labels


def read(path: Path) -> Iterator[Item]:
    """The images of a sheet, row by row, or the one picture."""
    pixels = decode(path)  # says in a sentence what is wrong
    return _cut(planes(pixels), path.read_bytes(), str(path))


def is_sheet(path: Path) -> bool:
    """Whether a file is a picture with a layout of ours; its pixels are not decoded."""
    try:
        return _layout(path.read_bytes()) is not None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return False


def read_bytes(data: bytes, name: str) -> Iterator[Item]:
    """The same, of a file's bytes."""
    return _cut(planes(decode(data, name)), data, name)


def _cut(picture: np.ndarray, data: bytes, name: str) -> Iterator[Item]:
    layout = _layout(data)
    if layout is None:
        yield Item(name, picture)
        return
    try:
        (height, width), gap, scale = layout["size"], layout["gap"], layout["scale"]
        labels = layout["labels"] or [None] * layout["n"]
        for i in range(layout["n"]):
            row, column = divmod(i, layout["columns"])
            top, left = row * (height * scale + gap) + gap, column * (width * scale + gap) + gap
            tile = picture[:, top : top + height * scale : scale, left : left + width * scale : scale]
            if tile.shape[1:] != (height, width):
                raise ValueError("it is smaller than it says")
            yield Item(f"{name}:{i}", tile, labels[i])
    except (KeyError, TypeError, ValueError, IndexError, ZeroDivisionError) as error:
        raise BadFile(f"{name} is a sheet that is not laid out as it says: {error}") from error


def _layout(data: bytes) -> dict[str, Any] | None:
    with Image.open(io.BytesIO(data)) as image:
        if not isinstance(image, PngImagePlugin.PngImageFile) or LAYOUT not in image.info:
            return None
        try:
            found = json.loads(image.info[LAYOUT])
        except (ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None


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
        text.add_text(LAYOUT, json.dumps(self.layout | {"labels": self.labels}))
        pixels = self.sheet[0] if len(self.sheet) == 1 else self.sheet.transpose(1, 2, 0)
        Image.fromarray(np.ascontiguousarray(pixels)).save(self.file, format="PNG", pnginfo=text)
