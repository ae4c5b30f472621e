"""What a data set and a feature extractor have to be."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from cmtool.datasets import as_dataset
from cmtool.features import Features
from cmtool.testing.common import close, distinct, fix_seed, require

__all__ = ["check_dataset", "check_features"]


def check_dataset(dataset: Any) -> None:
    """``dataset[i] -> (image, label)``: a tensor uint8 [C, H, W], or float32 [D], and an index into ``.classes``.

    Reading is repeatable; ``.batch(indices)``, where there is one, equals the items; labels are None exactly where
    ``.classes`` is (); ``.notice`` says in one line whose the data are. One that is ``.thread_safe`` is read by several
    threads at once.
    """
    shape, classes, notice = dataset.shape, dataset.classes, dataset.notice
    require(len(dataset) > 0, "a data set has at least one item")
    require(isinstance(shape, tuple) and len(shape) in (1, 3), f"shape is (C, H, W) or (D,), and not {shape}")
    require(
        isinstance(classes, tuple) and all(isinstance(c, str) for c in classes), "classes is a tuple of names, or ()"
    )
    require(len(set(classes)) == len(classes), "no two classes have one name")
    require(isinstance(notice, str) and len(notice.splitlines()) == 1, "notice is one line: whose data, what licence")
    indices = sorted({0, len(dataset) // 3, len(dataset) // 2, len(dataset) - 1}, reverse=True)
    for i in indices:
        _check_item(dataset[i], dataset[i], shape, classes, i)
    found, numbers = as_dataset(dataset).batch(indices)
    images, labels = zip(*(dataset[i] for i in indices), strict=True)
    require(torch.equal(found, torch.stack(images)), "batch(indices) gives the images of the items, stacked")
    if classes:
        same = numbers is not None and torch.equal(numbers, torch.tensor(labels))
        require(same, "batch(indices) gives the labels of the items, int64 [B]")
    else:
        require(numbers is None, "batch(indices) gives None for labels where there are no classes")
    if as_dataset(dataset).thread_safe:
        with ThreadPoolExecutor(4) as pool:
            read = list(pool.map(lambda i: dataset[i][0], 8 * indices))
        same = all(map(torch.equal, read, 8 * images))
        require(same, "where thread_safe is set, threads that read at once get what one gets")


def _check_item(item: Any, again: Any, shape: tuple[int, ...], classes: tuple[str, ...], i: int) -> None:
    image, label = item
    require(isinstance(image, Tensor), f"item {i} is a tensor, and not {type(image).__name__}")
    dtype, found = torch.uint8 if len(shape) == 3 else torch.float32, (image.dtype, tuple(image.shape))
    require(found == (dtype, shape), f"item {i} has dtype {dtype} and shape {shape}, and not {found}")
    require(image.isfinite().all(), f"item {i} is finite")
    require(torch.equal(image, again[0]) and label == again[1], f"item {i} is the same each time it is read")
    if classes:
        good = type(label) is int and 0 <= label < len(classes)
        require(good, f"label {i} is an int from 0 to {len(classes) - 1}, and not {label!r}")
    else:
        require(label is None, f"label {i} is None where there are no classes, and not {label!r}")


@fix_seed()
def check_features(features: Any, inputs: Tensor | None = None) -> None:
    """``features(uint8 [B, C, H, W]) -> float32 [B, dim]``, with ``.name``, ``.label``, ``.fingerprint`` and ``.dim``.

    Rows do not see each other, calls are repeatable, other images have other features. ``inputs`` replaces the random
    32x32 colour images that are tried otherwise.
    """
    require(isinstance(features, Features), "features are a cmtool.features.Features")
    for field in ("name", "label", "fingerprint"):
        value = getattr(features, field, None)
        require(isinstance(value, str) and value, f"features.{field} is a name, and not {value!r}")
    x = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8) if inputs is None else inputs
    with torch.no_grad():
        out, again, alone = features(x), features(x), torch.cat([features(row[None]) for row in x])
    require(out.dtype == torch.float32, f"features are float32, and not {out.dtype}")
    require(
        out.shape == (len(x), features.dim), f"features are [B, {features.dim}] as .dim says, not {list(out.shape)}"
    )
    require(out.isfinite().all(), "features are finite")
    require(torch.equal(out, again), "the same images have the same features, bit for bit")
    require(close(alone, out, 1e-4), "the features of an image do not depend on the batch")
    require(distinct(out, 1e-5), "other images have other features")
    if inputs is None:
        require(features(x[:, :1]).shape == out.shape, "features take grey images [B, 1, H, W] as well")
