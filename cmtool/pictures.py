"""One picture in and out of memory: bytes of a PNG, JPEG, WebP or BMP file <-> uint8 pixels.

The only place that decides which formats are opened, what a palette, an alpha channel, 16 bits, CMYK or an EXIF
rotation mean, and when a picture is too large or too damaged to be used.
"""

import io
import os
import struct
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import BinaryIO

import numpy as np
from PIL import Image

from cmtool import png
from cmtool.errors import BadFile, MissingInput
from cmtool.picture_kinds import READABLE_KINDS, SUFFIXES, kind_of, unread_kinds

__all__ = [
    "FORMATS",
    "MAX_BYTES",
    "MAX_PIXELS",
    "READABLE_KINDS",
    "SUFFIXES",
    "Size",
    "decode",
    "encode",
    "kind_of",
    "planes",
    "size_from_start",
    "size_of_file",
    "unread_kinds",
    "with_channels",
]

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
MAX_PIXELS = 64_000_000
MAX_BYTES = 4 * MAX_PIXELS
SMALL = 1 << 16  # bytes that are asked for at least: not every file says how long it is
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601

SKIPPED = {0xC4, 0xCC, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)}  # segments of a JPEG that may stand before the frame

# Pillow only warns between one and two times its own limit, which is above ours anyway.
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)
# what Pillow's parsers raise on damaged files; no closed list exists
DAMAGE = (
    *(OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, struct.error),
    *(AttributeError, ArithmeticError, AssertionError, NotImplementedError, RuntimeError),
)


MODES = {"1": "grey", "L": "grey", "LA": "grey+alpha", "P": "palette", "PA": "palette"}  # of Pillow, in our words


@dataclass(frozen=True)
class Size:
    """What a picture says of itself before it is decoded: pixels as they are stored, whether it is grey, its mode.

    Modes are ``grey``, ``RGB``, ``palette``, ``RGBA``, ``grey 16-bit`` ...; empty stands for what ``grey`` says.
    """

    width: int
    height: int
    grey: bool
    mode: str = field(default="", compare=False)


def decode(source: str | Path | BinaryIO | bytes, name: str | None = None) -> np.ndarray:
    """The pixels of one picture as uint8 ``[H, W]`` (grey) or ``[H, W, 3]`` (colour).

    EXIF rotations are applied, 16 bits become ``round(v / 257)``, CMYK and palettes become RGB, and what is
    transparent lies on white; texts and colour profiles are passed over. ``name`` is what messages call a picture that
    is not a path. MissingInput when there is no such file; BadFile when it is no picture, damaged, cut short, or above
    64 megapixels.
    """
    if isinstance(source, str | Path):
        name, source = name or str(source), _read(source if isinstance(source, Path) else Path(source))
    name = name or "the picture"
    data = source if isinstance(source, bytes) else source.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise BadFile(f"{name} is larger than {MAX_BYTES // 1_000_000} MB")
    try:
        return _decode(data, name)
    except Image.UnidentifiedImageError:
        raise _not_read(data, name) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large(name) from None
    except DAMAGE as error:
        raise BadFile(f"{name} is damaged: {_line(error)}") from error


def size_of_file(source: Path | bytes | BinaryIO, name: str) -> Size:
    """The size of a picture, from its first bytes where that can be; BadFile as of ``decode`` but for hidden damage."""
    if isinstance(source, Path):
        with _open_file(source) as file:
            return size_of_file(file, name)
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    start = file.read(64)
    try:
        if said := png.size_and_kind(start):
            size = Size(*said)
        else:
            file.seek(0)
            with Image.open(file, formats=FORMATS) as image:
                grey = image.mode in ("1", "L", "LA") or image.mode.startswith("I")
                mode = "grey 16-bit" if image.mode.startswith("I") else MODES.get(image.mode, image.mode)
                size = Size(image.width, image.height, grey, mode)
    except Image.UnidentifiedImageError:
        raise _not_read(start, name) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large(name) from None
    except DAMAGE as error:
        raise BadFile(f"{name} is damaged: {_line(error)}") from error
    if size.width * size.height > MAX_PIXELS:
        raise _too_large(name)
    return size


def size_from_start(start: bytes) -> Size | None:
    """The size of a PNG or JPEG by its first bytes; None where those do not tell, or tell nothing that is read."""
    if said := png.size_and_kind(start):
        size = Size(*said)
    elif start.startswith(b"\xff\xd8") and (found := _jpeg_frame(start)):
        size = Size(*found)
    else:
        return None
    return size if 0 < size.width * size.height <= MAX_PIXELS else None


