"""Images as every network of features takes them: three channels."""

from torch import Tensor

from cmtool.errors import UsageError

__all__ = ["rgb"]


def rgb(images: Tensor, features: str) -> Tensor:
    """``images`` [B, 1 or 3, H, W] with grey repeated to [B, 3, H, W]; UsageError when they are no such images."""
    if images.ndim != 4:
        raise UsageError(f"the features '{features}' measure images, not points", "points need --features points")
    if images.shape[1] not in (1, 3):
        raise UsageError(f"the features '{features}' measure images with 1 or 3 channels, not {images.shape[1]}")
    return images.expand(-1, 3, -1, -1)
