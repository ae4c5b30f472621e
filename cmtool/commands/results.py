"""Where the results of an edit go, each under the name of its picture."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np

from cmtool.errors import UsageError
from cmtool.files.images import STREAM, open_writer
from cmtool.files.pictures import check_target, write_picture
from cmtool.pictures import SUFFIXES

__all__ = ["Results", "alone", "checked", "results"]


class Results(Protocol):
    """Takes results one by one: the name of the picture, which variant it is (None of one), and uint8 [C, H, W]."""

    def __call__(self, name: str, seed: int | None, image: np.ndarray) -> None: ...


def alone(source: str) -> bool:
    """Whether an input is one picture by its name, or a pipe, which is one unless it turns out otherwise."""
    return source == STREAM or Path(source).suffix.lower() in SUFFIXES


def checked(target: str | None, source: str, variants: int) -> str:
    """Where results go when nothing is said, or what was said if they fit there; asked before hours are spent."""
    one = alone(source) and variants == 1
    target = target or ("edited.png" if one else "edited")
    if is_folder(target) or Path(target).suffix.lower() in (".npz", ".tar", ".zip"):
        return target
    if one or target == STREAM:
        check_target(target)
    elif Path(target).suffix.lower() in SUFFIXES:
        many = f"{variants} variants" if alone(source) else f"the results of {source}"
        raise UsageError(f"{many} do not fit into {target}", f"name a folder: -o {Path(target).stem}/")
    return target


def is_folder(target: str) -> bool:
    return target != STREAM and (Path(target).is_dir() or not Path(target).suffix or target.endswith("/"))


@contextmanager
def results(target: str, one: bool) -> Iterator[Results]:
    """A place for results: one PNG, a folder of them, or an archive, in which they are numbered."""
    if is_folder(target):
        yield _Named(Path(target))
    elif one:
        yield lambda name, seed, image: write_picture(target, image)
    else:
        held: list[np.ndarray] = []
        yield lambda name, seed, image: held.append(image)
        _archive(target, held)


class _Named:
    """``photo.png``, or ``photo-3.png`` of seed 3; a name that is taken gets a number."""

    def __init__(self, folder: Path):
        self.folder, self.taken = folder, set[str]()

    def __call__(self, name: str, seed: int | None, image: np.ndarray) -> None:
        stem = Path(name.replace(":", "/")).stem + ("" if seed is None else f"-{seed}")
        while stem in self.taken:
            stem += "_"
        self.taken.add(stem)
        write_picture(self.folder / f"{stem}.png", image)


def _archive(target: str, images: list[np.ndarray]) -> None:
    shapes = {image.shape for image in images}
    if len(shapes) != 1:
        raise UsageError(f"results of several sizes do not fit into {target}", "name a folder: -o edited/")
    with open_writer(target, len(images), images[0].shape) as writer:
        for i, image in enumerate(images):
            writer.write([i], image[None])
