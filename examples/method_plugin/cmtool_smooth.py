"""``smooth``: consistency tuning in which the two levels approach each other at every step, not in stages."""

from cmtool.errors import UsageError
from cmtool.objectives.consistency import Consistency, along_noise, inverse_output
from cmtool.objectives.distances import pseudo_huber
from cmtool.objectives.noise_levels import log_normal


def smooth(*, narrow: float = 16.0, mean: float = -0.4, std: float = 1.6, sigma_min: float = 0.002) -> Consistency:
    """``r = t (1 - narrow^-p)`` at progress p: plain denoising at first, and levels 1/``narrow`` of t apart at last.

    Errors add up over the steps from t to 0, so a short run wants few of them: a small ``narrow``.
    The levels of easy consistency tuning (Geng et al. 2024, arXiv 2406.14548), log-normal with ``mean`` and ``std``,
    and the metric of improved consistency training (Song and Dhariwal 2023, arXiv 2310.14189).
    """
    if narrow <= 1:
        raise UsageError(f"'smooth' needs narrow above 1, not {narrow:g}", "16 is usual, and 4 suits runs of minutes")

    def pair(u, progress):
        t = log_normal(u, mean, std).clamp(min=sigma_min)
        return t, t * (1 - narrow**-progress)

    return Consistency(pair, along_noise, pseudo_huber, inverse_output(sigma_data=0.5), sigma_min=sigma_min)
