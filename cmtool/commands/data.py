"""From what a user calls a data set to the data set."""

from collections.abc import Mapping
from typing import Any

from cmtool import registry
from cmtool.datasets.slices import Slice
from cmtool.errors import UsageError

__all__ = ["open_dataset"]


def open_dataset(spec: Mapping[str, Any]) -> Any:
    """``{"name": ..., "source": ..., "slice": "0::2", options}``; an empty one is a UsageError."""
    spec = dict(spec)
    source, cut = spec.pop("source", None), spec.pop("slice", None)
    dataset = registry.build("datasets", spec, source)
    if cut is not None:
        start, stop, step = ([int(part) if part else None for part in cut.split(":")] + [None])[:3]
        dataset = Slice(dataset, start, stop, step or 1)
    if not len(dataset):
        raise UsageError(f"the data set '{spec['name']}' has no images" + (f" in [{cut}]" if cut else ""))
    return dataset
