"""``.png``: one picture, or a sheet of many that says how it is laid out, so that each is read back exactly."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

from cmtool.errors import BadFile
from cmtool.files.streams.item import Item
from cmtool.pictures import decode, planes

__all__ = ["LAYOUT", "read", "read_bytes"]

LAYOUT = "cmtool:sheet"  # the text chunk of the layout: n, columns, size [H, W], gap, scale, labels


def read(path: Path) -> Iterator[Item]:
    """The images of a sheet, row by row, or the one picture."""
    pixels = decode(path)  # says in a sentence what is wrong
    return _cut(planes(pixels), path.read_bytes(), str(path))


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
