"""Where the results of an edit go: files beside their inputs, an archive, a sheet; and the report sheet."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from torch import Tensor

from cmtool.core.editing.tiles import join_tiles
from cmtool.core.pixels import to_pixels
from cmtool.errors import UsageError
from cmtool.files.images import STREAM, check_stream, is_folder, open_writer
from cmtool.files.output_check import check_place, check_writable, is_same, made_by
from cmtool.files.picture_files import Cell, check_target, labelled_sheet, write_picture
from cmtool.files.streams.formats import FORMATS
from cmtool.files.streams.names import without_suffix
from cmtool.pictures import SUFFIXES
from cmtool.pipelines.any_images import image_keys
from cmtool.pipelines.editing import Edited
from cmtool.settings import EditOptions

__all__ = ["Report", "Take", "check_results", "is_single", "writing_results"]


Take = Callable[[str, str, np.ndarray], None]  # the key of the picture, what is put after it, uint8 [C, H, W]
OURS = made_by("edit")


def is_single(source: str, variants: int) -> bool:
    """Whether one result is expected: of one picture by its name, or of a pipe, which mostly holds one."""
    return variants == 1 and (source == STREAM or Path(source).suffix.lower() in SUFFIXES)


def check_results(options: EditOptions) -> str:
    """Where results go; UsageError for a place that cannot take them, or where something would be lost for them."""
    source, variants = options.input, options.variants
    one = is_single(source, variants)
    target = options.output or ("edited.png" if one else "edited")
    if not is_folder(target) and (one and Path(target).suffix.lower() not in (".npz", ".npy", ".tar", ".zip")):
        check_target(target)
    else:
        check_stream(target, (3, 1, 1))
    inputs = [source, options.mask, options.truth, options.model]
    if options.report:
        check_target(options.report)
        if str(options.report) == target or is_same(options.report, target):
            raise UsageError(f"{target} takes the results or the report", "give each a place of its own")
        check_place(options.report, inputs, overwrite=options.overwrite, ours=OURS)
    check_place(target, inputs, overwrite=options.overwrite, ours=OURS)
    if is_folder(target):
        check_writable(Path(target) / "x.png")
        if source != STREAM and os.path.exists(source) and not options.overwrite:
            _check_files(Path(target), options)
    return target


def _check_files(folder: Path, options: EditOptions) -> None:
    """UsageError where a result would take the place of an input, or of a file that no edit made."""
    keys, names = image_keys(options.input), _Names()
    root = Path(options.input)
    inputs = {os.path.realpath(root / key if root.is_dir() else root) for key in keys}
    for i, key in enumerate(keys):
        for after in afters(options):
            _check_file(folder / names(key or str(i), after), inputs)


def _check_file(path: Path, inputs: set[str]) -> None:
    if os.path.realpath(path) in inputs:
        raise UsageError(
            f"{path} is read by this command, which would write over it", "name another folder: -o edited/"
        )
    if os.path.isfile(path) and not OURS(path):
        raise UsageError(f"{path} exists, and no edit made it", "name another folder, or --overwrite")


def afters(options: EditOptions) -> list[str]:
    """What is put after the name of a picture, for each variant."""
    seeds = range(options.seed, options.seed + options.variants)
    return [f"-{seed}" for seed in seeds] if options.variants > 1 else [""]


@contextmanager
def writing_results(target: str, options: EditOptions) -> Iterator[Take]:
    """A place for results, one by one."""
    if is_folder(target):
        yield _Named(Path(target), options.overwrite)
        return
    with ExitStack() as stack:
        numbered = _Numbered(target, options, stack)
        yield numbered
        numbered.finish()


class _Names:
    """``a/photo.png`` of ``a/photo.jpg``, or ``a/photo-3.png`` of seed 3; one that is taken keeps its suffix."""

    def __init__(self):
        self.taken = set[str]()

    def __call__(self, key: str, after: str) -> str:
        stem = without_suffix(key) + after
        if stem in self.taken:
            stem = key + after
        while stem in self.taken:
            stem += "_"
        self.taken.add(stem)
        return f"{stem}.png"


class _Named:
    """A file for each result, under the name and in the sub-folder of its picture."""

    def __init__(self, folder: Path, overwrite: bool):
        self.folder, self.overwrite, self.names = folder, overwrite, _Names()

    def __call__(self, key: str, after: str, image: np.ndarray) -> None:
        path = self.folder / self.names(key, after)
        if not self.overwrite:
            _check_file(path, set())
        write_picture(path, image, "edit")


class _Numbered:
    """An archive, or a sheet, of as many results as the source has pictures; those of a pipe are held until its end.

    Archives keep the names. One result alone that goes to a .png or a pipe is a picture.
    """

    def __init__(self, target: str, options: EditOptions, stack: ExitStack):
        self.target, self.stack = target, stack
        self.n = None if options.input == STREAM else options.variants * len(image_keys(options.input))
        self.named = target == STREAM or FORMATS[Path(target).suffix.lower()].named
        self.shape: tuple[int, ...] = ()
        self.held: list[np.ndarray] = []
        self.names, self.called = _Names(), list[str]()
        self.writer, self.done = None, 0

    def __call__(self, key: str, after: str, image: np.ndarray) -> None:
        self.shape = self.shape or image.shape
        if image.shape != self.shape and not self.named:
            raise UsageError(f"results of several sizes do not fit into {self.target}", "name a folder: -o edited/")
        self.called.append(self.names(key, after))
        self.held.append(image)
        if self.n and self.n > 1:
            self._write(self.n)

    def _write(self, n: int) -> None:
        if self.writer is None:
            self.writer = self.stack.enter_context(
                open_writer(self.target, n, self.shape, called=self.called.__getitem__)
            )
        for image in self.held:
            self.writer.write([self.done], image[None])
            self.done += 1
        self.held = []

    def finish(self) -> None:
        if len(self.held) == 1 and Path(self.target).suffix.lower() in ("", ".png"):
            write_picture(self.target, self.held[0], "edit")
        elif self.held:
            self._write(len(self.held))


ROWS, VARIANTS = 12, 8  # at most on a sheet


class Report:
    """Collects the first pictures of a run."""

    def __init__(self, options: EditOptions):
        self.options, self.rows, self.truths = options, list[list[Cell]](), False

    def add(self, edited: Edited, truth: Tensor | None, scores: Sequence[tuple[float, float]]) -> None:
        """A row: the picture, its known part, the results with PSNR and SSIM below them, and the truth."""
        if self.options.report is None or len(self.rows) >= ROWS:
            return
        canvas, images = edited.canvas, edited.images
        high, wide = canvas.kept
        known = join_tiles(edited.operator.start.cpu(), canvas.tiles, canvas.size, canvas.step)
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
        write_picture(path, labelled_sheet(headings, self.rows), "edit")
