"""``smooth``: consistency tuning in which the two noise levels come closer at every step, not in stages."""

from typing import Annotated

from cmtool.objectives.consistency import Consistency, along_noise, inverse_output
from cmtool.objectives.distances import pseudo_huber
from cmtool.objectives.noise_levels import log_normal
from cmtool.options.plugin_option import Option
from cmtool.options.types import above, positive


def smooth(
    *,
    narrow: Annotated[float, Option("t / (t - r) at the end of the run; 4 suits runs of minutes", above(1))] = 16.0,
    P_mean: Annotated[float, Option("mean of ln sigma")] = -0.4,
    P_std: Annotated[float, Option("standard deviation of ln sigma", positive())] = 1.6,
    sigma_min: Annotated[float, Option("lowest noise level", positive())] = 0.002,
) -> Consistency:
    """Consistency tuning whose pairs of noise levels come closer at every step: denoising first, consistency last.

    Formula: ``r = t (1 - narrow^-p)`` at progress p from 0 to 1, ``ln t ~ N(P_mean, P_std^2)``
    Paper: after easy consistency tuning, Geng et al. 2024, arXiv 2406.14548; the pseudo-Huber metric of improved
    consistency training, Song and Dhariwal 2023, arXiv 2310.14189.
    Use: as a pattern for a method of your own.

    Errors add up over the steps from t to 0, so a short run wants few of them: a small ``narrow``.
    """

    def pair(u, progress):
        t = log_normal(u, P_mean, P_std).clamp(min=sigma_min)
        return t, t * (1 - narrow**-progress)

    return Consistency(pair, along_noise, pseudo_huber, inverse_output(sigma_data=0.5), sigma_min=sigma_min)
