"""Easy consistency tuning (Geng et al. 2024, arXiv 2406.14548, section 3)."""

from torch import Tensor

from cmtool.core.grids import karras
from cmtool.errors import UsageError
from cmtool.objectives.consistency import Consistency, Pair, along_noise, pair_weight
from cmtool.objectives.levels import ect_ratio, log_normal, on_grid, shrinking
from cmtool.objectives.metrics import pseudo_huber_of

__all__ = ["closing", "ect"]


def ect(
    *,
    mean: float = -1.1,
    std: float = 2.0,
    q: float = 2.0,
    k: float = 8.0,
    b: float = 1.0,
    stages: int = 8,
    c: float = 0.0,
    weight: str = "gap",
    quantize: int = 0,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    sigma_data: float = 0.5,
) -> Consistency:
    """Log-normal t with ``r(t)`` that starts at 0, plain denoising, and approaches t stage by stage.

    ``c`` is the constant of the pseudo-Huber metric, 0 for the norm itself. ``weight`` is "gap", 1/(t - r), as the
    authors train CIFAR-10; "variance", 1/c_out^2, as they train ImageNet; or "output", 1/c_out, which gives high
    levels more say and is what short runs need. With ``quantize`` both levels of a
    pair are rounded to a Karras grid of so many, 1000 in FastGen.
    """
    pair = closing(mean, std, q, k, b, stages, sigma_min, quantize, sigma_max)
    return Consistency(pair, along_noise, pseudo_huber_of(c), pair_weight(weight, sigma_data), sigma_min=sigma_min)


def closing(
    mean: float,
    std: float,
    q: float,
    k: float,
    b: float,
    stages: int,
    sigma_min: float,
    quantize: int = 0,
    sigma_max: float = 80.0,
) -> Pair:
    """``ln t ~ N(mean, std^2)``, and ``r(t)`` that comes closer with every one of ``stages`` equal parts of the run."""
    if stages < 1:
        raise UsageError(f"pairs come closer in 1 stage or more, not {stages}", "8 is usual")
    if quantize and quantize < 2:
        raise UsageError(f"levels are rounded to a grid of 2 or more, not {quantize}", "1000 is usual, 0 leaves them")
    grid = karras(quantize, sigma_min, sigma_max) if quantize else None

    def pair(u: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        t = log_normal(u, mean, std).clamp(min=sigma_min)  # below the boundary c_out changes sign
        r = ect_ratio(t, shrinking(progress, stages), q, k, b)
        return (t, r) if grid is None else on_grid(t, r, grid)

    return pair
