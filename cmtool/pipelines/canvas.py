"""Pictures of any size on a canvas that a model can edit: resized, framed, enlarged, or cut into tiles."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cmtool.core.editing import masks
from cmtool.core.editing.operators import estimate_sigma
from cmtool.core.editing.tiles import Corner, tile_corners
from cmtool.core.pixels import to_model
from cmtool.errors import Advice, Hint, Setting, UsageError
from cmtool.files.header import Header
from cmtool.files.streams.item import Item, pixels, size_of
from cmtool.pictures import with_channels
from cmtool.settings import EditOptions

__all__ = ["Canvas", "fit_to", "make_canvas", "resize"]

Say = Callable[[Advice], None]
HALF = 127  # a pixel that is marked more strongly than this is to be filled in
SMOOTH, SHARP = Image.Resampling.LANCZOS, Image.Resampling.NEAREST


@dataclass(frozen=True)
class Canvas:
    """A picture as it is edited: ``image`` [C, H, W] in [-1, 1], its ``tiles``, and what the task is ``given`` of it.

    ``mask`` is [1, H, W] in [0, 1], 1 where nothing is known; ``marked`` says of how many pixels it was, and of how
    many in all. The result is ``kept`` (height, width) of the image; ``key`` is the path within a folder or archive.
    """

    name: str
    key: str
    image: Tensor
    tiles: list[Corner]
    given: dict[str, Any]
    mask: Tensor | None
    kept: tuple[int, int]
    label: int | None = None
    marked: tuple[int, int] | None = None

    @property
    def step(self) -> int:
        """The side of the patches that no tile may cut."""
        return self.given.get("factor", 1)

    @property
    def size(self) -> tuple[int, int]:
        return self.image.shape[1], self.image.shape[2]


def make_canvas(
    item: Item,
    options: EditOptions,
    header: Header,
    say: Say,
    label: int | None = None,
    painted: np.ndarray | None = None,
) -> Canvas:
    """The canvas of a picture, with the mask of its file, uint8 [1, H, W] of its size, where there is one.

    UsageError where it is refused or does not go with the task.
    """
    picture, name = pixels(item), item.name
    channels, *tile = header.shape
    given = {"factor": upscale_factor(options, picture, header, name), "blur": options.blur, "level": options.level}
    if options.operator.name == "outpaint":
        image, given["margin"] = frame(picture, options, header)
    else:
        image = fit(picture, name, options, header, say, given["factor"])
    kept = image.shape[1:]
    image = to_model(torch.from_numpy(pad(with_channels(image, channels), tile)))
    if options.operator.name == "denoise" and options.level is None:
        given["level"] = max(estimate_sigma(image), header.sigma_min)
        say(f"{name}: noise of {given['level']:.3g} was estimated, {given['level'] * 127.5:.0f} of 255 grey levels")
    corners = tile_corners((image.shape[1], image.shape[2]), (tile[0], tile[1]), given["factor"] or 1)
    size = image.shape[1], image.shape[2]
    whole = picture_mask(picture, name, options, painted)
    mask = make_mask(whole, options, header, size)
    given = {k: v for k, v in given.items() if v is not None}
    key = item.key or str(item.number)
    return Canvas(name, key, image, corners, given, mask, kept, label, marked_of(whole, mask, kept))


def fit(picture: np.ndarray, name: str, options: EditOptions, header: Header, say: Say, factor: Any) -> np.ndarray:
    """The picture at the size at which it is edited."""
    size = header.shape[1:]
    if options.operator.name == "superres" and (options.fit == "tile" or enlarges(picture, size)):
        return np.repeat(np.repeat(picture, factor, axis=1), factor, axis=2)
    if options.fit == "tile" or picture.shape[1:] == size:
        return picture
    wanted = f"{size[1]}x{size[0]}"
    if options.fit == "refuse":
        hint = Hint("leave out {}, or edit it in tiles: {}", Setting("fit", "refuse"), Setting("fit", "tile"))
        raise UsageError(f"{name} is {size_of(picture)}, and the model makes {wanted}", hint)
    said = f"{name} is {size_of(picture)}: its middle was resized to the model's {wanted}"
    say(Hint("{} ({} keeps its size)", said, Setting("fit", "tile")))
    return resize(picture, size, SMOOTH)


def enlarges(picture: np.ndarray, size: tuple[int, ...]) -> bool:
    """Whether a picture is smaller than the model's."""
    return picture.shape[1] < size[0] or picture.shape[2] < size[1]


