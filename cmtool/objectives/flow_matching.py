"""Flow matching on straight lines (flow) and on circles (trigflow).

Sources: Lipman et al. 2023, arXiv 2210.02747; Liu et al. 2023, arXiv 2209.03003; Lu and Song 2024, arXiv 2410.11081,
section 3.
"""

from typing import Annotated

from cmtool.core.denoiser import Preconditioning
from cmtool.core.process import FlowMatching
from cmtool.errors import unknown_name
from cmtool.objectives.denoising import Denoising
from cmtool.objectives.noise_levels import (
    GammaOption,
    NoiseLevels,
    PMeanOption,
    PStdOption,
    WeightOption,
    log_normal,
    uniform_time,
    weight_called,
)
from cmtool.objectives.objective import PreconditioningOption, SigmaDataOption
from cmtool.options.plugin_option import Option

__all__ = ["flow", "trigflow"]


def flow(
    *,
    times: Annotated[str, Option("distribution of t", choices=("logit-normal", "uniform"))] = "logit-normal",
    P_mean: Annotated[float, Option("mean of the logit of t, which is ln sigma")] = 0.0,
    P_std: PStdOption = 1.0,
    weight: WeightOption = "velocity",
    gamma: GammaOption = 5.0,
    preconditioning: PreconditioningOption = "flow",
    sigma_data: SigmaDataOption = 0.5,
) -> Denoising:
    """Flow matching on straight lines, also called rectified flow: the network predicts the velocity ``z - x_0``.

    Formula: ``loss = |v(x_t, t) - (z - x_0)|^2``, ``x_t = (1 - t) x_0 + t z``
    Paper: Lipman et al. 2023, arXiv 2210.02747; Liu et al. 2023, arXiv 2209.03003.
    Use: as a teacher of velocities, or to go on from a model of this kind.

    Logit-normal times are those of Esser et al. 2024, arXiv 2403.03206.
    """
    choices: dict[str, NoiseLevels] = {
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
    *,
    P_mean: PMeanOption = -1.0,
    P_std: PStdOption = 1.4,
    weight: WeightOption = "edm",
    gamma: GammaOption = 5.0,
    sigma_data: SigmaDataOption = 0.5,
) -> Denoising:
    """TrigFlow: flow matching on a circle, the teacher of simplified consistency models.

    Formula: ``loss = |sigma_data F(x_t / sigma_data, t) - dx_t/dt|^2 / sigma_data^2``, ``sigma = sigma_data tan t``
    Paper: Lu and Song 2024, arXiv 2410.11081, section 3.
    Use: as the teacher or the start of 'scd' and 'sct'.

    As a weight of ``|D - x|^2`` it is EDM's; the network predicts the velocity on the circle and takes the angle.
    """
    return Denoising(
        noise_levels=lambda u: log_normal(u, P_mean, P_std),
        weight=weight_called(weight, sigma_data, gamma),
        preconditioning=Preconditioning.trigflow(sigma_data),
    )
