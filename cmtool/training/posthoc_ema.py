"""Averages by a power function, and how stored ones make any other after training.

The average at time t weighs the weights of an earlier time tau by the profile ``p(tau) = (gamma + 1) tau^gamma /
t^(gamma + 1)``: a share of the run, however long it becomes. Its width sigma_rel is the standard deviation of the
profile as a share of t. Times are in images; only their ratios matter.
Source: Karras et al. 2024, arXiv 2312.02696, section 3 and appendix C.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["EMAMix", "exponent", "overlap", "profile", "solve_mix", "width"]


def width(exponent: float) -> float:
    """``sigma_rel = sqrt((gamma + 1) / ((gamma + 2)^2 (gamma + 3)))``."""
    return float(np.sqrt((exponent + 1) / ((exponent + 2) ** 2 * (exponent + 3))))


def exponent(width: float) -> float:
    """The gamma of a width: the largest real root of ``gamma^3 + 7 gamma^2 + (16 - s) gamma + 12 - s``, s = width^-2.

    Not negative for widths up to ``12^(-1/2)``, for which the other roots are.
    """
    s = float(width) ** -2
    return float(np.roots([1, 7, 16 - s, 12 - s]).real.max())


def profile(tau: np.ndarray, time: float, width: float) -> np.ndarray:
    """The weight of time ``tau`` in the average at ``time``, 0 after it; its integral is 1."""
    gamma = exponent(width)
    return np.where(tau <= time, (gamma + 1) / time * (np.minimum(tau, time) / time) ** gamma, 0.0)


def overlap(
    times: Sequence[float], widths: Sequence[float], other_times: Sequence[float], other_widths: Sequence[float]
) -> np.ndarray:
    """``A_ij``, the integral of the product of the i-th profile with the j-th other one.

    With a the i-th and b the j-th, of which b is the later, ``(gamma_a + 1) (gamma_b + 1) (t_a / t_b)^gamma_b /
    ((gamma_a + gamma_b + 1) t_b)``; likewise with a and b exchanged.
    """
    a, b = np.array(times, float)[:, None], np.array(other_times, float)
    p, q = (np.array([exponent(w) for w in found]) for found in (widths, other_widths))
    p = p[:, None]
    power = np.where(a < b, q, p)
    return (p + 1) * (q + 1) * (np.minimum(a, b) / np.maximum(a, b)) ** power / ((p + q + 1) * np.maximum(a, b))


@dataclass(frozen=True)
class EMAMix:
    """What each stored average counts, and how well their sum does.

    ``weights``    sum to 1, and are partly negative
    ``residual``   distance of the profiles' sum from the profile wanted, as a share of that one's norm
    ``condition``  of the system that was solved
    ``gain``       sum of the weights' magnitudes: by how much rounding errors of the stored averages may grow
    """

    weights: np.ndarray
    residual: float
    condition: float
    gain: float


def solve_mix(times: Sequence[float], widths: Sequence[float], time: float, width: float) -> EMAMix:
    """The weights X of stored averages whose sum is nearest, in least squares, to the average of ``width`` at ``time``.

    ``A X = B`` with the overlaps of the stored profiles among themselves and with the wanted one; then X is divided by
    its sum. No two stored averages may agree in both time and width.
    Source: as above, appendix C.
    """
    a, b = overlap(times, widths, times, widths), overlap(times, widths, [time], [width])[:, 0]
    x = np.linalg.solve(a, b)
    x = x / x.sum()
    norm = overlap([time], [width], [time], [width])[0, 0]
    left = max(norm - 2 * x @ b + x @ a @ x, 0.0)
    return EMAMix(x, float(np.sqrt(left / norm)), float(np.linalg.cond(a)), float(np.abs(x).sum()))
