"""Edits of pictures by a model that was trained for none of them: ``cmtool.edit`` and the command ``edit``."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from cmtool.core.denoiser import Denoiser
from cmtool.core.editing.operators import Operator
from cmtool.core.editing.tiles import cut_tiles
from cmtool.core.pixels import to_model
from cmtool.core.sampling.samplers import Sampler
from cmtool.errors import Hint, Setting, UsageError
from cmtool.files.model_format import LoadedModel
from cmtool.files.picture_files import read_mask
from cmtool.files.streams.item import Item
from cmtool.options import registry
from cmtool.options.call import options_of_call
from cmtool.options.fields import option_fields
from cmtool.pipelines.canvas import Canvas, make_canvas
from cmtool.pipelines.classify import classify
from cmtool.pipelines.edit_sampler import Row, edit_rows, edit_sampler, join_canvas, make_operator
from cmtool.pipelines.inputs import class_index, open_model
from cmtool.pipelines.reporter import Reporter, Silence
from cmtool.settings import EditOptions
from cmtool.training.devices import choose_device

__all__ = ["Edited", "EditingPipeline", "edit"]

Picture: TypeAlias = Tensor | np.ndarray | str | Path
FOR_MASKS = ("box", "random", "feather")  # options that become the option ``mask`` of a task


@dataclass(frozen=True)
class Edited:
    """The results on one picture: ``images`` uint8 [C, H, W], one for each of ``seeds``.

    ``label`` is the class that was taken, None of a model without classes. ``known_error`` is the largest difference
    between what is known of the picture and the same part of a result, in grey levels of 255; None where the task
    knows nothing for certain. ``canvas`` and ``operator`` are the picture and the task as they were worked on.
    """

    name: str
    seeds: range
    images: list[Tensor]
    label: int | None
    known_error: float | None
    canvas: Canvas
    operator: Operator


class EditingPipeline:
    """A model and the options of an edit, called with canvases; ``sampler`` is that of the first picture."""

    def __init__(self, model: LoadedModel[Denoiser], options: EditOptions, reporter: Reporter):
        """UsageError for a model of points, and for options that the task would silently ignore."""
        if len(model.header.shape) != 3:
            raise UsageError(f"edit works on images, and {model.path} makes points")
        self.model, self.options, self.reporter = model, options, reporter
        self.label = class_index(model.header, options.klass)
        self.sampler: Sampler | None = None

    def canvas(self, item: Item, mask: np.ndarray | None = None, label: int | None = None) -> Canvas:
        """A picture ready to be edited; ``mask`` is uint8 [1, H, W] of its size, ``label`` its class where it is known.

        UsageError where it is refused or does not go with the task.
        """
        return make_canvas(item, self.options, self.model.header, self.reporter.say, label, mask)

    def __call__(self, canvases: Iterable[Canvas]) -> Iterator[Edited]:
        """The results in the order of the pictures, as many at once as fill a batch; no bit depends on the others."""
        some, rows = [], 0
        for canvas in canvases:
            some.append(canvas)
            rows += len(canvas.tiles) * self.options.variants
            if rows >= self.options.batch:
                yield from self._edit(some)
                some, rows = [], 0
        yield from self._edit(some)

    def _edit(self, canvases: Sequence[Canvas]) -> Iterator[Edited]:
        seeds = range(self.options.seed, self.options.seed + self.options.variants)
        rows, labels = list[Row](), list[int | None]()
        for canvas in canvases:
            self._set_up(canvas)
            labels.append(self._label(canvas))
            rows += [Row(canvas, place, seed, labels[-1]) for seed in seeds for place in canvas.tiles]
        out, done = edit_rows(self.model, self.options, rows) if rows else torch.empty(0), 0
        for canvas, label in zip(canvases, labels, strict=True):
            operator, whole = self._operator(canvas, whole=True), []
            for _ in seeds:
                tiles, done = out[done : done + len(canvas.tiles)], done + len(canvas.tiles)
                whole.append(join_canvas(canvas, tiles, operator.pixels))
            error = max(known_error(canvas, operator, image) for image in whole) if operator.keeps else None
            images = [crop(image, canvas) for image in whole]
            yield Edited(canvas.name, seeds, images, label, error, canvas, operator)

    def _set_up(self, canvas: Canvas) -> None:
        """Complain before the first evaluation, and keep the sampler of the first picture."""
        if self.sampler is None:
            self.sampler = edit_sampler(self._operator(canvas), self.model.header, self.options)

    def _operator(self, canvas: Canvas, whole: bool = False) -> Operator:
        """The task on the first tile of a picture, or on all of them."""
        tiles = canvas.tiles if whole else canvas.tiles[:1]
        return make_operator(self.options.operator, [canvas] * len(tiles), tiles, self.model)

    def _label(self, canvas: Canvas) -> int | None:
        """The class asked for, that of the picture, or the one that fits best."""
        header = self.model.header
        if not header.num_classes:
            return None
        label = self.label if self.label is not None else canvas.label
        if label is None:
            label = classify(self.model, self._operator(canvas))
            name = f" ({header.classes[label]})" if label < len(header.classes) else ""
            found = f"{canvas.name}: class {label}{name} fits best what is known; "
            self.reporter.say(Hint("{}{} asks for another", found, Setting("class")))
        return label


def refuse_unused(options: EditOptions, masked: bool) -> None:
    """UsageError for an option that the task would silently ignore; ``masked`` says that a mask was given."""
    task = options.operator.name
    takes = registry.options(registry.get("operators", task))
    known = [*takes, *(["white", *FOR_MASKS] if "mask" in takes else [])]
    given = {"mask": masked or None, **{key: getattr(options, key) for key in (*FOR_MASKS, *OF_TASKS)}}
    for key, value in given.items():
        if value is not None and key not in known:
            flags = [Setting(each) for each in known if each in option_fields(EditOptions)]
            hint = Hint("it takes: {}", Hint.join(flags, ", ") if flags else "no options")
            raise UsageError(Hint("{} takes no {}", task, Setting(key)), hint)


OF_TASKS = ("margin", "factor", "blur", "level")


def edit(
    operator: str | Mapping[str, Any],
    image: Picture | Sequence[Picture],
    model: LoadedModel[Denoiser] | str | Path | None = None,
    *,
    mask: Picture | None = None,
    white: str | None = None,
    box: tuple[int, int, int, int] | None = None,
    random: float | None = None,
    feather: int | None = None,
    margin: int | Sequence[int] | None = None,
    factor: int | None = None,
    blur: float | None = None,
    level: float | None = None,
    fit: str | None = None,
    steps: int | None = None,
    sigmas: Sequence[float] | None = None,
    class_: int | str | None = None,
    solver: str | Mapping[str, Any] | None = None,
    sampler: str | Mapping[str, Any] | None = None,
    seed: int | None = None,
    variants: int | None = None,
    batch: int | None = None,
    device: str | None = None,
) -> Iterator[Edited]:
    """Edit one picture or several, each on its own: the results of ``cmtool edit``.

        for edited in cmtool.edit("colorize", grey, "student.safetensors", steps=4, variants=3):
            edited.images  # three of uint8 [C, H, W], of seeds 0, 1 and 2

    ``operator`` is a task such as ``inpaint`` or ``{"name": "superres", "factor": 2}``; a picture is uint8 [C, H, W] or
    the path of a file, the mask uint8 [1, H, W], 255 where ``inpaint`` may paint, or a path. ``model`` is as of
    ``cmtool.sample``, and the other arguments are the options of ``cmtool edit``. UsageError at once for arguments that
    do not go together, and while pictures are edited for one that does not fit; Diverged where a number is not finite.
    """
    arguments = dict(locals())  # every keyword, called like its option
    pictures = [image] if isinstance(image, Tensor | np.ndarray | str | Path) else list(image)
    own = {key: value for key, value in arguments.items() if key not in ("image", "model", "mask")}
    options = options_of_call(EditOptions, {"input": "-", **own})
    refuse_unused(options, mask is not None)
    reporter = Silence()
    if not isinstance(model, LoadedModel):
        path = Path(model) if model is not None else None
        model = open_model(path, choose_device(options.device), reporter)
    pipeline = EditingPipeline(model, options, reporter)
    painted = None if mask is None else read_mask(_source(mask), "the mask")
    items = (_item(picture, number) for number, picture in enumerate(pictures))
    return pipeline(pipeline.canvas(item, painted) for item in items)


def _item(picture: Picture, number: int) -> Item:
    name = f"image {number}" if isinstance(picture, Tensor | np.ndarray) else str(picture)
    return Item(name, _source(picture), number=number)


def _source(picture: Picture) -> Path | np.ndarray:
    """A path, or uint8 [C, H, W]; UsageError for an array of another kind."""
    if isinstance(picture, str | Path):
        return Path(picture)
    array = picture.cpu().numpy() if isinstance(picture, Tensor) else picture
    if array.ndim != 3 or array.dtype != np.uint8 or array.shape[0] not in (1, 3):
        raise UsageError(f"a picture is uint8 [1 or 3, H, W], and this is {array.dtype} {list(array.shape)}")
    return array


def crop(image: Tensor, canvas: Canvas) -> Tensor:
    """The part of a canvas [C, H, W] that is the result."""
    return image[:, : canvas.kept[0], : canvas.kept[1]]


def known_error(canvas: Canvas, operator: Operator, image: Tensor) -> float:
    """How far the known part of the result on its canvas is from what it should be, in grey levels, tile by tile.

    What was added to a small picture to fill the canvas does not count.
    """
    tile = operator.reference.shape[2:]
    tiles = cut_tiles(to_model(image), canvas.tiles, tile).to(operator.reference)
    off = operator.known_part(tiles) - operator.known_part(operator.reference)
    parts = [
        part[:, : canvas.kept[0] - top, : canvas.kept[1] - left]
        for part, (top, left) in zip(off, canvas.tiles, strict=True)
    ]
    return max((float(part.abs().max()) for part in parts if part.numel()), default=0.0) * 127.5
