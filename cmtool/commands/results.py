"""Where the results of an edit go: each under the name of its picture, or numbered in an archive or on a sheet."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from cmtool.errors import UsageError
from cmtool.files.images import STREAM, check_stream, is_folder, open_writer
from cmtool.files.pictures import check_target, write_picture
from cmtool.files.streams.reading import items_of
from cmtool.pictures import SUFFIXES

__all__ = ["Take", "checked", "single", "writing_results"]

Take = Callable[[str, str, np.ndarray], None]  # the name of the picture, what is put after it, uint8 [C, H, W]


def single(source: str, variants: int) -> bool:
    """Whether one result is expected: of one picture by its name, or of a pipe, which mostly holds one."""
    return variants == 1 and (source == STREAM or Path(source).suffix.lower() in SUFFIXES)


def checked(target: str | None, source: str, variants: int) -> str:
    """Where results go; UsageError for a place that cannot take them, before hours are spent on them."""
    one = single(source, variants)
    target = target or ("edited.png" if one else "edited")
    if not is_folder(target) and (one and Path(target).suffix.lower() not in (".npz", ".npy", ".tar", ".zip")):
        check_target(target)
    else:
        check_stream(target, (3, 1, 1))
    return target


@contextmanager
def writing_results(target: str, source: str, variants: int) -> Iterator[Take]:
    """A place for results, one by one."""
    if is_folder(target):
        yield _Named(Path(target))
        return
    with ExitStack() as stack:
        numbered = _Numbered(target, source, variants, stack)
        yield numbered
        numbered.finish()


class _Named:
    """``photo.png``, or ``photo-3.png`` of seed 3; a name that is taken gets a line below it."""

    def __init__(self, folder: Path):
        self.folder, self.taken = folder, set[str]()

    def __call__(self, name: str, after: str, image: np.ndarray) -> None:
        stem = Path(name.replace(":", "/")).stem.replace(" ", "-") + after
        while stem in self.taken:
            stem += "_"
        self.taken.add(stem)
        write_picture(self.folder / f"{stem}.png", image)


class _Numbered:
    """An archive, or a sheet, of as many results as the source has pictures; those of a pipe are held until its end.

    One result alone that goes to a .png or a pipe is a picture.
    """

    def __init__(self, target: str, source: str, variants: int, stack: ExitStack):
        self.target, self.variants, self.stack = target, variants, stack
        self.n = None if source == STREAM else variants * sum(1 for _ in items_of(source))
        self.shape: tuple[int, ...] = ()
        self.held: list[np.ndarray] = []
        self.writer, self.done = None, 0

    def __call__(self, name: str, after: str, image: np.ndarray) -> None:
        self.shape = self.shape or image.shape
        if image.shape != self.shape:
            raise UsageError(f"results of several sizes do not fit into {self.target}", "name a folder: -o edited/")
        self.held.append(image)
        if self.n and self.n > 1:
            self._write(self.n)

    def _write(self, n: int) -> None:
        if self.writer is None:
            self.writer = self.stack.enter_context(open_writer(self.target, n, self.shape))
        self.writer.write(range(self.done, self.done + len(self.held)), np.stack(self.held))
        self.done, self.held = self.done + len(self.held), []

    def finish(self) -> None:
        if len(self.held) == 1 and Path(self.target).suffix.lower() in ("", ".png"):
            write_picture(self.target, self.held[0])
        elif self.held:
            self._write(len(self.held))
