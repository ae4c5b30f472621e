"""What the scheduler beside a network of diffusers says of it: which noise levels it knows, and what it predicts.

Schedulers of numbered steps share their options. A network that predicts ``v = alpha z - sigma x_0`` is one under EDM's
scalings for ``sigma_data`` 1 whose sign is flipped (Salimans and Ho 2022, arXiv 2202.00512).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cmtool.core.denoiser import Preconditioning
from cmtool.core.discrete_processes import ddpm_sigmas
from cmtool.errors import BadFile
from cmtool.formats.diffusers_files import CONFIG, INDEX, SCHEDULER, UNET, document

__all__ = ["CONSISTENCY", "SCHEDULES", "SchedulerSteps", "scheduler_beside", "steps_of"]

CONSISTENCY = "CMStochasticIterativeScheduler"
NUMBERED = (
    *("DDPMScheduler", "DDIMScheduler", "DDPMParallelScheduler", "DDIMParallelScheduler", "PNDMScheduler"),
    *("DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "UniPCMultistepScheduler"),
    *("DEISMultistepScheduler", "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler"),
)
SCHEDULES = {"linear": "ddpm-1000", "cosine": "ddpm-cosine-1000"}
SPELT = {"linear": "linear", "squaredcos_cap_v2": "cosine"}
MOST = 10_000  # steps
# What differs, as it is when it is not said, and what else can be meant.
OTHERS: dict[str, Any] = {"trained_betas": None, "rescale_betas_zero_snr": False}


@dataclass(frozen=True)
class SchedulerSteps:
    """A discrete schedule, ``linear`` or ``cosine``, and whether the network predicts ``noise`` or ``v``."""

    schedule: str
    predicts: str = "noise"
    count: int = 1000
    beta_min: float = 0.1
    beta_max: float = 20.0

    def preconditioning(self) -> Preconditioning:
        """What the network predicts, and how it is conditioned."""
        named = Preconditioning.named(SCHEDULES[self.schedule])
        named = replace(named, steps=self.count, beta_min=self.beta_min, beta_max=self.beta_max)
        return named if self.predicts == "noise" else replace(named, form="edm", sigma_data=1.0, sign=-1.0)

    def span(self) -> tuple[float, float]:
        """The lowest and the highest noise level."""
        beta_range = {"beta_min": self.beta_min, "beta_max": self.beta_max} if self.schedule == "linear" else {}
        sigmas = ddpm_sigmas(self.count, self.schedule, **beta_range)
        return float(sigmas[0]), float(sigmas[-1])


def scheduler_beside(unet: Path) -> Path | None:
    """The configuration of the scheduler that belongs to the folder of a network, where it is still in its pipeline."""
    real = unet.resolve()
    place = real.parent / SCHEDULER
    belongs = real.name == UNET or (real.parent / INDEX).is_file()
    return place if belongs and place.is_file() and (real / CONFIG).is_file() else None


def steps_of(path: Path) -> SchedulerSteps:
    """The steps of a scheduler's configuration; BadFile for one that cmtool has no counterpart for."""
    said = document(path)
    name = said.get("_class_name")
    if name not in NUMBERED:
        raise unread_scheduler(path, "_class_name", name, f"{CONSISTENCY}, {', '.join(NUMBERED)}")
    for key, default in OTHERS.items():
        if said.get(key, default) not in (default, None):
            raise unread_scheduler(path, key, said[key], str(default))
    schedule, kind = said.get("beta_schedule", "linear"), said.get("prediction_type", "epsilon")
    if schedule not in list(SPELT):
        raise unread_scheduler(path, "beta_schedule", schedule, ", ".join(SPELT))
    if kind not in ("epsilon", "v_prediction"):
        raise unread_scheduler(path, "prediction_type", kind, "epsilon, v_prediction")
    count = said.get("num_train_timesteps", 1000)
    if type(count) is not int or not 20 < count <= MOST:
        raise unread_scheduler(path, "num_train_timesteps", count, f"21 to {MOST}")
    low, high = betas(path, said)
    return SchedulerSteps(SPELT[schedule], "noise" if kind == "epsilon" else "v", count, low * count, high * count)


def betas(path: Path, said: Mapping[str, Any]) -> tuple[float, float]:
    low, high = said.get("beta_start", 0.0001), said.get("beta_end", 0.02)
    numbers = type(low) in (int, float) and type(high) in (int, float)
    if not numbers or not 0 < low <= high < 1:
        raise unread_scheduler(path, "beta_start, beta_end", (low, high), "numbers between 0 and 1")
    return float(low), float(high)


def unread_scheduler(path: Path, key: str, value: Any, known: str) -> BadFile:
    return BadFile(f"{path} has {key}={str(value)[:60]}, for which cmtool has no counterpart", f"what is read: {known}")
