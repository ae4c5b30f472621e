"""The edits of a run, one after another as pictures come, and what is measured on the way."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from cmtool.class_names import are_numbers, match_classes
from cmtool.commands.console import Console
from cmtool.commands.editing.companions import MaskFiles, Truths
from cmtool.commands.editing.output import Report
from cmtool.core.denoiser import Denoiser
from cmtool.core.editing.operators import Operator
from cmtool.core.editing.tiles import cut_tiles
from cmtool.core.pixels import to_model
from cmtool.errors import UsageError
from cmtool.evaluation.psnr_ssim import psnr, ssim
from cmtool.files.model_format import LoadedModel
from cmtool.files.streams.item import Item, pixels
from cmtool.files.streams.names import SkippedFiles, describe_skipped
from cmtool.files.streams.reader import items_of
from cmtool.pictures import with_channels
from cmtool.pipelines.canvas import SMOOTH, Canvas, make_canvas, resize
from cmtool.pipelines.classify import classify
from cmtool.pipelines.edit_sampler import Row, edit_rows, edit_sampler, join_canvas, make_operator
from cmtool.pipelines.inputs import class_index
from cmtool.settings import EditOptions

__all__ = ["Edits"]

REMARKS = 8


class Edits:
    """All the edits of a run, one after another, and what was measured on the way."""

    def __init__(self, model: LoadedModel[Denoiser], options: EditOptions, console: Console):
        self.model, self.options, self.console = model, options, console
        self.klass = class_index(model.header, options.klass)
        self.report = Report(options)
        self.images, self.error, self.sampler, self.classes = 0, None, None, []
        self.truths = Truths(options.truth, options.input, "true image") if options.truth else None
        self.masks = MaskFiles(options)
        self.passed = SkippedFiles()
        self.marked, self.remarks, self.warnings = 0, 0, 0
        self.scores: list[tuple[float, float]] = []

    def __iter__(self) -> Iterator[tuple[Canvas, int, Tensor]]:
        """Canvas, seed and result, uint8 [C, H, W]."""
        for some in self._batches():
            yield from self._edited(some)

    def _batches(self) -> Iterator[list[tuple[Canvas, Tensor | None]]]:
        """Canvases with their truths, until their rows fill a batch."""
        some, rows = [], 0
        for canvas, truth in self._canvases():
            some.append((canvas, truth))
            rows += len(canvas.tiles) * self.options.variants
            if rows >= self.options.batch:
                yield some
                some, rows = [], 0
        if some:
            yield some

    def _canvases(self) -> Iterator[tuple[Canvas, Tensor | None]]:
        options, header = self.options, self.model.header
        for item in items_of(options.input, self.passed):
            truth = self.truths.of(item) if self.truths else None
            canvas = make_canvas(item, options, header, self._remark, self._known_label(item), self.masks.of(item))
            self._tell_mask(canvas)
            yield canvas, None if truth is None else fit_truth(pixels(truth), truth.name, canvas)
        if self.passed:
            self.console.warn(f"{options.input}: {describe_skipped(self.passed)}")
        for note in self.passed.notes:
            self.console.warn(note)
        if self.truths and (left := self.truths.left()):
            self.console.say(f"{left:,} of the true images have no input of their name")

    def _edited(self, some: Sequence[tuple[Canvas, Tensor | None]]) -> Iterator[tuple[Canvas, int, Tensor]]:
        seeds = range(self.options.seed, self.options.seed + self.options.variants)
        rows: list[Row] = []
        for canvas, _ in some:
            self._check(canvas)
            label = self._label(canvas)
            rows += [Row(canvas, place, seed, label) for seed in seeds for place in canvas.tiles]
        out, done = edit_rows(self.model, self.options, rows), 0
        for canvas, truth in some:
            operator = make_operator(self.options.operator, [canvas] * len(canvas.tiles), canvas.tiles, self.model)
            images = []
            for seed in seeds:
                tiles, done = out[done : done + len(canvas.tiles)], done + len(canvas.tiles)
                images.append(join_canvas(canvas, tiles, operator.pixels))
                yield canvas, seed, cropped(images[-1], canvas)
            self._measure(canvas, operator, images, truth)

    def _check(self, canvas: Canvas) -> None:
        """Complain before the first evaluation, and keep the walk of the first picture for what is told."""
        if self.sampler is None:
            operator = make_operator(self.options.operator, [canvas], canvas.tiles[:1], self.model)
            self.sampler = edit_sampler(operator, self.model.header, self.options)

    def _remark(self, text: str) -> None:
        """The first few remarks on pictures; a folder may give rise to thousands."""
        self.remarks += 1
        if self.remarks <= REMARKS:
            self.console.say(text if self.remarks < REMARKS else f"{text}; further remarks like these are left out")

    def _known_label(self, item: Item) -> int | None:
        """The class that the data say: by the number in their labels, or the name of the folder."""
        header = self.model.header
        if not header.num_classes or self.klass is not None:
            return None
        if item.label is not None:
            if item.label < header.num_classes:
                return item.label
            self._remark(f"{item.name} has the label {item.label}, and the model has {header.num_classes} classes")
        folder = item.key.split("/")[0] if "/" in item.key else ""
        if folder in header.classes:
            return header.classes.index(folder)
        if folder and not are_numbers([folder]):
            with suppress(UsageError):  # other folders are for other things
                return match_classes([folder], header.classes)[0]
        return None

    def _tell_mask(self, canvas: Canvas) -> None:
        if canvas.marked is None or canvas.mask is None:
            return
        marked, pixels = canvas.marked
        self.marked += marked
        self._remark(f"{canvas.name}: {marked:,} of {pixels:,} pixels ({marked / pixels:.1%}) are to be filled in")
        if not canvas.mask.any():
            less = "nothing" if not marked else f"nothing at the model's size of {canvas.size[1]}x{canvas.size[0]}"
            self._warn(f"{canvas.name}: the mask marks {less}, so that nothing is changed")
        elif marked == pixels:
            self._warn(f"{canvas.name}: the mask marks everything, so that nothing of the picture is kept")

    def _warn(self, text: str) -> None:
        self.warnings += 1
        if self.warnings <= REMARKS:
            self.console.warn(text)

    def _label(self, canvas: Canvas) -> int | None:
        """The class asked for, that of the picture, or the one that fits best."""
        header = self.model.header
        if not header.num_classes:
            return None
        label = self.klass if self.klass is not None else canvas.label
        if label is None:
            label = classify(self.model, make_operator(self.options.operator, [canvas], canvas.tiles[:1], self.model))
            name = f" ({header.classes[label]})" if label < len(header.classes) else ""
            self._remark(f"{canvas.name}: class {label}{name} fits best what is known; --class asks for another")
        self.classes.append(label)
        return label

    def _measure(self, canvas: Canvas, operator: Operator, images: Sequence[Tensor], truth: Tensor | None) -> None:
        self.images += len(images)
        if operator.keeps:
            worst = max(known_error(canvas, operator, image) for image in images)
            self.error = max(worst, self.error or 0.0)
        images = [cropped(image, canvas) for image in images]
        scores = [] if truth is None else [(psnr(image, truth), ssim(image, truth)) for image in images]
        self.scores += scores
        self.report.add(canvas, operator, images, truth, scores)

    def found(self) -> dict[str, Any]:
        """What a document says of them."""
        return {
            "images": self.images,
            "sigmas": self.sampler.sigmas.tolist() if self.sampler else [],
            "nfe": self.sampler.nfe if self.sampler else 0,
            "known_error": self.error,
            "classes": self.classes or None,
            **({"marked": self.marked} if self.masks.asked else {}),
            **({"left_out": dict(sorted(self.passed.items()))} if self.passed else {}),
            **{name: self._mean(i) for i, name in enumerate(("psnr", "ssim")) if self.scores},
        }

    def _mean(self, i: int) -> float:
        return sum(score[i] for score in self.scores) / len(self.scores)

    def told(self) -> str:
        """One line for people."""
        parts = [f"{self.found()['nfe']} network evaluations each"]
        if self.error is not None:
            parts.append(f"the known part is off by at most {self.error:.2g} of 255 grey levels")
        if self.scores:
            parts.append(f"PSNR {self._mean(0):.2f} dB, SSIM {self._mean(1):.3f}")
        return "; ".join(parts)


def cropped(image: Tensor, canvas: Canvas) -> Tensor:
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


def fit_truth(truth: Any, name: str, canvas: Canvas) -> Tensor:
    """The true image at the size of the result."""
    high, wide = canvas.kept
    truth = with_channels(truth, len(canvas.image))
    if truth.shape[1:] != canvas.kept and truth.shape[1] * wide != truth.shape[2] * high:
        raise UsageError(f"{name} has not the proportions of the result, {wide}x{high}", "crop it first")
    return torch.from_numpy(truth if truth.shape[1:] == canvas.kept else resize(truth, canvas.kept, SMOOTH))
