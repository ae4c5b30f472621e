"""One picture in and out of memory: bytes of a PNG, JPEG, WebP or BMP file <-> uint8 pixels.

The only place that decides which formats are opened, what a palette, an alpha channel, 16 bits, CMYK or an EXIF
rotation mean, and when a picture is too large or too damaged to be used.
"""

import io
import struct
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from cmtool.errors import BadFile, MissingInput

__all__ = ["FORMATS", "MAX_PIXELS", "SUFFIXES", "decode", "encode", "extent", "planes", "with_channels"]

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
MAX_PIXELS = 64_000_000
MAX_BYTES = 4 * MAX_PIXELS
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601

# Pillow only warns between one and two times its own limit, which is above ours anyway.
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)


def decode(source: str | Path | BinaryIO | bytes, name: str | None = None) -> np.ndarray:
    """The pixels of one picture as uint8 ``[H, W]`` (grey) or ``[H, W, 3]`` (colour).

    EXIF rotations are applied, 16 bits become ``round(v / 257)``, CMYK and palettes become RGB, and what is
    transparent lies on white. ``name`` is what messages call a picture that is not a path. MissingInput when there is
    no such file; BadFile when it is no picture, damaged, cut short, or above 64 megapixels.
    """
    if isinstance(source, str | Path):
        name, source = name or str(source), _read(Path(source))
    name = name or "the picture"
    data = source if isinstance(source, bytes) else source.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise BadFile(f"{name} is larger than {MAX_BYTES // 1_000_000} MB")
    try:
        with _open(data, name) as image:
            if image.format == "PNG":  # Pillow decodes a PNG that ends early without a word; verify() reads to the end
                _open(data, name).verify()
            ImageOps.exif_transpose(image, in_place=True)
            return _pixels(image)
    except Image.UnidentifiedImageError:
        raise BadFile(f"{name} is not a picture", f"formats that are read: {', '.join(FORMATS)}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large(name) from None
    # what Pillow's parsers raise on damaged files; no closed list exists
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, struct.error) as error:
        raise BadFile(f"{name} is damaged: {error}") from error


def encode(image: np.ndarray, level: int = 6) -> bytes:
    """The PNG file of a uint8 image ``[C, H, W]``, C 1 or 3; equal pixels give equal bytes. ``level`` is zlib's."""
    buffer = io.BytesIO()
    array = image[0] if image.shape[0] == 1 else image.transpose(1, 2, 0)
    Image.fromarray(np.ascontiguousarray(array)).save(buffer, format="PNG", compress_level=level)
    return buffer.getvalue()


def planes(array: np.ndarray) -> np.ndarray:
    """``[H, W]`` or ``[H, W, C]`` to ``[C, H, W]``."""
    return array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))


def with_channels(image: np.ndarray, channels: int) -> np.ndarray:
    """uint8 images ``[..., C, H, W]`` in grey (``channels`` 1, BT.601 luma) or in colour (3, the grey value thrice)."""
    if image.shape[-3] == channels:
        return image
    if channels == 3:
        return np.repeat(image, 3, axis=-3)
    return np.rint(np.einsum("c,...chw->...hw", LUMA, image))[..., None, :, :].astype(np.uint8)


def extent(source: Path | bytes) -> int:
    """The pixels that a picture claims to have, of which none is decoded; 0 where ``decode`` will refuse it."""
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as image:
            return image.width * image.height
    except Exception:  # whatever it is, ``decode`` says it
        return 0


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise MissingInput(f"there is no file {path}") from None
    except OSError as error:
        raise MissingInput(f"cannot read {path}: {error.strerror}") from error


def _open(data: bytes, name: str) -> Image.Image:
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    if image.width * image.height > MAX_PIXELS:
        raise _too_large(name)
    return image


def _too_large(name: str) -> BadFile:
    return BadFile(f"{name} has more than {MAX_PIXELS // 1_000_000} million pixels", "make it smaller first")


def _pixels(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I"):  # 16-bit grey; Pillow would cut it to 8 bits by clipping
        return ((np.asarray(image).astype(np.uint32) + 128) // 257).clip(0, 255).astype(np.uint8)
    mode = "L" if image.mode in ("1", "L", "LA") else "RGB"
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return np.array(image.convert(mode))
