"""Numbers that are not finite are an error where they arise: as a pixel, NaN would be black and infinity white."""

from collections.abc import Callable

from torch import Tensor

from cmtool.errors import Diverged

__all__ = ["check_finite", "finite"]


def finite(model: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The same denoiser; Diverged, with the noise level, when an image of it is not finite."""

    def checked(x: Tensor, sigma: Tensor, labels: Tensor | None = None, *told: Tensor) -> Tensor:
        return check_finite(model(x, sigma, labels, *told), f"at noise level {float(sigma.max()):.4g}")

    return checked


def check_finite(x: Tensor, where: str) -> Tensor:
    """``x`` itself; Diverged when a number of it is NaN or infinite."""
    if not x.isfinite().all():
        raise Diverged(
            f"what the model makes {where} is not finite (NaN or infinite)",
            "its weights are finite, so it may not know this level, or its file needs other options",
        )
    return x
