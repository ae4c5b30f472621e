"""What a data set has to be."""

from typing import Any

import torch
from torch import Tensor

from cmtool.testing.common import want

__all__ = ["check_dataset"]


def check_dataset(dataset: Any) -> None:
    """``dataset[i] -> (image, label)``: a tensor uint8 [C, H, W], or float32 [D], and an index into ``.classes``.

    Reading is repeatable; ``.batch(indices)``, where there is one, equals the items; labels are None exactly where
    ``.classes`` is (); ``.notice`` says in one line whose the data are.
    """
    shape, classes, notice = dataset.shape, dataset.classes, dataset.notice
    want(len(dataset) > 0, "a data set has at least one item")
    want(isinstance(shape, tuple) and len(shape) in (1, 3), f"shape is (C, H, W) or (D,), and not {shape}")
    want(isinstance(classes, tuple) and all(isinstance(c, str) for c in classes), "classes is a tuple of names, or ()")
    want(len(set(classes)) == len(classes), "no two classes have one name")
    want(isinstance(notice, str) and len(notice.splitlines()) == 1, "notice is one line: whose data, what licence")
    indices = sorted({0, len(dataset) // 3, len(dataset) // 2, len(dataset) - 1}, reverse=True)
    for i in indices:
        _check_item(dataset[i], dataset[i], shape, classes, i)
    if hasattr(dataset, "batch"):
        found, numbers = dataset.batch(indices)
        images, labels = zip(*(dataset[i] for i in indices), strict=True)
        want(torch.equal(found, torch.stack(images)), "batch(indices) gives the images of the items, stacked")
        if classes:
            want(torch.equal(numbers, torch.tensor(labels)), "batch(indices) gives the labels of the items, int64 [B]")
        else:
            want(numbers is None, "batch(indices) gives None for labels where there are no classes")


def _check_item(item: Any, again: Any, shape: tuple[int, ...], classes: tuple[str, ...], i: int) -> None:
    image, label = item
    want(isinstance(image, Tensor), f"item {i} is a tensor, and not {type(image).__name__}")
    dtype, found = torch.uint8 if len(shape) == 3 else torch.float32, (image.dtype, tuple(image.shape))
    want(found == (dtype, shape), f"item {i} has dtype {dtype} and shape {shape}, and not {found}")
    want(image.isfinite().all(), f"item {i} is finite")
    want(torch.equal(image, again[0]) and label == again[1], f"item {i} is the same each time it is read")
    if classes:
        good = type(label) is int and 0 <= label < len(classes)
        want(good, f"label {i} is an int from 0 to {len(classes) - 1}, and not {label!r}")
    else:
        want(label is None, f"label {i} is None where there are no classes, and not {label!r}")
