"""``smooth``: consistency tuning in which the two noise levels approach each other at every step, not in stages."""

from typing import Annotated

from cmtool.objectives.consistency import Consistency, along_noise, inverse_output
from cmtool.objectives.distances import pseudo_huber
from cmtool.objectives.noise_levels import log_normal
from cmtool.objectives.objective import Requirements
from cmtool.options.plugin_option import Option
from cmtool.options.types import at_least, positive


def smooth(
    *,
    narrow: Annotated[float, Option("noise levels are 1/narrow of t apart at last", at_least(1.5))] = 16.0,
    P_mean: Annotated[float, Option("mean of ln sigma")] = -0.4,
    P_std: Annotated[float, Option("standard deviation of ln sigma", positive())] = 1.6,
    sigma_min: Annotated[float, Option("lowest noise level", positive())] = 0.002,
) -> Consistency:
    """Consistency tuning without stages.

    Formula: ``r = t (1 - narrow^-p)`` at progress p, ``loss = d(f(x_t, t), f(x_r, r)) / c_out(t)``
    Paper: the pairs resemble those of Geng et al. 2024, arXiv 2406.14548; the metric is that of Song and Dhariwal 2023,
    arXiv 2310.14189.
    Use: short runs, with a small ``narrow``: errors add up over the steps from t to 0.
    """

    def pair(u, progress):
        t = log_normal(u, P_mean, P_std).clamp(min=sigma_min)
        return t, t * (1 - narrow**-progress)

    return Consistency(
        pair,
        along_noise,
        pseudo_huber,
        inverse_output(sigma_data=0.5),
        requirements=Requirements("consistency", sigma_min),
    )
