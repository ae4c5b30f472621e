"""How pictures of any size become pictures of one size."""

import re
from collections.abc import Collection

import numpy as np
from PIL import Image

from cmtool.errors import Hint, Setting, UsageError
from cmtool.options.types import Check
from cmtool.pictures import Size

__all__ = ["CROPS", "SIZE", "choose_size", "fit", "parse_size"]

CROPS = ("center", "squeeze", "none")
LARGE = 1 << 24  # pixels of a picture between resizing and cutting, above which it is cut first
LONGEST = 1 << 14  # pixels of a side
WRITTEN = re.compile(r"(\d{1,5})(?:x(\d{1,5}))?")


def parse_size(text: int | str) -> tuple[int, int] | None:
    """Height and width of ``64`` or of ``48x64``, as shapes are written: 48 rows and 64 columns; None if it is none."""
    found = WRITTEN.fullmatch(str(text))
    sides = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    return sides if all(1 <= side <= LONGEST for side in sides) else None


SIZE = Check(
    lambda text: parse_size(text) is not None,
    f"a side, such as 64, or height x width, such as 48x64, each from 1 to {LONGEST:,}",
)


def fit(pixels: np.ndarray, height: int, width: int, crop: str = "center") -> np.ndarray:
    """A picture uint8 ``[H, W]`` or ``[H, W, 3]`` at another size; one that has this size is left as it is.

    It is halved by averaging while both sides are twice as long as wanted or more, brought with a bicubic filter to the
    least size that covers what is wanted, and cut at the centre, as in guided-diffusion (Dhariwal and Nichol 2021,
    arXiv 2105.05233), where both sides are equal. ``crop="squeeze"`` brings each side to its length instead.
    """
    if pixels.shape[:2] == (height, width):
        return pixels
    image = Image.fromarray(pixels)
    if crop == "squeeze":
        return np.array(image.resize((width, height), Image.Resampling.BICUBIC))
    while image.width >= 2 * width and image.height >= 2 * height:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = max(width / image.width, height / image.height)
    across, down = round(image.width * scale), round(image.height * scale)
    left, top = (across - width) // 2, (down - height) // 2
    if across * down > LARGE:  # of a long strip the middle alone is enlarged
        x, y = image.width / across, image.height / down
        box = (left * x, top * y, (left + width) * x, (top + height) * y)
        return np.array(image.resize((width, height), Image.Resampling.BICUBIC, box=box))
    image = image.resize((across, down), Image.Resampling.BICUBIC)
    return np.array(image.crop((left, top, left + width, top + height)))


def choose_size(sizes: Collection[Size], size: int | str | None, crop: str) -> tuple[int, int]:
    """Height and width of a data set of pictures of these sizes; UsageError where the user must say it.

    Without ``size`` it is the short side, if they agree on it, or with ``crop="none"`` their own size.
    """
    wanted = None if size is None else parse_size(size)
    if size is not None and wanted is None:
        raise UsageError(f"the size of images must be {SIZE.words}, not {size}")
    if crop == "none":
        own = {(one.height, one.width) for one in sizes}
        if len(own) > 1 or (wanted and own != {wanted}):
            some = ", ".join(f"{height}x{width}" for height, width in sorted(own)[:4])
            raise UsageError(
                f"the images are left as they are, but are not all of one size: {some}"
                if len(own) > 1
                else f"the images are left as they are, and are {some} (height x width), not {size}",
                Hint("choose how they are cut: {}", Setting("data.crop", "center")),
            )
        return own.pop()
    if wanted:
        return wanted
    sides = {min(one.width, one.height) for one in sizes}
    if len(sides) == 1:
        side = sides.pop()
        return side, side
    common = [f"size={side}" for side in (32, 64, 128, 256) if side <= min(sides)] or [f"size={min(sides)}"]
    raise UsageError(
        f"the images differ in size: their short sides go from {min(sides)} to {max(sides)} pixels",
        f"give one size for all: {', '.join(common)}",
    )
