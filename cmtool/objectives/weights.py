"""How much each noise level counts, as the weight of ``|D - x_0|^2``."""

from collections.abc import Callable

from torch import Tensor

from cmtool.errors import unknown

__all__ = ["WEIGHTS", "Weight", "weight"]

Weight = Callable[[Tensor], Tensor]  # sigma [B] -> [B]

# Of (sigma, sigma_data, gamma). Predicting something else than x_0 is another weight, so these are losses by name.
WEIGHTS: dict[str, Callable[[Tensor, float, float], Tensor]] = {
    "edm": lambda sigma, d, _: (sigma**2 + d**2) / (sigma * d) ** 2,
    "noise": lambda sigma, d, _: 1 / sigma**2,
    "velocity": lambda sigma, d, _: ((1 + sigma) / sigma) ** 2,
    "min-snr": lambda sigma, d, gamma: (1 / sigma**2).clamp(max=gamma),
    "soft-min-snr": lambda sigma, d, _: 1 / (sigma**2 + d**2),
}


def weight(name: str, sigma_data: float = 0.5, gamma: float = 5.0) -> Weight:
    """The weight called ``name``; UsageError when there is none.

    | name         | w(sigma)                       | it is                                              |
    |--------------|--------------------------------|----------------------------------------------------|
    | edm          | 1 / sigma^2 + 1 / sigma_data^2 | the error of F in "edm" and TrigFlow               |
    | noise        | 1 / sigma^2                    | the error of z: DDPM, score matching with std^2    |
    | velocity     | (1 + 1 / sigma)^2              | the error of z - x_0: flow matching                |
    | min-snr      | min(1 / sigma^2, gamma)        | Hang et al. 2023, arXiv 2303.09556                 |
    | soft-min-snr | 1 / (sigma^2 + sigma_data^2)   | Crowson et al. 2024, arXiv 2401.11605              |
    """
    if name not in WEIGHTS:
        raise unknown("weight", name, WEIGHTS)
    return lambda sigma: WEIGHTS[name](sigma, sigma_data, gamma)
