"""``emoji``: the pictures of the Noto Color Emoji font as a data set for cmtool.

Emoji of a single code point from the pictographic blocks of Unicode, in ten coarse groups. A group is a list of code
points that was drawn up by looking at the pictures; where one would fit into two, it is in one.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from PIL import Image, ImageColor, ImageDraw, ImageFont, ImageOps
from torch import Tensor

from cmtool.datasets import Dataset
from cmtool.errors import BadFile, MissingAsset, MissingInput, UsageError
from cmtool.options.plugin_option import Option
from cmtool.options.types import at_least

__all__ = ["GROUPS", "Emoji", "emoji", "find_font", "group_of"]

BLOCKS = "2600-27BF 1F300-1F64F 1F680-1F6FF 1F7E0-1F7FF 1F900-1F9FF 1FA70-1FAFF"

# Skin tones and hair are parts of emoji; the 24 clocks differ by the position of a hand.
LEFT_OUT = "1F3FB-1F3FF 1F9B0-1F9B3 1F550-1F567"

# The first group with a code point has it, so a group may name a range of which an earlier one takes some.
GROUPS = {
    "faces": "2639-263A 1F479-1F47B 1F47D-1F480 1F600-1F644 1F910-1F917 1F920-1F925 1F927-1F92F 1F970-1F976"
    " 1F978-1F97A 1F9D0 1FAE0-1FAE5 1FAE8",
    "animals": "1F400-1F43F 1F54A 1F577 1F648-1F64A 1F980-1F9AE 1FAB0-1FAB3 1FABC 1FABF 1FACE-1FACF",
    "people": "261D 26F7 26F9 270A-270D 1F385 1F3C2-1F3C4 1F3C7 1F3CA-1F3CC 1F440-1F450 1F463-1F47C 1F481-1F483"
    " 1F485-1F487 1F48B 1F48F 1F491 1F4AA 1F574-1F575 1F57A 1F590-1F596 1F5E3 1F645-1F64F 1F6A3 1F6B4-1F6B6 1F6C0"
    " 1F6CC 1F90C 1F90F 1F918-1F93E 1F977 1F9B5-1F9B9 1F9BB 1F9CC-1F9CF 1F9D1-1F9DF 1FAC0-1FAC5 1FAE6 1FAF0-1FAF8",
    "plants": "2618 1F331-1F335 1F337-1F33C 1F33E-1F343 1F38B 1F38D 1F490 1F940 1FAB4-1FAB5 1FAB7-1FAB8 1FABB",
    "food": "2615 1F32D-1F37F 1F382 1F942-1F944 1F950-1F96F 1F9C0-1F9CB 1FAD0-1FADB",
    "places": "26E9-26F2 26FA 1F301 1F303-1F307 1F309 1F3A0-1F3A2 1F3AA 1F3D4-1F3E6 1F3E8-1F3ED 1F3EF-1F3F0 1F492"
    " 1F54B-1F54D 1F5FA-1F5FF 1F6D5-1F6D6",
    "sky": "2600-2604 2614 26A1 26C4-26C8 2728 2744 1F300-1F32C 1F4A7 1F525 1FA90",
    "travel": "2693 26F4-26F5 2708 1F3CD-1F3CE 1F680-1F6A6 1F6B2 1F6E3-1F6FC 1F9BC-1F9BD",
    "symbols": "2611 2620-265E 2660-2668 267B-267F 2695 269B-26AB 26CE 26D4 2705 2714-2721 2733-2734 2747-27BF 1F3E7"
    " 1F493-1F4A0 1F4A2 1F4A4-1F4AF 1F4B1-1F4B2 1F4F4-1F4F6 1F500-1F506 1F515 1F518-1F524 1F52F-1F530 1F532-1F53D"
    " 1F549 1F54E 1F5A4 1F5E8-1F5EF 1F6AB 1F6AD-1F6B1 1F6B3 1F6B7-1F6BC 1F6BE 1F6C2-1F6C5 1F6D0-1F6D1 1F6D7 1F6DC"
    " 1F7E0-1F7FF 1F90D-1F90E 1F9E1 1FA75-1FA77 1FAAF",
    "objects": BLOCKS,
}

STRIKE = 109  # the one size in which the font has its pictures, 136 x 128 pixels
CANVAS = (160, 144)
PACKAGE = "Debian's package fonts-noto-color-emoji"


class Emoji(Dataset):
    """Images uint8 [3, size, size] and their group, in the order of the code points; drawn once, kept in memory."""

    classes = tuple(GROUPS)
    notice = "Noto Color Emoji, Google, SIL Open Font License 1.1"

    def __init__(self, pictures: dict[int, np.ndarray]):
        self.points = list(pictures)
        self.images = torch.from_numpy(np.stack(list(pictures.values())))
        self.labels = torch.tensor([group_of(point) for point in self.points])
        self.shape = tuple(self.images.shape[1:])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int, /) -> tuple[Tensor, int]:
        return self.images[index], int(self.labels[index])

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Images uint8 [B, 3, size, size] and labels int64 [B]."""
        rows = torch.as_tensor(indices, dtype=torch.long)
        return self.images[rows], self.labels[rows]


