"""The sheet of an edit: inputs, what is known of them, results, and the truth with two measures of nearness."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from cmtool.commands.canvas import Canvas
from cmtool.core.operators import Operator
from cmtool.core.pixels import to_pixels
from cmtool.core.tiles import joined
from cmtool.files.pictures import write_picture
from cmtool.files.sheets import Cell, labelled
from cmtool.settings import EditOptions

__all__ = ["Report"]

ROWS, VARIANTS = 12, 8  # at most on a sheet


class Report:
    """Collects the first pictures of a run."""

    def __init__(self, options: EditOptions):
        self.options, self.rows, self.truths = options, list[list[Cell]](), False

    def add(
        self,
        canvas: Canvas,
        operator: Operator,
        images: Sequence[Tensor],
        truth: Tensor | None,
        scores: Sequence[tuple[float, float]],
    ) -> None:
        """A row: the picture, its known part, the results with PSNR and SSIM below them, and the truth."""
        if self.options.report is None or len(self.rows) >= ROWS:
            return
        high, wide = canvas.kept
        known = joined(operator.start.cpu(), canvas.tiles, canvas.size, canvas.step)
        words = [[f"{p:.1f} dB", f"SSIM {s:.3f}"] for p, s in scores] or [[]] * len(images)
        row: list[Cell] = [(to_pixels(part)[:, :high, :wide].numpy(), []) for part in (canvas.image, known)]
        row += [(image.numpy(), lines) for image, lines in zip(images[:VARIANTS], words, strict=False)]
        self.truths = truth is not None
        self.rows.append(row if truth is None else [*row, (truth.numpy(), [])])

    def write(self, path: Path) -> None:
        """The sheet as a PNG."""
        seeds = range(self.options.seed, self.options.seed + min(self.options.variants, VARIANTS))
        results = [self.options.operator.name] if len(seeds) == 1 else [f"seed {seed}" for seed in seeds]
        headings = ["input", "known", *results, *(["truth"] if self.truths else [])]
        write_picture(path, labelled(headings, self.rows), "edit")