def _jpeg_frame(start: bytes) -> tuple[int, int, bool, str] | None:
    """Width, height, whether it is grey, and the mode, of the frame header; None where it is not within these bytes.

    Source: ITU-T T.81, B.2.2; frames of a kind that few programs write are left to Pillow.
    """
    at = 2
    while at + 10 <= len(start) and start[at] == 0xFF and start[at + 1] >= 0xC0:
        marker, length = start[at + 1], int.from_bytes(start[at + 2 : at + 4], "big")
        if marker in (0xC0, 0xC1, 0xC2):
            height, width = (int.from_bytes(start[k : k + 2], "big") for k in (at + 5, at + 7))
            mode = {1: "grey", 3: "RGB", 4: "CMYK"}.get(start[at + 9])
            return (width, height, mode == "grey", mode) if start[at + 4] == 8 and mode else None
        if marker not in SKIPPED or length < 2:
            return None
        at += 2 + length
    return None


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


def _open_file(path: Path) -> BinaryIO:
    try:
        mode = path.stat().st_mode
        if not (S_ISREG(mode) or S_ISDIR(mode)):
            raise BadFile(f"{path} is a pipe or a device, not a file")  # whose reader would wait for ever
        return path.open("rb")
    except FileNotFoundError:
        raise MissingInput(f"there is no file {path}") from None
    except OSError as error:
        raise MissingInput(f"cannot read {path}: {error.strerror}") from error


def _read(path: Path) -> bytes:
    with _open_file(path) as file:
        try:
            # Python sets aside what it is asked for, in every reading of a file
            return file.read(min(max(os.fstat(file.fileno()).st_size, SMALL), MAX_BYTES) + 1)
        except OSError as error:
            raise MissingInput(f"cannot read {path}: {error.strerror}") from error


def _decode(data: bytes, name: str) -> np.ndarray:
    if (plain := png.decode_plain(data, MAX_PIXELS)) is not None:
        return plain
    data = png.drop_large_chunks(data) if data.startswith(png.SIGNATURE) else data
    with _open(data, name) as image:
        if image.format == "PNG":  # Pillow decodes a PNG that ends early without a word; verify() reads to the end
            _open(data, name).verify()
            if (values := png.decode_16_bit(data)) is not None:
                return _round(values)
        png.apply_orientation(image)
        return _pixels(image)


def _open(data: bytes, name: str) -> Image.Image:
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    if image.width * image.height > MAX_PIXELS:
        raise _too_large(name)
    return image


def _not_read(data: bytes, name: str) -> BadFile:
    """What a file is instead of a picture, or which kind of picture it is."""
    kind, known = kind_of(data), f"formats that are read: {', '.join(FORMATS)}"
    if not data:
        return BadFile(f"{name} is not a picture: it is empty", known)
    if kind in READABLE_KINDS:
        return BadFile(f"{name} is damaged: it begins as a {kind}, and is none")
    if kind is None:
        return BadFile(f"{name} is not a picture", known)
    hint = "fetch the file itself with: git lfs pull" if kind == "Git LFS pointer" else known
    return BadFile(f"{name} is not a picture that is read, but {_article(kind)} {kind}", hint)


def _article(kind: str) -> str:
    return "an" if kind[0] in "AEIO" or kind[:4] in ("HTML", "XML ", "SVG", "MP4 ", "xz f", "XCF", "HDF5") else "a"


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _too_large(name: str) -> BadFile:
    return BadFile(f"{name} has more than {MAX_PIXELS // 1_000_000} million pixels", "make it smaller first")


def _round(values: np.ndarray) -> np.ndarray:
    """uint16 [H, W, 2 or 4], the last of which is opacity, on white, as uint8."""
    colour, opacity = values[..., :-1].astype(np.uint32), values[..., -1:].astype(np.uint32)
    if (opacity != 65535).any():
        # at most 65535^2, which 32 bits hold without a sign
        colour = (colour * opacity + 65535 * (65535 - opacity)) // 65535
    eight = ((colour + 128) // 257).astype(np.uint8)
    return eight[..., 0] if eight.shape[-1] == 1 else eight


def _pixels(image: Image.Image) -> np.ndarray:
    mode = "L" if image.mode in ("1", "L", "LA") else "RGB"
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return np.array(image.convert(mode))
