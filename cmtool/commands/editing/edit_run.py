"""The edits of a run: pictures as they come, with their masks and truths, and what is measured of the results."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Any

import torch
from torch import Tensor

from cmtool.class_names import are_numbers, known_names, match_classes
from cmtool.commands.console import Console
from cmtool.commands.editing.companions import MaskFiles, Truths
from cmtool.commands.editing.output import Report
from cmtool.core.denoiser import Denoiser
from cmtool.errors import Advice, Hint, UsageError
from cmtool.evaluation.psnr_ssim import psnr, ssim
from cmtool.files.header import Header
from cmtool.files.model_format import LoadedModel
from cmtool.files.streams.item import Item, pixels
from cmtool.files.streams.names import SkippedFiles, describe_skipped
from cmtool.pictures import with_channels
from cmtool.pipelines.any_images import image_items
from cmtool.pipelines.canvas import SMOOTH, Canvas, resize
from cmtool.pipelines.editing import Edited, EditingPipeline
from cmtool.pipelines.reporter import Progress
from cmtool.settings import EditOptions

__all__ = ["EditRun"]

MOST = 8  # remarks of a kind


class FirstRemarks:
    """Says the first few remarks on pictures and as many warnings; a folder may give rise to thousands."""

    def __init__(self, console: Console):
        self.console, self.remarks, self.warnings = console, 0, 0

    def say(self, text: Advice) -> None:
        self.remarks += 1
        if self.remarks <= MOST:
            more = "; further remarks like these are left out" if self.remarks == MOST else ""
            self.console.say(Hint("{}{}", text, more))

    def warn(self, text: Advice) -> None:
        self.warnings += 1
        if self.warnings <= MOST:
            self.console.warn(text)

    def progress(self, total: int | None, unit: str, label: str) -> AbstractContextManager[Progress]:
        return self.console.progress(total, unit, label)


class EditRun:
    """All edits of a run, one picture after another, and what was measured on the way."""

    def __init__(self, model: LoadedModel[Denoiser], options: EditOptions, console: Console):
        self.options, self.console, self.remarks = options, console, FirstRemarks(console)
        self.pipeline = EditingPipeline(model, options, self.remarks)
        self.report = Report(options)
        self.images, self.error, self.marked = 0, None, 0
        self.classes: list[int] = []
        self.truths = Truths(options.truth, options.input, "true image") if options.truth else None
        self.masks, self.skipped = MaskFiles(options), SkippedFiles()
        self.wanted: list[Tensor | None] = []  # the truths of pictures that are being edited
        self.scores: list[tuple[float, float]] = []

    def __iter__(self) -> Iterator[Edited]:
        for edited in self.pipeline(self._canvases()):
            yield edited
            self._measure(edited, self.wanted.pop(0))

    def _canvases(self) -> Iterator[Canvas]:
        header = self.pipeline.model.header
        for item in image_items(self.options.input, self.skipped):
            truth = self.truths.of(item) if self.truths else None
            label = known_label(item, header, self.remarks) if self.pipeline.label is None else None
            canvas = self.pipeline.canvas(item, self.masks.of(item), label)
            self.marked += describe_mask(canvas, self.remarks)
            self.wanted.append(None if truth is None else fit_truth(pixels(truth), truth.name, canvas))
            yield canvas
        if self.skipped:
            self.console.warn(f"{self.options.input}: {describe_skipped(self.skipped)}")
        for note in self.skipped.notes:
            self.console.warn(note)
        if self.truths and (left := self.truths.left()):
            self.console.say(f"{left:,} of the true images have no input of their name")

    def _measure(self, edited: Edited, truth: Tensor | None) -> None:
        self.images += len(edited.images)
        if edited.known_error is not None:
            self.error = max(edited.known_error, self.error or 0.0)
        if edited.label is not None:
            self.classes.append(edited.label)
        scores = [] if truth is None else [(psnr(image, truth), ssim(image, truth)) for image in edited.images]
        self.scores += scores
        self.report.add(edited, truth, scores)

    def document(self) -> dict[str, Any]:
        """What the result says of them."""
        sampler = self.pipeline.sampler
        return {
            "images": self.images,
            "sigmas": sampler.sigmas.tolist() if sampler else [],
            "nfe": sampler.nfe if sampler else 0,
            "known_error": self.error,
            "classes": self.classes or None,
            **({"marked": self.marked} if self.masks.asked else {}),
            **({"left_out": dict(sorted(self.skipped.items()))} if self.skipped else {}),
            **{name: mean(self.scores, i) for i, name in enumerate(("psnr", "ssim")) if self.scores},
        }

    def summary(self) -> str:
        """One line for people."""
        parts = [f"{self.document()['nfe']} NFE each"]
        if self.error is not None:
            parts.append(f"the known part is off by at most {self.error:.2g} of 255 grey levels")
        if self.scores:
            parts.append(f"PSNR {mean(self.scores, 0):.2f} dB, SSIM {mean(self.scores, 1):.3f}")
        return "; ".join(parts)


def mean(scores: Sequence[tuple[float, float]], i: int) -> float:
    return sum(score[i] for score in scores) / len(scores)


def known_label(item: Item, header: Header, remarks: FirstRemarks) -> int | None:
    """The class that the data say: by its name, by the number in their labels, or the name of the folder."""
    if not header.num_classes:
        return None
    if item.class_name:
        names = known_names(header.classes, header.num_classes)
        with suppress(UsageError):
            return match_classes([item.class_name], names)[0]
        if not are_numbers([item.class_name]) and not are_numbers(names):
            return None  # the numbers of other classes mean other things
    if item.label is not None:
        if item.label < header.num_classes:
            return item.label
        remarks.say(f"{item.name} has the label {item.label}, and the model has {header.num_classes} classes")
    folder = item.key.split("/")[0] if "/" in item.key else ""
    if folder in header.classes:
        return header.classes.index(folder)
    if folder and not are_numbers([folder]):
        with suppress(UsageError):  # other folders are for other things
            return match_classes([folder], header.classes)[0]
    return None


def describe_mask(canvas: Canvas, remarks: FirstRemarks) -> int:
    """Say how much of a picture is to be filled in; the number of pixels."""
    if canvas.marked is None or canvas.mask is None:
        return 0
    marked, every = canvas.marked
    remarks.say(f"{canvas.name}: {marked:,} of {every:,} pixels ({marked / every:.1%}) are to be filled in")
    if not canvas.mask.any():
        less = "nothing" if not marked else f"nothing at the model's size of {canvas.size[1]}x{canvas.size[0]}"
        remarks.warn(f"{canvas.name}: the mask marks {less}, so that nothing is changed")
    elif marked == every:
        remarks.warn(f"{canvas.name}: the mask marks everything, so that nothing of the picture is kept")
    return marked


def fit_truth(truth: Any, name: str, canvas: Canvas) -> Tensor:
    """The true image at the size of the result."""
    high, wide = canvas.kept
    truth = with_channels(truth, len(canvas.image))
    if truth.shape[1:] != canvas.kept and truth.shape[1] * wide != truth.shape[2] * high:
        raise UsageError(f"{name} has not the proportions of the result, {wide}x{high}", "crop it first")
    return torch.from_numpy(truth if truth.shape[1:] == canvas.kept else resize(truth, canvas.kept, SMOOTH))
