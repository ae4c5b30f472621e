"""From what a user calls a data set to the data set."""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from cmtool import registry
from cmtool.class_names import some_names
from cmtool.datasets.slices import Slice
from cmtool.dataspec import SLICE
from cmtool.errors import UsageError
from cmtool.home import expanded
from cmtool.settings import TrainOptions
from cmtool.values import Spec

__all__ = ["PATHS", "anchored", "open_dataset", "portrait"]

T = TypeVar("T", bound=TrainOptions)
PATHS = ("teacher", "init", "guide")


def open_dataset(spec: Mapping[str, Any], say: Callable[[str], None] = lambda line: None) -> Any:
    """``{"name": ..., "source": ..., "slice": "0::2", options}``; an empty one is a UsageError.

    ``say`` is told what was passed over, and that a folder of the same name was not meant.
    """
    spec = dict(spec)
    source, cut = spec.pop("source", None), spec.pop("slice", None)
    if source is None and Path(spec["name"]).is_dir():
        say(f"'{spec['name']}' is the data set of this name; for the folder of this name write ./{spec['name']}")
    dataset = registry.build("datasets", spec, source)
    if cut is not None:
        if not SLICE.fullmatch(str(cut)[:60]):
            raise UsageError(f"slice: {str(cut)[:60]} is no part of a data set", "write slice: '0:100' or '0::2'")
        start, stop, step = ([int(part) if part else None for part in str(cut).split(":")] + [None])[:3]
        dataset = Slice(dataset, start, stop, step or 1)
    if not len(dataset):
        raise UsageError(f"the data set '{spec['name']}' has no images" + (f" in [{cut}]" if cut else ""))
    for remark in getattr(dataset, "remarks", ()):
        say(remark)
    return dataset


def portrait(name: str, dataset: Any, conditional: bool = True) -> str:
    """``digits, 1,797 of 1x8x8, 10 classes: 0, 1, ...``: what is trained on."""
    size = f"{name}, {len(dataset):,} of {'x'.join(map(str, dataset.shape))}"
    if not dataset.classes:
        return f"{size}, no classes"
    classes = f"{len(dataset.classes):,} classes: {some_names(dataset.classes, 10)}"
    return f"{size}, {classes}" if conditional else f"{size}, its labels not used ({classes})"


def anchored(options: T) -> T:
    """The same options with whole paths, so that a run can be taken up from another working directory."""
    changed: dict[str, Any] = {name: _whole(path) for name in PATHS if (path := getattr(options, name, None))}
    if source := options.data.get("source"):
        changed["data"] = Spec(options.data | {"source": str(_whole(Path(source)))})
    return replace(options, **changed)


def _whole(path: Path) -> Path:
    found = Path(expanded(path))
    return Path(os.path.abspath(found)) if found.exists() else path
