"""What a feature network has to be."""

from typing import Any

import torch
from torch import Tensor

from cmtool.testing.common import close, distinct, seeded, want

__all__ = ["check_features"]


@seeded()
def check_features(features: Any, inputs: Tensor | None = None) -> None:
    """``features(uint8 [B, C, H, W]) -> float32 [B, dim]``, with ``.name``, ``.label``, ``.fingerprint`` and ``.dim``.

    Rows do not see each other, calls are repeatable, other images have other features. ``inputs`` replaces the random
    32x32 colour images that are tried otherwise.
    """
    for field in ("name", "label", "fingerprint"):
        value = getattr(features, field, None)
        want(isinstance(value, str) and value, f"features.{field} is a name, and not {value!r}")
    x = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8) if inputs is None else inputs
    with torch.no_grad():
        out, again, alone = features(x), features(x), torch.cat([features(row[None]) for row in x])
    want(out.dtype == torch.float32, f"features are float32, and not {out.dtype}")
    want(out.shape == (len(x), features.dim), f"features are [B, {features.dim}] as .dim says, not {list(out.shape)}")
    want(out.isfinite().all(), "features are finite")
    want(torch.equal(out, again), "the same images have the same features, bit for bit")
    want(close(alone, out, 1e-4), "the features of an image do not depend on the batch")
    want(distinct(out, 1e-5), "other images have other features")
    if inputs is None:
        want(features(x[:, :1]).shape == out.shape, "features take grey images [B, 1, H, W] as well")
