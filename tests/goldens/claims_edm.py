"""EDM and easy consistency tuning: preconditioning, samplers, r(t)."""

import torch
from harness import Case, Watched, claim, classes_of, edm_model
from replay import ByStep
from torch import Tensor

from cmtool.core.grids import even, in_time, karras, log_uniform, to_zero
from cmtool.core.ladders import DDPM
from cmtool.core.pixels import to_pixels
from cmtool.core.process import VP, Process
from cmtool.core.samplers import multistep, probability_flow
from cmtool.core.solvers import euler
from cmtool.core.solvers.native import Native
from cmtool.core.solvers.stochastic import Stir, Stirred
from cmtool.core.solvers.tableaux import second_order
from cmtool.objectives.levels import ect_ratio

CHURN = {"S_churn": "churn", "S_min": "low", "S_max": "high", "S_noise": "scale"}


@claim("edm_sampler")
@torch.no_grad()
def sampler(case: Case) -> None:
    args = case.spec["args"]
    model, (levels, nearest) = Watched(edm_model(case)), levels_of(case)
    ode = euler() if args.get("solver") == "euler" else second_order(args.get("alpha", 1.0))
    process = {"vp": VP(0.1, 20.0), "ve": Root()}.get(args.get("schedule", "linear"))
    churn = {name: float(args[key]) for key, name in CHURN.items() if key in args}
    solver = Stirred(Native(process, ode) if process else ode, Stir(**churn, nearest=nearest))
    last = Native(process, euler()) if process else None  # in native time Euler's step to 0 is not the denoiser
    x, labels = case.inputs["latents"].double() * levels[0], classes_of(case.inputs.get("class_labels"))
    *_, x = probability_flow(model, x, to_zero(levels), solver, labels, ByStep(case.draws), last)
    case.check("x", x)
    case.check("sigma_calls", torch.stack(model.levels))
    case.check("denoised_calls", torch.stack(model.answers))
    # their 127.5 x + 128, cut to an integer, is our round(127.5 (x + 1)); a pixel on the edge may fall either way
    assert (to_pixels(x).int() - case.outputs["uint8"].int()).abs().max() <= 1
    case.leave("uint8", "checked above to one grey level")


def levels_of(case: Case):
    """The levels that the case visits, and which of those its model knows is nearest to a level."""
    args, n = case.spec["args"], case.spec["args"]["num_steps"]
    grid = args.get("discretization", "edm")
    if grid == "vp":
        return in_time(VP(0.1, 20.0), n), lambda t: t
    if grid == "ve":
        return log_uniform(n, 0.02, 100.0), lambda t: t
    if case.spec["precond"] == "EDMPrecond":
        ends = args.get("sigma_min", 0.002), args.get("sigma_max", 80.0), args.get("rho", 7.0)
        return karras(n, *ends), lambda t: t
    ladder = DDPM.cosine(1000)
    known = ladder.level(torch.arange(1000, 0, -1, dtype=torch.float64))

    def nearest(t: Tensor) -> Tensor:
        return known[(known - t.reshape(-1, 1)).abs().argmin(1)].reshape(t.shape)

    return even(known, n, 0.002, 81.0) if grid == "iddpm" else nearest(karras(n, float(known[-1]))), nearest


class Root(Process):
    """Their variance-exploding process, ``sigma = sqrt(t)``; ours is Song's, exponential in time."""

    def scale(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def level(self, t: Tensor) -> Tensor:
        return t.sqrt()

    def time(self, sigma: Tensor) -> Tensor:
        return sigma**2

    def drift(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def diffusion(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)


@claim("ect_generator")
@torch.no_grad()
def generator(case: Case) -> None:
    """ECT adds the full noise of the next level, as if the model's output were free of it."""
    levels = torch.tensor([case.spec["t_max"], *(case.spec["mid_t"] or [])], dtype=torch.float64)
    model = edm_model(case, sigma_min=0.003)  # their evaluation mode
    x, labels = case.inputs["latents"].double() * levels[0], classes_of(case.inputs.get("class_labels"))
    *_, x = multistep(model, x, levels, case.tape, labels, sigma_min=0.0)
    case.check("x", x)


@claim("ect_schedule")
def pairs(case: Case) -> None:
    t = case.inputs["t"].double()
    for name, options in case.spec["configs"].items():
        chosen = choices(options)
        for stage in range(case.spec["stages"]):
            case.check(f"r.{name}.{stage}", ect_ratio(t, stage, **chosen))
            ratio = ect_ratio(torch.ones(1, dtype=torch.float64), stage, **{**chosen, "k": 0.0})
            want = torch.tensor([case.expected[f"ratio.{name}.{stage}"]], dtype=torch.float64)
            case.near(f"ratio.{name}.{stage}", ratio, want)


def choices(options: dict) -> dict[str, float]:
    """The reference's options as those of ``ect_ratio``; its constant adjustment is the sigmoid's with k = 0."""
    chosen = {name: float(options[name]) for name in ("q", "k", "b") if name in options}
    return {**chosen, "k": 0.0} if options.get("adj") == "const" else chosen
