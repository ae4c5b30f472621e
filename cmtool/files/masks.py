"""Masks in files: which pixels a picture marks."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from cmtool import png
from cmtool.pictures import FORMATS, decode, planes, with_channels

__all__ = ["read_mask"]


def read_mask(source: Path | bytes | np.ndarray, name: str) -> np.ndarray:
    """How strongly each pixel is marked, uint8 [1, H, W].

    Of a picture that is transparent somewhere it is what is painted, of whatever colour: its alpha. Of any other it is
    the grey value, 255 for white. MissingInput; BadFile for no picture.
    """
    if isinstance(source, np.ndarray):
        return with_channels(source, 1)
    grey = with_channels(planes(decode(source, name)), 1)  # says in a sentence what is wrong
    alpha = _alpha(source if isinstance(source, bytes) else source.read_bytes())
    return grey if alpha is None or alpha.min() == 255 else alpha[None]


def _alpha(data: bytes) -> np.ndarray | None:
    with Image.open(io.BytesIO(png.lean(data) if data.startswith(png.SIGNATURE) else data), formats=FORMATS) as image:
        if not image.has_transparency_data:
            return None
        png.upright(image)
        return np.array(image.convert("RGBA"))[..., 3]
