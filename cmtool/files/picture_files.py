"""Single pictures in files: reading, masks, sheets of images with labels, animated WebP and GIF."""

import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cmtool import png
from cmtool.errors import UsageError
from cmtool.files.atomic import write_bytes, write_file
from cmtool.files.images import STREAM, stdin, stdout
from cmtool.files.output_check import mark_output
from cmtool.pictures import FORMATS, decode, encode, planes, with_channels

__all__ = [
    "MOVING",
    "Cell",
    "check_target",
    "grid",
    "labelled_sheet",
    "moved_by",
    "read_mask",
    "read_picture",
    "scatter",
    "write_animation",
    "write_picture",
]


READABLE = 64  # pixels that the side of an image on a sheet should have at least
PAPER = 255
LINE = 12  # pixels of a line of text


def read_picture(target: str | Path) -> np.ndarray:
    """A picture as uint8 [C, H, W], C 1 (grey) or 3; ``-`` is standard input. MissingInput; BadFile for no picture."""
    if str(target) == STREAM:
        return planes(decode(stdin(), "standard input"))
    return planes(decode(Path(target)))


def check_target(target: str | Path) -> None:
    """UsageError for a place no picture is written to; to be asked before hours are spent on the picture."""
    if str(target) == STREAM:
        stdout()
    elif Path(target).suffix.lower() != ".png":
        raise UsageError(f"cannot write a picture to {target}", "pictures are written as .png, or to - for a pipe")
    elif Path(target).is_dir():
        raise UsageError(f"cannot write a picture to {target}, which is a folder", "name a file in it")


def write_picture(target: str | Path, image: Any, command: str = "") -> None:
    """Write uint8 [C, H, W] as a PNG that says which ``command`` made it; ``-`` is standard output.

    UsageError for another suffix; WriteFailed.
    """
    check_target(target)
    data = mark_output(encode(np.asarray(image)), command)
    if str(target) == STREAM:
        with write_file("standard output"):
            stdout().write(data)
            stdout().flush()
    else:
        write_bytes(target, data)


