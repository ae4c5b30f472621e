"""``best.safetensors`` of a run: the model that was the best when it was measured.

    best.safetensors            the best so far; its header says by which metric and value
    best/00012000.safetensors   one that was the best at 12,000 images, and is so again when the run goes back

A run goes back to an older state when it is resumed or rolled back. What was the best by then must still be there, so
one that is surpassed is set aside until no state is kept from which it would be the best.
"""

from collections.abc import Collection, Iterator
from pathlib import Path

from cmtool.errors import BadFile, MissingInput
from cmtool.files.atomic import make_folder, sweep, write_file
from cmtool.files.header import Header, read_header

__all__ = ["BEST", "prune_best", "read_best", "rewind_best", "set_aside_best"]

BEST, EARLIER = "best.safetensors", "best"


def read_best(folder: Path) -> Header | None:
    """The header of the best checkpoint; None where there is none that can be read."""
    try:
        header = read_header(folder / BEST)
    except (MissingInput, BadFile):
        return None
    known = isinstance(header.evaluation.get("value"), int | float) and header.evaluation.get("metric")
    return header if isinstance(known, str) else None


def set_aside_best(folder: Path) -> None:
    """Make room for a better one; what stands there is kept under its number of images."""
    header = read_best(folder)
    if header:
        place = _place(folder, header.images)
        make_folder(place.parent)
        with write_file(place):
            (folder / BEST).replace(place)


def rewind_best(folder: Path, images: int) -> None:
    """Make the best checkpoint that of the first ``images``, and drop those that came later or cannot be read."""
    sweep(folder / EARLIER)
    best = folder / BEST
    if best.is_file() and ((header := read_best(folder)) is None or header.images > images):
        _remove(best)
    for number, path in sorted(_set_aside(folder), reverse=True):
        if number > images:
            _remove(path)
        elif not best.is_file():
            with write_file(best):
                path.replace(best)


def prune_best(folder: Path, states: Collection[int]) -> None:
    """Remove what would be the best in none of the ``states`` that are kept, each a number of images."""
    header = read_best(folder)
    later = header.images if header else None
    for number, path in sorted(_set_aside(folder), reverse=True):
        if later is not None and not any(number <= state < later for state in states):
            _remove(path)
        later = number


def _place(folder: Path, images: int) -> Path:
    return folder / EARLIER / f"{images:08d}.safetensors"


def _set_aside(folder: Path) -> Iterator[tuple[int, Path]]:
    for path in (folder / EARLIER).glob("*.safetensors"):
        if path.stem.isdecimal():
            yield int(path.stem), path


def _remove(path: Path) -> None:
    with write_file(path):
        path.unlink(missing_ok=True)
