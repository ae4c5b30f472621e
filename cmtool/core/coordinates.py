"""Processes by name, and the one that a model was trained with."""

from collections.abc import Callable

from cmtool.core.denoiser import Preconditioning
from cmtool.core.ladders import DDPM, NCSN
from cmtool.core.process import EDM, VE, VP, FlowMatching, Process, SubVP, TrigFlow
from cmtool.errors import unknown

__all__ = ["PROCESSES", "process_called", "process_of"]

RUNGS = 1000
PROCESSES: dict[str, Callable[[float, float, float], Process]] = {
    "edm": lambda low, high, data: EDM(),
    "ve": lambda low, high, data: VE(low, high),
    "vp": lambda low, high, data: VP(),
    "subvp": lambda low, high, data: SubVP(),
    "flow": lambda low, high, data: FlowMatching(),
    "trigflow": lambda low, high, data: TrigFlow(data),
    "ddpm": lambda low, high, data: DDPM.linear(RUNGS),
    "cosine": lambda low, high, data: DDPM.cosine(RUNGS),
    "ncsn": lambda low, high, data: NCSN.geometric(RUNGS, low, high),
}
# What a network is told of the noise level gives away the process that it was trained with.
TOLD = {"vp": "vp", "subvp": "subvp", "log-half": "ve", "flow": "flow", "angle": "trigflow", "ddpm": "ddpm"}


def process_called(name: str, sigma_min: float, sigma_max: float, sigma_data: float) -> Process:
    """The process of that name for these noise levels; UsageError for a name that is not there."""
    if name not in PROCESSES:
        raise unknown("process", name, PROCESSES)
    return PROCESSES[name](sigma_min, sigma_max, sigma_data)


def process_of(preconditioning: Preconditioning, sigma_min: float, sigma_max: float) -> Process:
    """The process that the network was made for; EDM, where time is the noise level, when it was made for none."""
    name = TOLD.get(preconditioning.time, "edm")
    return process_called(name, sigma_min, sigma_max, preconditioning.sigma_data)