def grid(
    images: np.ndarray,
    columns: int | None = None,
    gap: int = 2,
    scale: int | None = None,
    names: Sequence[str] | None = None,
) -> np.ndarray:
    """A sheet, uint8 [C, H', W'], of images uint8 [N, C, H, W], row by row; about square without ``columns``.

    Every image is enlarged ``scale`` times by repeating its pixels; without it, until its shorter side has 64 pixels.
    ``gap`` is the width in pixels of the white lines between and around the images; ``names`` stand above them.
    """
    images = np.asarray(images)
    n, channels, height, width = images.shape
    columns = columns or math.ceil(math.sqrt(n))
    rows = -(-n // columns)
    scale = scale or max(1, round(READABLE / min(height, width)))
    above = LINE if names else 0
    high, wide = height * scale + gap + above, width * scale + gap
    sheet = np.full((channels, rows * high + gap, columns * wide + gap), PAPER, dtype=np.uint8)
    for i, image in enumerate(images):
        top, left = i // columns * high + gap, i % columns * wide + gap
        if names:
            sheet[:, top : top + above, left : left + wide - gap] = draw_text(names[i], wide - gap, above)
        enlarged = image.repeat(scale, axis=1).repeat(scale, axis=2)
        sheet[:, top + above : top + high - gap, left : left + wide - gap] = enlarged
    return sheet


def draw_text(text: str, width: int, height: int) -> np.ndarray:
    """Black on white, uint8 [height, width]; what does not fit is cut off."""
    line = Image.new("L", (width, height), PAPER)
    ImageDraw.Draw(line).text((0, 0), text, fill=0, font=ImageFont.load_default())
    return np.asarray(line)


def scatter(points: np.ndarray, extent: float | None = None, side: int = 384) -> np.ndarray:
    """A picture, uint8 [3, side, side], of points float [N, 2]: x to the right, y upwards, origin in the middle.

    It shows [-extent, extent]^2, or all points. A point is a disc of 2 pixels radius that covers part of what is below:
    ``c(k) = ink + (paper - ink) (1 - a)^k`` where k discs overlap, ``a`` smaller the more points there are.
    """
    points = np.asarray(points, dtype=np.float64)
    extent = extent or 1.05 * float(np.abs(points).max(initial=1e-9))
    pixels = np.floor((points * [1, -1] / extent + 1) / 2 * side).astype(int)
    count = np.zeros((side, side))
    for dy, dx in DISC:
        x, y = pixels[:, 0] + dx, pixels[:, 1] + dy
        inside = (x >= 0) & (x < side) & (y >= 0) & (y < side)
        np.add.at(count, (y[inside], x[inside]), 1)
    kept = (1 - min(0.8, max(0.15, 100 / (len(points) + 1)))) ** count
    return np.rint(INK[:, None, None] + (PAPER - INK)[:, None, None] * kept).astype(np.uint8)


INK = np.array([24, 60, 140])
DISC = [(dy, dx) for dy in range(-2, 3) for dx in range(-2, 3) if dx * dx + dy * dy <= 5]


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
    with Image.open(
        io.BytesIO(png.drop_large_chunks(data) if data.startswith(png.SIGNATURE) else data), formats=FORMATS
    ) as image:
        if not image.has_transparency_data:
            return None
        png.apply_orientation(image)
        return np.array(image.convert("RGBA"))[..., 3]


SIDE, GAP, TEXT, TEXT_INK = 112, 10, 14, (40, 40, 40)  # pixels; a cell is at least as wide as its words need

Cell = tuple[np.ndarray | None, Sequence[str]]  # an image uint8 [C, H, W], or none, and the lines below it


def labelled_sheet(headings: Sequence[str], rows: Sequence[Sequence[Cell]], title: str = "") -> np.ndarray:
    """A page uint8 [3, H, W]: a heading above each column, every image in a cell, and its lines below it.

    Images smaller than a cell are enlarged by repeating pixels, larger ones are made smaller.
    """
    page_font, small = ImageFont.load_default(TEXT), ImageFont.load_default(TEXT - 2)
    lines = [line for row in rows for _, texts in row for line in texts]
    widths = [page_font.getlength(text) for text in headings] + [small.getlength(text) for text in lines]
    wide = max(SIDE, int(max(widths, default=0)) + 4)
    below = max((len(texts) for row in rows for _, texts in row), default=0) * (TEXT + 2)
    top, high = GAP + (TEXT + 10 if title else 0) + TEXT + 8, SIDE + 4 + below + GAP
    size = max(len(headings) * (wide + GAP) + GAP, int(page_font.getlength(title)) + 2 * GAP)
    page = Image.new("RGB", (size, top + len(rows) * high), "white")
    pen = ImageDraw.Draw(page)
    pen.text((GAP, GAP), title, TEXT_INK, page_font)
    for i, heading in enumerate(headings):
        pen.text((GAP + i * (wide + GAP) + wide / 2, top - 8), heading, TEXT_INK, page_font, anchor="ms")
    for j, row in enumerate(rows):
        for i, (image, texts) in enumerate(row):
            left, upper = GAP + i * (wide + GAP), top + j * high
            if image is not None:
                shown = _fit(image)
                page.paste(shown, (left + (wide - shown.width) // 2, upper + (SIDE - shown.height) // 2))
            for k, text in enumerate(texts):
                pen.text((left + wide / 2, upper + SIDE + 4 + k * (TEXT + 2)), text, TEXT_INK, small, anchor="mt")
    return np.asarray(page).transpose(2, 0, 1)


def _fit(image: np.ndarray) -> Image.Image:
    picture = Image.fromarray(np.ascontiguousarray(with_channels(image, 3).transpose(1, 2, 0)))
    longest = max(picture.size)
    if longest > SIDE:
        return picture.resize([max(1, round(n * SIDE / longest)) for n in picture.size], Image.Resampling.LANCZOS)
    return picture.resize([n * (SIDE // longest) for n in picture.size], Image.Resampling.NEAREST)


MOVING = (".webp", ".gif")
FRAME_SIDE = 256  # pixels that the shorter side of a frame should have at least


def write_animation(target: str | Path, frames: np.ndarray, fps: float, command: str = "") -> None:
    """Frames uint8 [N, C, H, W] as a file that plays for ever, small ones enlarged by repeating pixels.

    It says which ``command`` made it. WebP keeps every value, GIF has 256 colours a frame. WriteFailed.
    """
    scale = max(1, FRAME_SIDE // min(frames.shape[2:]))
    large = with_channels(frames, 3).repeat(scale, axis=2).repeat(scale, axis=3).transpose(0, 2, 3, 1)
    first, *rest = [Image.fromarray(np.ascontiguousarray(frame)) for frame in large]
    buffer, webp = io.BytesIO(), Path(target).suffix.lower() == ".webp"
    about = {"save_all": True, "append_images": rest, "duration": round(1000 / fps), "loop": 0}
    if webp:
        first.save(buffer, "WEBP", lossless=True, quality=60, xmp=_text(command), **about)
    else:
        first.save(buffer, "GIF", disposal=1, comment=_text(command), **about)
    write_bytes(target, buffer.getvalue())


def moved_by(command: str) -> Callable[[Path], bool]:
    """Whether a file is an animation that this command made."""

    def ours(path: Path) -> bool:
        try:
            with Image.open(path, formats=("WEBP", "GIF")) as image:
                return _text(command) in (image.info.get("xmp"), image.info.get("comment"))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning):
            return False

    return ours


def _text(command: str) -> bytes:
    return f"cmtool {command}".encode()
