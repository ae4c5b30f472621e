"""Flow matching on straight lines (flow) and on circles (trigflow).

Sources: Lipman et al. 2023, arXiv 2210.02747; Liu et al. 2023, arXiv 2209.03003; Lu and Song 2024, arXiv 2410.11081,
section 3.
"""

from cmtool.core.denoiser import Preconditioning
from cmtool.core.process import FlowMatching
from cmtool.errors import unknown_name
from cmtool.objectives.denoising import Denoising, Levels, weight_called
from cmtool.objectives.noise_levels import log_normal, uniform_time

__all__ = ["flow", "trigflow"]


def flow(
    *,
    times: str = "logit-normal",
    P_mean: float = 0.0,
    P_std: float = 1.0,
    weight: str = "velocity",
    gamma: float = 5.0,
    preconditioning: str = "flow",
    sigma_data: float = 0.5,
) -> Denoising:
    """``|v(x_t, t) - (z - x_0)|^2`` at ``x_t = (1 - t) x_0 + t z``; ``times`` are "logit-normal" or "uniform".

    ``mean`` and ``std`` are those of the logit of t, which is ln sigma (Esser et al. 2024, arXiv 2403.03206).
    """
    choices: dict[str, Levels] = {
        "logit-normal": lambda u: log_normal(u, P_mean, P_std),
        "uniform": lambda u: uniform_time(u, FlowMatching(), 1e-4, 1 - 1e-4),
    }
    if times not in choices:
        raise unknown_name("distribution of times", times, choices)
    return Denoising(
        choices[times],
        weight_called(weight, sigma_data, gamma),
        Preconditioning.named(preconditioning, sigma_data),
    )


def trigflow(
    *, P_mean: float = -1.0, P_std: float = 1.4, weight: str = "edm", gamma: float = 5.0, sigma_data: float = 0.5
) -> Denoising:
    """``|sigma_data F(x_t / sigma_data, t) - dx_t/dt|^2 / sigma_data^2`` with ``ln(sigma_data tan t)`` normal.

    As the weight of ``|D - x|^2`` it is EDM's; the network predicts the velocity on the circle and is told the angle.
    """
    return Denoising(
        levels=lambda u: log_normal(u, P_mean, P_std),
        weight=weight_called(weight, sigma_data, gamma),
        preconditioning=Preconditioning.trigflow(sigma_data),
    )
