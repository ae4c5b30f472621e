"""OpenAI's consistency models and diffusers' scheduler for them: grids, scalings, sampling, editing."""

from dataclasses import replace

import numpy as np
import torch
from adm_files import adm_model
from harness import Case, Watched, claim, openai_model
from replay import ByStep
from torch import Tensor

from cmtool.core import editing, operators
from cmtool.core.denoiser import Preconditioning, like
from cmtool.core.grids import karras, to_zero
from cmtool.core.operators import Operator
from cmtool.core.samplers import clipped, flow, multistep, probability_flow
from cmtool.core.solvers.library import ancestral, euler, heun, midpoint
from cmtool.core.solvers.stochastic import Stir
from cmtool.core.walks import Jumps

SOLVERS = {"heun": heun, "euler": euler, "dpm": midpoint, "ancestral": ancestral, "progdist": euler}
CHURN = {"s_churn": "churn", "s_tmin": "churn_min", "s_tmax": "churn_max", "s_noise": "churn_noise"}


@claim("cm_schedule")
def schedule(case: Case) -> None:
    sigma, x, denoised = (case.inputs[name] for name in ("sigmas", "x", "den"))
    for n, low, high, rho in case.spec["karras"]:
        levels, of = to_zero(karras(n, low, high, rho)), f"n{n}_{low}_{high}_{rho}"
        case.check(f"sigmas_karras_{of}", levels)
        down, up = Stir(eta=1.0).split(levels[:-1], levels[1:])
        case.check(f"anc_down_{of}", down)
        case.check(f"anc_up_{of}", up)
    for name, boundary in (("scal", 0.0), ("bnd", 0.002)):
        *scalings, c_noise = Preconditioning(0.5, boundary, "log-1000")(sigma)
        case.check(name, torch.stack(scalings))
    case.check("rescaled_t", c_noise)
    case.check("to_d", flow(lambda *_: denoised)(x, sigma))
    case.check("snrs", sigma**-2)
    for name in ("snr", "snr+1", "karras", "truncated-snr", "uniform"):
        case.check(f"weight.{name}", weighting(name)(sigma))


def weighting(name: str):
    """OpenAI's weights as functions of the noise level; cmtool's recipes do not use the first four."""
    return {
        "snr": lambda t: t**-2,
        "snr+1": lambda t: t**-2 + 1,
        "karras": lambda t: t**-2 + 1 / 0.5**2,
        "truncated-snr": lambda t: (t**-2).clamp(min=1),
        "uniform": torch.ones_like,
    }[name]


@claim("cm_sampler")
@torch.no_grad()
def sampler(case: Case) -> None:
    args = dict(case.spec["args"])
    sigma_min = 0.002 if case.spec["distillation"] else 0.0
    model = adm_model(case, "net", sigma_min) if "unet" in case.spec else openai_model(case, sigma_min=sigma_min)
    model = clipped(model) if args.get("clip_denoised", True) else model
    ends = args.get("sigma_min", 0.002), args.get("sigma_max", 80.0), args.get("rho", 7.0)
    x = ends[1] * case.tape.next()
    walk = jumps if args["sampler"] in ("onestep", "multistep") else ode
    # the reference clips its result whether or not the denoiser is clipped
    case.check("x0", walk(case, model, x, karras(args["steps"], *ends), args).clamp(-1, 1))


def jumps(case: Case, model, x: Tensor, grid: Tensor, args: dict) -> Tensor:
    """The reference adds noise after its last jump as well; it has variance 0 where ``ts`` ends at ``steps - 1``."""
    ts = args["ts"] if args["sampler"] == "multistep" else [0, -1]
    *_, x = multistep(model, x, grid[ts[:-1]], case.tape, case.inputs.get("y"), sigma_min=float(grid[-1]))
    if args["sampler"] == "multistep":
        x = x + (grid[ts[-1]] ** 2 - grid[-1] ** 2).clamp(min=0).sqrt().float() * case.tape.next()
    return x


