"""EDM and easy consistency tuning: preconditioning, samplers, r(t)."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from harness import Case, Watched, claim, classes_of, edm_model
from replay import ByStep
from torch import Tensor

from cmtool.core.discrete_processes import DDPM
from cmtool.core.discrete_processes import nearest_step as rung_nearest
from cmtool.core.named_processes import build_process
from cmtool.core.named_schedules import sigma_schedule
from cmtool.core.pixels import to_pixels
from cmtool.core.process import VP, Process
from cmtool.core.sampling.loops import multistep, probability_flow
from cmtool.core.sigma_schedules import append_zero
from cmtool.core.solvers import euler
from cmtool.core.solvers.runge_kutta import NativeTimeSolver, RungeKutta, second_order_rk
from cmtool.core.solvers.solver import Churn
from cmtool.objectives.consistency import ect_ratio

EDM = {  # ``edm_sampler``
    "num_steps": 18,
    "sigma_min": 0.002,
    "sigma_max": 80.0,
    "rho": 7.0,
    "S_churn": 0.0,
    "S_min": 0.0,
    "S_max": math.inf,
    "S_noise": 1.0,
}
ABLATION = EDM | {  # ``ablation_sampler``
    "sigma_min": None,
    "sigma_max": None,
    "solver": "heun",
    "discretization": "edm",
    "schedule": "linear",
    "scaling": "none",
    "epsilon_s": 1e-3,
    "C_1": 0.001,
    "C_2": 0.008,
    "M": 1000,
    "alpha": 1.0,
}


@claim("edm_sampler")
@torch.no_grad()
def sampler(case: Case) -> None:
    """Their preconditioning gives the range of levels and their rounding; the denoiser is always EDM's, at tscale 1."""
    edm = case.spec["fn"] == "edm_sampler"
    args = ABLATION | case.spec["args"].options(EDM if edm else ABLATION)
    low, high, nearest = known_to(case.spec["precond"])
    low, high = max(lowest(args), low), min(highest(args), high)
    assert case.spec["net"].get("tscale", 1.0)  # of the network that the preconditioning would have been made for
    model = Watched(edm_model(case, tscale=1.0))
    process = schedule(args, low, high)
    levels = nearest(sigma_schedule(spacing(args), args["num_steps"], low, high, process))
    churn = Churn(args["S_churn"], args["S_min"], args["S_max"], args["S_noise"], nearest=nearest)
    ode = RungeKutta(1, ((),), (1.0,), churn) if args["solver"] == "euler" else second_order_rk(args["alpha"], churn)
    solver = NativeTimeSolver(process, ode)
    x, labels = case.inputs["latents"].double() * levels[0], classes_of(case.inputs.get("class_labels"))
    last = NativeTimeSolver(process, euler())  # in native time Euler's step to 0 is not the denoiser
    *_, x = probability_flow(model, x, append_zero(levels), solver, labels, ByStep(case.draws), last)
    case.check("x", x)
    case.check("sigma_calls", torch.stack(model.levels))
    case.check("denoised_calls", torch.stack(model.answers))
    # their 127.5 x + 128, cut to an integer, is our round(127.5 (x + 1)); a pixel on the edge may fall either way
    assert (to_pixels(x).int() - case.outputs["uint8"].int()).abs().max() <= 1
    case.leave("uint8", "checked above to one grey level")


def lowest(args: dict) -> float:
    """Of the discretisation, where none is given."""
    if args["sigma_min"] is not None:
        return args["sigma_min"]
    at = torch.tensor(args["epsilon_s"], dtype=torch.float64)
    return {"vp": float(VP().sigma(at)), "ve": 0.02, "iddpm": 0.002, "edm": 0.002}[args["discretization"]]


def highest(args: dict) -> float:
    if args["sigma_max"] is not None:
        return args["sigma_max"]
    at = torch.ones((), dtype=torch.float64)
    return {"vp": float(VP().sigma(at)), "ve": 100.0, "iddpm": 81.0, "edm": 80.0}[args["discretization"]]


def schedule(args: dict, low: float, high: float) -> Process:
    """Their scaling is one of two, whatever the schedule."""
    name = {"vp": "vp", "ve": "sqrt", "linear": "edm"}[args["schedule"]]
    spec = {"name": name, "scaling": args["scaling"], **({"start": args["epsilon_s"]} if name == "vp" else {})}
    return build_process(spec, low, high)


def spacing(args: dict) -> dict[str, Any]:
    return {
        "vp": {"name": "vp", "start": args["epsilon_s"]},
        "ve": {"name": "log"},
        "iddpm": {"name": "iddpm", "steps": args["M"], "shift": args["C_2"], "most": 1 - args["C_1"]},
        "edm": {"name": "karras", "rho": args["rho"]},
    }[args["discretization"]]


def known_to(precond: str) -> tuple[float, float, Callable[[Tensor], Tensor]]:
    """The lowest and the highest level of their preconditionings by default, and the rounding of one."""
    if precond == "iDDPMPrecond":
        rungs = DDPM.cosine(1000).sigma(torch.arange(1, 1001, dtype=torch.float64))
        return float(rungs[0]), float(rungs[-1]), lambda t: rungs[rung_nearest(t.reshape(-1), rungs)].reshape(t.shape)
    if precond == "VPPrecond":
        low, high = VP().sigma(torch.tensor([1e-5, 1.0], dtype=torch.float64)).tolist()
    else:
        low, high = {"EDMPrecond": (0.0, math.inf), "VEPrecond": (0.02, 100.0)}[precond]
    return low, high, lambda t: t


@claim("ect_generator")
@torch.no_grad()
def generator(case: Case) -> None:
    """ECT adds the full noise of the next level, as if the model's output were free of it."""
    assert case.spec["precond"] == "ECMPrecond"
    levels = torch.tensor([case.spec["t_max"], *(case.spec["mid_t"] or [])], dtype=torch.float64)
    model = edm_model(case, boundary=case.spec["net"].get("sigma_min", 0.003))  # their evaluation mode
    x, labels = case.inputs["latents"].double() * levels[0], classes_of(case.inputs.get("class_labels"))
    *_, x = multistep(model, x, levels, case.tape, labels, sigma_min=0.0)
    case.check("x", x)


ECM = {"q": 2.0, "k": 8.0, "b": 1.0, "adj": "sigmoid"}
TUNING = ECM | {"P_mean": -1.1, "P_std": 2.0, "sigma_data": 0.5, "c": 0.0, "cut": 4.0}  # ``ECMLoss``; no use of ``cut``


@claim("ect_schedule")
def pairs(case: Case) -> None:
    t = case.inputs["t"].double()
    case.near("t", t, torch.tensor(case.spec["t"]))
    for name, options in case.spec["configs"].items():
        chosen = choices(options.options(TUNING))
        for stage in range(case.spec["stages"]):
            case.check(f"r.{name}.{stage}", ect_ratio(t, stage, **chosen))
            ratio = ect_ratio(torch.ones(1, dtype=torch.float64), stage, **{**chosen, "k": 0.0})
            want = torch.tensor([case.expected[f"ratio.{name}.{stage}"]], dtype=torch.float64)
            case.near(f"ratio.{name}.{stage}", ratio, want)


def choices(options: Mapping[str, Any]) -> dict[str, float]:
    """The reference's options as those of ``ect_ratio``; its constant adjustment is the sigmoid's with k = 0."""
    k = {"const": 0.0, "sigmoid": float(options["k"])}[options["adj"]]
    return {"q": float(options["q"]), "k": k, "b": float(options["b"])}
