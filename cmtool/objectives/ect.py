"""Easy consistency tuning (Geng et al. 2024, arXiv 2406.14548, section 3)."""

from torch import Tensor

from cmtool.errors import UsageError
from cmtool.objectives.consistency import Consistency, Pair, along_noise, tuning_weight
from cmtool.objectives.levels import ect_ratio, log_normal, shrinking
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
    sigma_min: float = 0.002,
    sigma_data: float = 0.5,
) -> Consistency:
    """Log-normal t with ``r(t)`` that starts at 0, plain denoising, and approaches t stage by stage.

    ``c`` is the constant of the pseudo-Huber metric, 0 for the norm itself. ``weight`` is "gap", 1/(t - r), as the
    authors train CIFAR-10; "variance", 1/c_out^2, as they train ImageNet; or "output", 1/c_out, which gives high
    levels more say and is what short runs need.
    """
    pair = closing(mean, std, q, k, b, stages, sigma_min)
    return Consistency(pair, along_noise, pseudo_huber_of(c), tuning_weight(weight, sigma_data), sigma_min=sigma_min)


def closing(mean: float, std: float, q: float, k: float, b: float, stages: int, sigma_min: float) -> Pair:
    """``ln t ~ N(mean, std^2)``, and ``r(t)`` that comes closer with every one of ``stages`` equal parts of the run."""
    if stages < 1:
        raise UsageError(f"pairs come closer in 1 stage or more, not {stages}", "8 is usual")

    def pair(u: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        t = log_normal(u, mean, std).clamp(min=sigma_min)  # below the boundary c_out changes sign
        return t, ect_ratio(t, shrinking(progress, stages), q, k, b)

    return pair
