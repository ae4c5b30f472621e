"""TrigFlow (Lu and Song 2024, arXiv 2410.11081, section 3)."""

from cmtool.core.denoiser import Preconditioning
from cmtool.objectives.denoising import Denoising
from cmtool.objectives.levels import log_normal
from cmtool.objectives.weights import weight as weight_called

__all__ = ["trigflow"]


def trigflow(
    *, mean: float = -1.0, std: float = 1.4, weight: str = "edm", gamma: float = 5.0, sigma_data: float = 0.5
) -> Denoising:
    """``|sigma_data F(x_t / sigma_data, t) - dx_t/dt|^2 / sigma_data^2`` with ``ln(sigma_data tan t)`` normal.

    As the weight of ``|D - x|^2`` it is EDM's; the network predicts the velocity on the circle and is told the angle.
    """
    return Denoising(
        levels=lambda u: log_normal(u, mean, std),
        weight=weight_called(weight, sigma_data, gamma),
        preconditioning=Preconditioning.trigflow(sigma_data),
    )
