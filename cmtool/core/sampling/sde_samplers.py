"""The samplers of Song et al. 2019 and 2021 by name, beside the solvers in the group ``cmtool.solvers``.

What they return has ``build_sampler(process, times) -> Walk`` and ``default_steps``, the number of steps when none is
said.
"""

from dataclasses import dataclass

from torch import Tensor

from cmtool.core.process import Process
from cmtool.core.sampling.predictor_corrector import ALD, Langevin
from cmtool.core.sampling.samplers import AnnealedLangevinSampler, ReverseSDESampler
from cmtool.core.sampling.sde import Ancestral, EulerMaruyama, ReverseDiffusion, Stay, Update
from cmtool.errors import UsageError, unknown_name

__all__ = ["LangevinSampler", "SDESampler", "ancestral", "euler_maruyama", "langevin", "reverse_diffusion"]


@dataclass(frozen=True)
class SDESampler:
    """A predictor and a corrector that wait for a process and its times."""

    predictor: Update
    corrector: Update | None = None
    default_steps: int = 100

    def build_sampler(self, process: Process, times: Tensor) -> ReverseSDESampler:
        return ReverseSDESampler(process, times, self.predictor, self.corrector)


@dataclass(frozen=True)
class LangevinSampler:
    """Annealed Langevin dynamics that waits for its levels; ``x = x_0 + sigma z`` whatever the process."""

    rate: float
    each: int
    default_steps: int = 10

    def build_sampler(self, process: Process, times: Tensor) -> AnnealedLangevinSampler:
        return AnnealedLangevinSampler(process.level(times), self.rate, self.each)


def euler_maruyama(
    *, noise: float = 1.0, corrector: str = "none", snr: float = 0.16, corrections: int = 1
) -> SDESampler:
    """Euler's method for the reverse-time equation; ``noise`` lambda, 0 for the ODE (Song et al. 2021, eq. 6).

    ``corrector`` "langevin" or "ald" mends each place by ``corrections`` Langevin steps of signal-to-noise ``snr``.
    """
    return SDESampler(EulerMaruyama(_amount(noise)), _corrector(corrector, snr, corrections))


def reverse_diffusion(
    *, noise: float = 1.0, corrector: str = "none", snr: float = 0.16, corrections: int = 1
) -> SDESampler:
    """The forward steps turned round (Song et al. 2021, arXiv 2011.13456, appendix E); options as euler-maruyama's."""
    return SDESampler(ReverseDiffusion(_amount(noise)), _corrector(corrector, snr, corrections))


def ancestral(*, wide: bool = False, corrector: str = "none", snr: float = 0.16, corrections: int = 1) -> SDESampler:
    """Ancestral sampling: SMLD's, or with ``wide`` noise DDPM's (Song et al. 2021, arXiv 2011.13456, appendix F)."""
    return SDESampler(Ancestral(wide), _corrector(corrector, snr, corrections))


def predictor_corrector(
    *,
    predictor: str = "reverse-diffusion",
    noise: float = 1.0,
    corrector: str = "langevin",
    snr: float = 0.16,
    corrections: int = 1,
) -> SDESampler:
    """A prediction mended by Langevin steps, the PC sampler of Song et al. 2021 (algorithm 1).

    ``predictor`` is "reverse-diffusion", "euler-maruyama", "ancestral", "ancestral-wide" or "none", which leaves it all
    to the corrector; ``noise`` is lambda of the first two.
    """
    amount = _amount(noise)
    predictors: dict[str, Update] = {
        "reverse-diffusion": ReverseDiffusion(amount),
        "euler-maruyama": EulerMaruyama(amount),
        "ancestral": Ancestral(),
        "ancestral-wide": Ancestral(wide=True),
        "none": Stay(),
    }
    if predictor not in predictors:
        raise unknown_name("predictor", predictor, predictors)
    if predictor == corrector == "none":
        raise UsageError("a walk without predictor and corrector goes nowhere", "give one of them")
    return SDESampler(predictors[predictor], _corrector(corrector, snr, corrections))


def langevin(*, rate: float = 0.2, each: int = 100) -> LangevinSampler:
    """Annealed Langevin dynamics: ``each`` steps of ``rate sigma^2`` at every level (Song and Ermon 2019)."""
    if rate <= 0 or each < 1:
        raise UsageError("the solver langevin needs a rate above 0 and each 1 or more", "0.2 and 100 are usual")
    return LangevinSampler(rate, each)


def _amount(noise: float) -> float:
    if noise < 0:
        raise UsageError(f"noise of a reverse-time equation is 0 or more, not {noise:g}", "1 is usual, 0 is the ODE")
    return noise


def _corrector(name: str, snr: float, steps: int) -> Update | None:
    kinds = {"langevin": Langevin, "ald": ALD}
    if name == "none":
        return None
    if name not in kinds:
        raise unknown_name("corrector", name, ["none", *kinds])
    if snr <= 0 or steps < 1:
        raise UsageError("a corrector needs snr above 0 and corrections 1 or more", "0.16 and 1 are usual")
    return kinds[name](snr, steps)