def upscale_factor(options: EditOptions, picture: np.ndarray, header: Header, name: str) -> int | None:
    """How many times a small picture must grow to reach the size of the model."""
    size = header.shape[1:]
    if options.operator.name != "superres" or options.fit == "tile" or not enlarges(picture, size):
        return options.factor or (4 if options.operator.name == "superres" else None)
    (high, wide), (height, width) = size, picture.shape[1:]
    if high % height or wide % width or high // height != wide // width:
        raise UsageError(
            f"the model's {wide}x{high} is no multiple of {width}x{height}, the size of {name}",
            Hint("enlarge it in tiles, whatever its size: {} {}", Setting("fit", "tile"), Setting("factor", 2)),
        )
    if options.factor not in (None, high // height):
        raise UsageError(f"{name} grows {high // height} times to the model's {high} pixels, not {options.factor}")
    return high // height


def frame(picture: np.ndarray, options: EditOptions, header: Header) -> tuple[np.ndarray, tuple[int, ...]]:
    """The picture in the middle of an empty one of the model's size, and the four margins around it."""
    _, high, wide = header.shape
    if options.fit == "tile":
        raise UsageError(
            "outpaint works at the size of the model, not in tiles", Hint("leave out {}", Setting("fit", "tile"))
        )
    height, width = picture.shape[1:]
    if options.margin is None and height <= high and width <= wide and (height, width) != (high, wide):
        top, left = (high - height) // 2, (wide - width) // 2
        sides = (top, left, high - height - top, wide - width - left)
    else:
        margin = options.margin or (max(1, high // 8),)
        sides = margin * 4 if len(margin) == 1 else margin
        if len(sides) != 4 or sides[0] + sides[2] >= high or sides[1] + sides[3] >= wide:
            raise UsageError(
                f"a margin of {','.join(map(str, margin))} leaves nothing of {wide}x{high} pixels",
                Hint("give one number, or those of top, left, bottom and right: {}", Setting("margin", 4)),
            )
        picture = resize(picture, (high - sides[0] - sides[2], wide - sides[1] - sides[3]), SMOOTH)
    return np.pad(picture, ((0, 0), (sides[0], sides[2]), (sides[1], sides[3])), constant_values=128), sides


def pad(image: np.ndarray, tile: list[int]) -> np.ndarray:
    """At least one tile large, by repeating its last row and column."""
    more = [max(0, side - length) for side, length in zip(tile, image.shape[1:], strict=True)]
    return np.pad(image, ((0, 0), (0, more[0]), (0, more[1])), mode="edge")


def make_mask(whole: np.ndarray | None, options: EditOptions, header: Header, size: tuple[int, int]) -> Tensor | None:
    """[1, H, W] of the canvas's ``size``, 1 where pixels are to be filled in; from the mask of the picture's size."""
    if options.random is not None:
        mask = masks.random(*size, options.random, options.seed)
    elif whole is None:
        return None
    else:
        small = whole if options.fit == "tile" or whole.shape[1:] == size else resize(whole, header.shape[1:], SHARP)
        empty = np.pad(small, ((0, 0), (0, size[0] - small.shape[1]), (0, size[1] - small.shape[2])))
        mask = (torch.from_numpy(empty)[None] > HALF).float()
    return (masks.feather(mask, options.feather) if options.feather else mask)[0]


def marked_of(whole: np.ndarray | None, mask: Tensor | None, kept: tuple[int, int]) -> tuple[int, int] | None:
    """How many pixels are to be filled in, and of how many: of the picture, or of what is drawn at its new size."""
    if mask is None:
        return None
    if whole is not None:
        return int((whole > HALF).sum()), whole.size
    inside = mask[:, : kept[0], : kept[1]]
    return int((inside == 1).sum()), inside.numel()


def picture_mask(picture: np.ndarray, name: str, options: EditOptions, painted: np.ndarray | None) -> np.ndarray | None:
    """uint8 [1, H, W] of the picture's size, 255 where pixels are to be filled in."""
    given = {"mask": painted, "box": options.box, "random": options.random}
    ways = [Setting(way) for way, value in given.items() if value is not None]
    if len(ways) > 1:
        raise UsageError(Hint("{} and {} both say what to fill in", *ways[:2]), "give one of them")
    if options.box is not None:
        height, width = picture.shape[1:]
        left, top, wide, high = options.box if len(options.box) == 4 else (0, 0, 0, 0)
        if min(left, top) < 0 or min(wide, high) < 1 or left + wide > width or top + high > height:
            raise UsageError(
                f"the box {','.join(map(str, options.box))} does not lie within {name}, which is {width}x{height}",
                Hint("a box is left, top, width, height in pixels: {}", Setting("box", "8,8,16,16")),
            )
        return (masks.box(height, width, left, top, wide, high)[0] * 255).to(torch.uint8).numpy()
    if painted is None:
        return None
    if painted.shape[1:] != picture.shape[1:]:
        mask = "the mask" if options.mask is None else f"the mask {options.mask}"
        raise UsageError(f"{mask} is {size_of(painted)}, and {name} is {size_of(picture)}", "make them the same size")
    return 255 - painted if options.white == "keep" else painted


def fit_to(picture: np.ndarray, name: str, shape: tuple[int, ...], say: Say) -> np.ndarray:
    """The picture with the channels and size of the model's images; its middle, where the proportions differ."""
    channels, *size = shape
    if picture.shape[1:] != tuple(size):
        say(f"{name} is {size_of(picture)}: its middle was resized to the model's {size[1]}x{size[0]}")
        picture = resize(picture, tuple(size), SMOOTH)
    return with_channels(picture, channels)


def resize(picture: np.ndarray, size: tuple[int, ...], filter: Image.Resampling) -> np.ndarray:
    """The middle of the picture with the proportions of ``size`` (H, W), at that size."""
    _, height, width = picture.shape
    scale = min(height / size[0], width / size[1])
    high, wide = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    left, top = (width - wide) // 2, (height - high) // 2
    planes = [
        Image.fromarray(plane[top : top + high, left : left + wide]).resize((size[1], size[0]), filter)
        for plane in picture
    ]
    return np.stack([np.asarray(plane) for plane in planes])
