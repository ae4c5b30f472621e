"""Flow matching on straight lines (Lipman et al. 2023, arXiv 2210.02747; Liu et al. 2023, arXiv 2209.03003)."""

from cmtool.core.denoiser import Preconditioning
from cmtool.core.process import FlowMatching
from cmtool.errors import unknown
from cmtool.objectives.denoising import Denoising, Levels
from cmtool.objectives.levels import log_normal, uniform_time
from cmtool.objectives.weights import weight as weight_called

__all__ = ["flow"]


def flow(
    *,
    times: str = "logit-normal",
    mean: float = 0.0,
    std: float = 1.0,
    weight: str = "velocity",
    gamma: float = 5.0,
    preconditioning: str = "flow",
    sigma_data: float = 0.5,
) -> Denoising:
    """``|v(x_t, t) - (z - x_0)|^2`` at ``x_t = (1 - t) x_0 + t z``; ``times`` are "logit-normal" or "uniform".

    ``mean`` and ``std`` are those of the logit of t, which is ln sigma (Esser et al. 2024, arXiv 2403.03206).
    """
    choices: dict[str, Levels] = {
        "logit-normal": lambda u: log_normal(u, mean, std),
        "uniform": lambda u: uniform_time(u, FlowMatching(), 1e-4, 1 - 1e-4),
    }
    if times not in choices:
        raise unknown("distribution of times", times, choices)
    return Denoising(
        choices[times],
        weight_called(weight, sigma_data, gamma),
        Preconditioning.named(preconditioning, sigma_data),
    )
