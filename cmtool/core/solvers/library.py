"""The solvers by name, as the plugins of the group ``cmtool.solvers``; their options are the keyword arguments.

Where noise may be added on the way (``churn`` to ``churn_noise``: S_churn, S_min, S_max and S_noise of Karras et al.
2022, algorithm 2) the order is that of the walk without it.
"""

import math

from cmtool.core.process import VE
from cmtool.core.solvers.adaptive import DormandPrince, Scipy
from cmtool.core.solvers.exponential import Multistep, Rule, Singlestep, bh1, bh2, exact, uncorrected
from cmtool.core.solvers.native import Native
from cmtool.core.solvers.step import Solver
from cmtool.core.solvers.stochastic import Stir, Stirred
from cmtool.core.solvers.tableaux import Midpoint, RungeKutta, second_order
from cmtool.errors import UsageError, unknown

MEANS = {"cube-root": 1 / 3, "log": 0.0, "linear": 1.0}
METHODS = ("RK23", "RK45", "DOP853", "Radau", "BDF", "LSODA")


def churned(ode: Solver, churn: float, low: float, high: float, noise: float) -> Solver:
    return Stirred(ode, Stir(churn, low, high, noise)) if churn else ode


def euler(
    *, churn: float = 0.0, churn_min: float = 0.0, churn_max: float = math.inf, churn_noise: float = 1.0
) -> Solver:
    """Euler's method; on the probability-flow ODE in sigma it is DDIM (Song et al. 2021, arXiv 2010.02502)."""
    return churned(RungeKutta(1, a=((),), b=(1.0,)), churn, churn_min, churn_max, churn_noise)


def ddim(*, eta: float = 0.0) -> Solver:
    """DDIM: Euler's method with a part ``eta`` of the ancestral noise (Song et al. 2021, arXiv 2010.02502, eq. 16)."""
    return Stirred(euler(), Stir(eta=eta)) if eta else euler()


def ancestral(*, eta: float = 1.0) -> Solver:
    """DDIM with all of the noise: each step is a draw from ``p(x_s | x_t, x_0 = D)`` (Ho et al. 2020, eq. 6-7)."""
    return ddim(eta=eta)


def heun(
    *,
    alpha: float = 1.0,
    churn: float = 0.0,
    churn_min: float = 0.0,
    churn_max: float = math.inf,
    churn_noise: float = 1.0,
) -> Solver:
    """Heun's method: the trapezoidal rule with an Euler predictor (Karras et al. 2022, algorithm 1).

    ``alpha`` below 1 takes the second slope there, as in their algorithm 3.
    """
    if not 0 < alpha <= 1:
        raise UsageError(f"alpha of the solver heun lies above 0 and up to 1, not at {alpha:g}")
    return churned(second_order(alpha), churn, churn_min, churn_max, churn_noise)


def midpoint(
    *,
    mean: str = "cube-root",
    churn: float = 0.0,
    churn_min: float = 0.0,
    churn_max: float = math.inf,
    churn_noise: float = 1.0,
) -> Solver:
    """The midpoint method; the middle is the ``mean`` of the two levels.

    "cube-root" is OpenAI's sampler ``dpm``, "log" k-diffusion's ``dpm_2`` (DPM-Solver-2: Lu et al. 2022, arXiv
    2206.00927), "linear" the textbook's.
    """
    if mean not in MEANS:
        raise unknown("mean of the solver midpoint", mean, MEANS)
    return churned(Midpoint(MEANS[mean]), churn, churn_min, churn_max, churn_noise)


def rk4() -> Solver:
    """The classical Runge-Kutta method."""
    return RungeKutta(4, a=((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)), b=(1 / 6, 1 / 3, 1 / 3, 1 / 6))


def dpmpp_2s() -> Solver:
    """DPM-Solver++ 2S, a look at the middle in ln sigma (Lu et al. 2022, arXiv 2211.01095, algorithm 1)."""
    return Singlestep((1 / 2,), bh2)


def dpmpp_3s() -> Solver:
    """DPM-Solver++ 3S, looks at one and two thirds in ln sigma (Lu et al. 2022, arXiv 2211.01095)."""
    return Singlestep((1 / 3, 2 / 3), exact)


def dpmpp_2m() -> Solver:
    """DPM-Solver++ 2M (Lu et al. 2022, arXiv 2211.01095, algorithm 2)."""
    return Multistep(order=2, past=1)


def dpmpp_3m(*, corrected: bool = True) -> Solver:
    """DPM-Solver++ 3M (Lu et al. 2022, arXiv 2211.01095).

    The code of its authors, and what was copied from it, halves the second derivative by mistake and is of order 2;
    ``corrected=False`` repeats that for the sake of published images.
    """
    return Multistep(order=3, past=2) if corrected else Multistep(order=2, past=2, rule=uncorrected)


def unipc(*, order: int = 3, variant: str = "bh2") -> Solver:
    """UniPC-p with p = ``order`` 1, 2 or 3, whose corrector makes it of order p + 1 (Zhao et al. 2023, 2302.04867)."""
    rules: dict[str, Rule] = {"bh1": bh1, "bh2": bh2}
    if variant not in rules:
        raise unknown("variant of the solver unipc", variant, rules)
    if order not in (1, 2, 3):
        raise UsageError(f"order of the solver unipc is 1, 2 or 3, not {order}")
    return Multistep(order + 1, past=order - 1, corrects=True, rule=rules[variant])


def rk45(*, rtol: float = 1e-4, atol: float = 1e-4) -> Solver:
    """Runge-Kutta of order 5 by Dormand and Prince, with steps that keep the error below ``atol + rtol |x|``.

    They are steps in ln sigma, the time of a variance-exploding process: in sigma itself the slope blows up towards the
    image, where an estimate of the error that crosses 0 lets a wrong step pass.
    """
    return Native(VE(1.0, math.e), DormandPrince(*_tolerances("rk45", rtol, atol)))


def scipy(*, method: str = "DOP853", rtol: float = 1e-5, atol: float = 1e-5) -> Solver:
    """``scipy.integrate.solve_ivp`` with any of its methods, for small problems and checks."""
    if method not in METHODS:
        raise unknown("method of the solver scipy", method, METHODS)
    return Scipy(method, *_tolerances("scipy", rtol, atol))


def _tolerances(name: str, rtol: float, atol: float) -> tuple[float, float]:
    for option, value in (("rtol", rtol), ("atol", atol)):
        if value <= 0:
            raise UsageError(f"{option} of the solver {name} must be greater than 0, not {value:g}")
    return rtol, atol
