"""The edits of a run, one after another as pictures come, and what is measured on the way."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

from cmtool.commands.canvas import SMOOTH, Canvas, canvas_of, resized
from cmtool.commands.console import Console
from cmtool.commands.edit_report import Report
from cmtool.commands.edit_walk import edit_walk
from cmtool.commands.edits import Row, edited, operator_of, whole
from cmtool.commands.guess import guessed
from cmtool.commands.models import class_index
from cmtool.core.denoiser import Denoiser
from cmtool.core.operators import Operator
from cmtool.core.pixels import to_model
from cmtool.core.tiles import cut
from cmtool.errors import UsageError
from cmtool.evaluation.similarity import psnr, ssim
from cmtool.files.streams.item import pixels
from cmtool.files.streams.reading import items_of
from cmtool.pictures import with_channels
from cmtool.settings import EditOptions

__all__ = ["Edits"]

REMARKS = 8


class Edits:
    """All the edits of a run, one after another, and what was measured on the way."""

    def __init__(self, model: Denoiser, options: EditOptions, console: Console):
        self.model, self.options, self.console = model, options, console
        self.klass = class_index(model.header, options.klass)
        self.report = Report(options)
        self.images, self.error, self.walk, self.classes = 0, None, None, []
        self.remarks = 0
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
        truths = items_of(self.options.truth) if self.options.truth else None
        pairs: Iterable[tuple[Any, Any]] = zip_longest(items_of(self.options.input), truths or ())
        for item, truth in pairs:
            if item is None or (truths is not None and truth is None):
                raise UsageError("there are not as many true images as inputs", "they belong together in their order")
            label = item.label if self.model.header.conditional else None
            canvas = canvas_of(pixels(item), item.name, self.options, self.model.header, self._remark, label)
            yield canvas, None if truth is None else fitted_truth(pixels(truth), truth.name, canvas)

    def _edited(self, some: Sequence[tuple[Canvas, Tensor | None]]) -> Iterator[tuple[Canvas, int, Tensor]]:
        seeds = range(self.options.seed, self.options.seed + self.options.variants)
        rows: list[Row] = []
        for canvas, _ in some:
            self._check(canvas)
            label = self._label(canvas)
            rows += [Row(canvas, place, seed, label) for seed in seeds for place in canvas.tiles]
        out, done = edited(self.model, self.options, rows), 0
        for canvas, truth in some:
            operator = operator_of(self.options.operator, [canvas] * len(canvas.tiles), canvas.tiles, self.model)
            images = []
            for seed in seeds:
                tiles, done = out[done : done + len(canvas.tiles)], done + len(canvas.tiles)
                images.append(whole(canvas, tiles, operator.pixels))
                yield canvas, seed, images[-1]
            self._measure(canvas, operator, images, truth)

    def _check(self, canvas: Canvas) -> None:
        """Complain before the first evaluation, and keep the walk of the first picture for what is told."""
        if self.walk is None:
            operator = operator_of(self.options.operator, [canvas], canvas.tiles[:1], self.model)
            self.walk = edit_walk(operator, self.model.header, self.options)

    def _remark(self, text: str) -> None:
        """The first few remarks on pictures; a folder may give rise to thousands."""
        self.remarks += 1
        if self.remarks <= REMARKS:
            self.console.say(text if self.remarks < REMARKS else f"{text}; further remarks like these are left out")

    def _label(self, canvas: Canvas) -> int | None:
        """The class asked for, that of the picture, or the one that fits best."""
        header = self.model.header
        if not header.conditional:
            return None
        known = canvas.label if canvas.label is not None and canvas.label < header.conditional else None
        label = self.klass if self.klass is not None else known
        if label is None:
            label = guessed(self.model, operator_of(self.options.operator, [canvas], canvas.tiles[:1], self.model))
            name = f" ({header.classes[label]})" if header.classes else ""
            self._remark(f"{canvas.name}: class {label}{name} fits best what is known; --class asks for another")
        self.classes.append(label)
        return label

    def _measure(self, canvas: Canvas, operator: Operator, images: Sequence[Tensor], truth: Tensor | None) -> None:
        self.images += len(images)
        if operator.keeps:
            worst = max(known_error(canvas, operator, image) for image in images)
            self.error = max(worst, self.error or 0.0)
        scores = [] if truth is None else [(psnr(image, truth), ssim(image, truth)) for image in images]
        self.scores += scores
        self.report.add(canvas, operator, images, truth, scores)

    def found(self) -> dict[str, Any]:
        """What a document says of them."""
        return {
            "images": self.images,
            "levels": self.walk.levels.tolist() if self.walk else [],
            "evaluations": self.walk.evaluations if self.walk else 0,
            "known_error": self.error,
            "classes": self.classes or None,
            **{name: self._mean(i) for i, name in enumerate(("psnr", "ssim")) if self.scores},
        }

    def _mean(self, i: int) -> float:
        return sum(score[i] for score in self.scores) / len(self.scores)

    def told(self) -> str:
        """One line for people."""
        parts = [f"{self.found()['evaluations']} network evaluations each"]
        if self.error is not None:
            parts.append(f"the known part is off by at most {self.error:.2g} of 255 grey levels")
        if self.scores:
            parts.append(f"PSNR {self._mean(0):.2f} dB, SSIM {self._mean(1):.3f}")
        return "; ".join(parts)


def known_error(canvas: Canvas, operator: Operator, image: Tensor) -> float:
    """How far the known part of the result is from what it should be, in grey levels, tile by tile."""
    more = [n - kept for n, kept in zip(canvas.size, canvas.kept, strict=True)]
    full = torch.nn.functional.pad(to_model(image)[None], (0, more[1], 0, more[0]), mode="replicate")[0]
    tile = operator.reference.shape[2:]
    off = operator.known_part(cut(full, canvas.tiles, tile).to(operator.reference)) - operator.known_part(
        operator.reference
    )
    return float(off.abs().max()) * 127.5


def fitted_truth(truth: Any, name: str, canvas: Canvas) -> Tensor:
    """The true image at the size of the result."""
    high, wide = canvas.kept
    truth = with_channels(truth, len(canvas.image))
    if truth.shape[1:] != canvas.kept and truth.shape[1] * wide != truth.shape[2] * high:
        raise UsageError(f"{name} has not the proportions of the result, {wide}x{high}", "crop it first")
    return torch.from_numpy(truth if truth.shape[1:] == canvas.kept else resized(truth, canvas.kept, SMOOTH))
