"""How the networks of score_sde are conditioned on the noise level, and what they predict.

Source: Song et al. 2021, arXiv 2011.13456, sections 3.4 and appendix C.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from cmtool.core.denoiser import Preconditioning
from cmtool.core.discrete_processes import ddpm_sigmas
from cmtool.core.process import VP, SubVP
from cmtool.errors import BadFile, Hint, Setting, UsageError

__all__ = ["PROCESSES", "ScoreSDESigmas"]

PROCESSES = ("ve", "vp", "subvp", "smld", "ddpm")
START = 1e-3  # the time at which score_sde stops sampling VP and sub-VP
STEPS, MOST = 1000, 100_000  # of a discrete noise schedule, where the file holds none, and at the most
TIMES = 999.0  # what a time from 0 to 1 is multiplied by


@dataclass(frozen=True)
class ScoreSDESigmas:
    """``process`` and whether it has Fourier features; ``sigmas`` [N] are those that the file holds, descending."""

    path: Path
    process: str
    fourier: bool
    centered: bool
    scale_by_sigma: bool | None
    beta_min: float
    beta_max: float
    sigmas: Tensor | None

    @property
    def exploding(self) -> bool:
        return self.process in ("ve", "smld")

    @property
    def unit(self) -> float:
        """Of our noise levels in theirs: images in [0, 1] are half as large."""
        return 1.0 if self.centered else 2.0

    @property
    def steps(self) -> int:
        return STEPS if self.sigmas is None else min(len(self.sigmas), MOST)

    def preconditioning(self) -> Preconditioning:
        """UsageError for what no preconditioning of ours stands for."""
        self._check()
        if self.exploding:
            return self._exploding()
        name = {"vp": "vp-999", "subvp": "subvp-999", "ddpm": "ddpm-1000"}[self.process]
        made = replace(
            Preconditioning.named(name), beta_min=self.beta_min, beta_max=self.beta_max, steps=self._discrete_steps()
        )
        if not self.fourier:
            return made
        return replace(made, time=f"log-{self.process}", time_scale=1.0, time_shift=math.log(TIMES))

    def _discrete_steps(self) -> int:
        return self.steps if self.process == "ddpm" else STEPS

    def _exploding(self) -> Preconditioning:
        """Conditioned on ln sigma, sigma itself, or the number of a step that counts from their largest sigma."""
        form = "score" if self.scale_by_sigma in (None, True) else "score-1"
        made = Preconditioning(form=form, sign=1.0 if form == "score" else 1 / self.unit)
        if self.fourier:
            return replace(made, time="log", time_scale=4.0, time_shift=-math.log(self.unit))
        if self.process == "ve":
            return replace(made, time="level", time_scale=1 / self.unit)
        low, high = self._ends()
        each = (self.steps - 1) / math.log(high / low)  # discretization steps in a unit of ln sigma
        return replace(made, time="log", time_scale=-4 * each, time_shift=each * math.log(high * self.unit))

    def _check(self) -> None:
        path = self.path
        if not self.exploding and not self.centered:
            raise UsageError(
                f"format.process={self.process} does not fit {path}: images in [0, 1] belong to ve",
                Hint("leave {} out, or {}", Setting("format.process"), Setting("format.centered")),
            )
        if not self.exploding and self.scale_by_sigma:
            raise UsageError(f"format.scale_by_sigma belongs to ve, and {path} is said to be of {self.process}")
        if self.fourier and self.process in ("smld", "ddpm"):
            raise UsageError(
                f"format.process={self.process} does not fit {path}: it has Fourier features, and no numbered steps",
                Hint("leave {} out", Setting("format.process")),
            )
        if not self.exploding and self.fourier and self.scale_by_sigma is None:
            raise UsageError(
                f"format.process={self.process} does not fit {path}: it has Fourier features, as those of ve have",
                Hint(
                    "leave {} out; if it is conditioned on the time, say {}, too",
                    Setting("format.process"),
                    Setting("format.scale_by_sigma", "false"),
                ),
            )
        if self.process == "ve" and not self.fourier and self.scale_by_sigma is not False:
            raise UsageError(
                f"{path} has no Fourier features, and so is not conditioned on ln sigma of ve",
                Hint(
                    "say {} if it is conditioned on the number of a step, as the published ones are, or {} if on the "
                    "noise level itself",
                    Setting("format.process", "smld"),
                    Setting("format.scale_by_sigma", "false"),
                ),
            )
        if not 0 <= self.beta_min < self.beta_max or self.beta_max >= 1e4:
            raise UsageError(f"there are no betas from {self.beta_min:g} to {self.beta_max:g}", "0.1 and 20 are usual")
        if self.process == "ddpm" and self.steps <= max(self.beta_max, 20):
            raise UsageError(f"{path} has {self.steps} steps, too few for betas of {self.beta_max:g}")

    def _ends(self) -> tuple[float, float]:
        """Their lowest and highest sigma; BadFile where there are none."""
        sigmas = self.sigmas
        if sigmas is None or not sigmas.numel() or not (sigmas > 0).all() or not sigmas.isfinite().all():
            raise BadFile(f"{self.path} holds no noise levels")
        low, high = float(sigmas.min()), float(sigmas.max())
        if self.process == "smld" and not low < high:
            raise BadFile(f"{self.path} holds a single noise level")
        return low, high

    def span(self) -> tuple[float, float]:
        """The lowest and the highest noise level; VE's stand in the file."""
        if self.exploding:
            low, high = self._ends()
            return self.unit * low, self.unit * high
        if self.process == "ddpm":
            sigmas = ddpm_sigmas(self.steps, beta_min=self.beta_min, beta_max=self.beta_max)
            return float(sigmas[0]), float(sigmas[-1])
        process = (VP if self.process == "vp" else SubVP)(self.beta_min, self.beta_max)
        low, high = process.sigma(torch.tensor([START, 1.0], dtype=torch.float64))
        return float(low), float(high)