def spans(text: str) -> Iterator[range]:
    """``"26C4-26C8 2728"`` as ranges of code points."""
    for span in text.split():
        first, _, last = span.partition("-")
        yield range(int(first, 16), int(last or first, 16) + 1)


def group_of(point: int) -> int:
    """The number of the group of a code point, its class label."""
    return next(k for k, text in enumerate(GROUPS.values()) if any(point in span for span in spans(text)))


def folders() -> Iterator[Path]:
    """Where fonts of a user and of the system lie on Linux, BSD and macOS, by the XDG and Apple conventions."""
    home = Path(os.path.expanduser("~"))
    if home.is_absolute():  # a user of a container may have none
        yield from (Path(os.environ.get("XDG_DATA_HOME") or home / ".local/share") / "fonts", home / ".fonts")
        yield home / "Library/Fonts"
    for shared in (os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share").split(":"):
        yield Path(shared) / "fonts"
    yield from (Path("/usr/local/share/fonts"), Path("/usr/share/fonts"), Path("/Library/Fonts"))


def has_pictures(path: Path) -> bool:
    """Whether a file is a font with a table of colour bitmaps; there are Noto Color Emoji fonts of outlines alone."""
    with path.open("rb") as file:
        return b"CBDT" in file.read(512)


def find_font(places: Iterable[Path] | None = None) -> Path:
    """The first ``NotoColorEmoji.ttf`` of the usual folders; MissingAsset if there is none."""
    for place in folders() if places is None else places:
        for path in sorted(place.rglob("NotoColorEmoji.ttf")):
            if has_pictures(path):
                return path
    hint = f"install {PACKAGE}, or name the font's file: data.source=PATH"
    raise MissingAsset("the font Noto Color Emoji, from which emoji are drawn, is not installed", hint)


def render(point: int, font: ImageFont.FreeTypeFont, size: int, colour: tuple[int, ...]) -> np.ndarray | None:
    """The picture of a code point, cut out, centred on a square and reduced to ``size``, uint8; None if it has none."""
    # Alpha 0 over the colour of the background: drawing blends the colours and leaves the outline in alpha.
    canvas = Image.new("RGBA", CANVAS, (*colour, 0))
    ImageDraw.Draw(canvas).text((0, 0), chr(point), font=font, embedded_color=True)
    if not (box := canvas.getbbox()):
        return None
    picture = canvas.crop(box).convert("RGB")
    square = ImageOps.pad(picture, (size, size), Image.Resampling.LANCZOS, color=colour)
    return np.asarray(square).transpose(2, 0, 1)


def draw(path: Path, size: int, colour: tuple[int, ...]) -> dict[int, np.ndarray]:
    """Every code point of the blocks that the font at ``path`` has a picture of, in order; of equal ones the first."""
    font = ImageFont.truetype(str(path), STRIKE, layout_engine=ImageFont.Layout.BASIC)
    left_out, found = {point for span in spans(LEFT_OUT) for point in span}, {}
    for point in (point for span in spans(BLOCKS) for point in span if point not in left_out):
        picture = render(point, font, size, colour)
        if picture is not None:
            found.setdefault(picture.tobytes(), (point, picture))
    return dict(found.values())


def emoji(
    source: str | None = None,
    *,
    size: Annotated[int, Option("side of the images, in pixels", at_least(1, 4096))] = 32,
    background: Annotated[str, Option("colour behind the pictures, a name or #rrggbb")] = "white",
) -> Emoji:
    """About 1,267 emoji of the font Noto Color Emoji, labelled by ten groups.

    Use: for small colour images with classes that need no download where the font is installed.

    MissingAsset without a font, MissingInput without the file, BadFile if it has no colour bitmaps or is damaged.
    """
    try:
        colour = ImageColor.getrgb(background)[:3]
    except ValueError:
        raise UsageError(f"'{background}' is not a colour", "give a name such as white, or #rrggbb") from None
    path = Path(os.path.expanduser(source)) if source else find_font()
    if not path.is_file():
        raise MissingInput(f"there is no font {path}")
    try:
        pictures = draw(path, size, colour) if has_pictures(path) else None
    except OSError as error:
        raise BadFile(f"the font {path} cannot be read: {error}") from error
    if not pictures:
        raise BadFile(f"{path} is not a font with pictures of emoji", f"{PACKAGE} has one, NotoColorEmoji.ttf")
    return Emoji(pictures)