def ode(case: Case, model, x: Tensor, grid: Tensor, args: dict) -> Tensor:
    """``dpm`` takes its midpoint on the way to 0 as well; ``progdist`` ends at the lowest of one level more."""
    name, churn = args["sampler"], {CHURN[key]: args[key] for key in args if key in CHURN}
    solver = SOLVERS[name](**churn)
    levels = karras(len(grid) + 1, float(grid[-1]), float(grid[0])) if name == "progdist" else to_zero(grid)
    watched, last = Watched(model), midpoint() if name == "dpm" else None
    noise = ByStep(case.draws[1:])  # the first of them is x
    *_, x = probability_flow(watched, x, levels, solver, case.inputs.get("y"), noise, last)
    case.check("traj_x", torch.stack(watched.inputs[:: solver.evaluations]))
    case.check("traj_denoised", torch.stack(watched.answers[:: solver.evaluations]))
    return x


@claim("cm_edit")
@torch.no_grad()
def edit(case: Case) -> None:
    images, spec = case.inputs["images"], case.spec
    operator, fill = operator_of(case, images)
    case.check("images", operator.impose(torch.full_like(images, fill)))
    levels = karras(spec["steps"])[spec["ts"][:-1]]
    begun = replace(operator, start=case.inputs["x"], noisy=True)  # theirs is given with its first noise
    walk = editing.edit(Jumps(levels, 0.002, clip=True), begun, openai_model(case, sigma_min=0.002), case.tape)
    *_, x, _ = walk  # theirs is not brought back into [-1, 1] at the end
    # as above: noise after the last jump, of variance 0 where ts ends at the last index
    last = karras(spec["steps"])[spec["ts"][-1]]
    case.check("x", x + (last**2 - 0.002**2).clamp(min=0).sqrt().float() * case.tape.next())


def operator_of(case: Case, images: Tensor) -> tuple[Operator, float]:
    """The task, and what the reference shows where nothing is known."""
    task = case.spec["task"]
    if task == "inpainting":
        keep = case.outputs["mask"]
        case.leave("mask", "an input in truth: 1 where the image is kept, the opposite of our mask")
        return operators.inpaint(images, mask=1 - keep[:, :1]), -1.0
    if task == "colorization":
        operator, first = operators.colorize(images), torch.tensor(operators.LUMA)
    else:
        patch = int(case.outputs["Q"].shape[0] ** 0.5)
        operator, first = operators.superres(images, factor=patch), torch.ones(patch**2)
    q = operators.orthogonal(first.double())
    case.check("Q", q * (q * case.outputs["Q"]).sum(0).sign())  # which way a free coordinate points is arbitrary
    return operator, 0.0


@claim("diffusers_scheduler")
@torch.no_grad()
def scheduler(case: Case) -> None:
    """Input and output of each step: our walk's next input is their ``prev_sample``."""
    levels, sigma_min = diffusers_levels(case), case.spec["sched"]["sigma_min"]
    preconditioning = Preconditioning(0.5, sigma_min, "log-1000")
    c_skip, c_out, *_ = preconditioning(torch.tensor([0.002, 0.003, 0.1, 1, 20, 80]))  # the levels are not recorded
    case.check("c_skip", c_skip)
    case.check("c_out", c_out)
    case.check("timesteps", preconditioning(levels)[3])
    case.check("sigmas", torch.cat([levels, levels.new_tensor([sigma_min])]))
    model = openai_model(case, sigma_min=sigma_min)
    watched = Watched(clipped(model) if case.spec["sched"].get("clip_denoised", True) else model)
    x = case.spec["sched"]["sigma_max"] * case.inputs["noise0"]  # a defect: also where levels[0] is lower
    *_, end = multistep(watched, x, levels, case.tape, sigma_min=sigma_min)
    case.check("x", end)
    scaled = [like(1 / (s**2 + 0.5**2).sqrt(), x) * x for x, s in zip(watched.inputs, levels, strict=True)]
    steps = zip(scaled, [*watched.inputs[1:], end], strict=True)
    case.check("traj_scaled_input_then_prev_sample", torch.stack([x for step in steps for x in step]))
    case.leave("noisy", "its clean image is not recorded")


def diffusers_levels(case: Case) -> Tensor:
    """Theirs to choose: custom indices in ascending order of time, or every (40 // n)-th one."""
    schedule, total = case.spec["sched"], case.spec["sched"]["num_train_timesteps"]
    if "timesteps" in case.spec["set"]:
        indices = case.spec["set"]["timesteps"][::-1]
    else:
        n = case.spec["set"]["num_inference_steps"]
        indices = (np.arange(n) * (total // n)).tolist()
    return karras(total, schedule["sigma_min"], schedule["sigma_max"], schedule.get("rho", 7.0))[indices]
