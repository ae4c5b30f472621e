"""Between files and the model: uint8 [0, 255] in files, float32 [-1, 1] for the model; never NaN or infinity."""

from collections.abc import Callable

import torch
from torch import Tensor

from cmtool.errors import Diverged

__all__ = ["check_finite", "check_outputs", "to_model", "to_pixels", "truncate_to_pixels"]


def to_model(images: Tensor) -> Tensor:
    """``u / 127.5 - 1``; points are in model units already and pass through."""
    return images.float() / 127.5 - 1 if images.dtype == torch.uint8 else images


def to_pixels(x: Tensor) -> Tensor:
    """``clip(round((x + 1) 127.5))``, the exact inverse on what came from pixels."""
    return ((x.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def truncate_to_pixels(x: Tensor) -> Tensor:
    """``clip(floor((x + 1) 127.5))``, as OpenAI's programs write images; on average half a grey level darker."""
    return ((x.float() + 1) * 127.5).clamp(0, 255).to(torch.uint8)


def check_outputs(model: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The same denoiser; Diverged, with the noise level, when an image of it is not finite."""

    def check(x: Tensor, sigma: Tensor, labels: Tensor | None = None, *conditioning: Tensor) -> Tensor:
        return check_finite(model(x, sigma, labels, *conditioning), f"at noise level {float(sigma.max()):.4g}")

    return check


def check_finite(x: Tensor, where: str) -> Tensor:
    """``x`` itself; Diverged when a number of it is NaN or infinite."""
    if not x.isfinite().all():
        raise Diverged(
            f"what the model makes {where} is not finite (NaN or infinite)",
            "its weights are finite, so it may not know this noise level, or its file needs other options",
        )
    return x
