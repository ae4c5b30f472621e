"""OpenAI's consistency models and diffusers' scheduler for them: grids, scalings, sampling, editing."""

import math
from dataclasses import replace

import numpy as np
import torch
from adm_files import adm_model
from harness import Case, Tape, Watched, claim, openai_model, scalings, tiny_net
from replay import ByStep
from torch import Tensor

from cmtool.core.denoiser import Denoiser, Preconditioning, broadcast_like, ode_field
from cmtool.core.editing import constrained, operators
from cmtool.core.editing.operators import Operator
from cmtool.core.sampling.loops import clip_denoised, multistep, probability_flow
from cmtool.core.sampling.samplers import MultistepSampler
from cmtool.core.sigma_schedules import append_zero, karras
from cmtool.core.solvers.runge_kutta import ancestral, euler, heun, midpoint
from cmtool.core.solvers.solver import Churn
from cmtool.objectives.consistency import pair_weight

SOLVERS = {"heun": heun, "euler": euler, "dpm": midpoint, "ancestral": ancestral, "progdist": euler}
CHURN = {"s_churn": "churn", "s_tmin": "churn_min", "s_tmax": "churn_max", "s_noise": "churn_noise"}


# ``karras_sample`` and the samplers behind it, with their defaults.
ARGUMENTS = {
    "steps": None,
    "sampler": "heun",
    "ts": None,
    "clip_denoised": True,
    "s_churn": 0.0,
    "s_tmin": 0.0,
    "s_tmax": math.inf,
    "s_noise": 1.0,
}


@claim("cm_schedule")
@torch.no_grad()
def schedule(case: Case) -> None:
    of = scalings(case)
    sigma, x, denoised = (case.inputs[name] for name in ("sigmas", "x", "den"))
    case.near("sigmas", sigma, torch.tensor(case.spec["sigmas"]))
    for n, low, high, rho in case.spec["karras"]:
        levels, name = append_zero(karras(n, low, high, rho)), f"n{n}_{low}_{high}_{rho}"
        case.check(f"sigmas_karras_{name}", levels)
        down, up = Churn(eta=1.0).split(levels[:-1], levels[1:])
        case.check(f"anc_down_{name}", down)
        # differences of neighbouring powers in float32: the closer the levels are, the less is known of theirs
        room = 2.0**-18 * up / (1 - (levels[1:] / levels[:-1]) ** 2)
        assert ((up - case.outputs[f"anc_up_{name}"].double()).abs() <= room).all()
        case.leave(f"anc_up_{name}", "compared above to what differences of float32 levels keep")
    for name, boundary in (("scal", 0.0), ("bnd", of["sigma_min"])):
        *coefficients, c_noise = Preconditioning(of["sigma_data"], boundary, "log-1000")(sigma)
        case.check(name, torch.stack(coefficients))
    case.check("rescaled_t", c_noise)
    case.check("to_d", ode_field(lambda *_: denoised)(x, sigma))
    case.check("snrs", pair_weight("snr")(sigma, sigma))
    for name in [name for name in case.open if name.startswith("weight.")]:
        weight = pair_weight(name.removeprefix("weight."), of["sigma_data"])
        case.check(name, weight(sigma, sigma))


def options_of(case: Case) -> dict:
    """The arguments of the sampler; the range of levels is the denoiser's, unless the sampler has its own."""
    of, args = scalings(case), case.spec["args"]
    ends = {key: of[key] for key in ("sigma_min", "sigma_max", "rho")}
    return args.options({**ARGUMENTS, **ends})


@claim("cm_sampler")
@torch.no_grad()
def sampler(case: Case) -> None:
    args, boundary = options_of(case), case.spec["distillation"]
    if "unet" in case.spec:
        model = adm_model(case, "net", scalings(case)["sigma_min"] if boundary else 0.0)
    else:
        model = openai_model(case, boundary=boundary)
    model = clip_denoised(model) if args["clip_denoised"] else model
    levels = args["steps"] + (args["sampler"] == "progdist")  # of which progdist leaves out the 0, not the lowest
    rho = scalings(case)["rho"] if args["sampler"] == "multistep" else args["rho"]
    grid = karras(levels, args["sigma_min"], args["sigma_max"], rho)
    walk = jumps if args["sampler"] in ("onestep", "multistep") else ode
    x = grid[0].float() * case.tape.next()
    # the reference clips its result whether or not the denoiser is clipped
    case.check("x0", walk(case, model, x, grid, args).clamp(-1, 1))


def jumps(case: Case, model, x: Tensor, grid: Tensor, args: dict) -> Tensor:
    """The reference adds noise after its last jump as well; it has variance 0 where ``ts`` ends at ``steps - 1``."""
    several = args["sampler"] == "multistep"
    levels, floor = grid[args["ts"] if several else [0]], args["sigma_min"]
    *_, x = multistep(model, x, levels[: -1 if several else 1], case.tape, case.inputs.get("y"), sigma_min=floor)
    if several:
        x = x + (levels[-1] ** 2 - floor**2).clamp(min=0).sqrt().float() * case.tape.next()
    return x


def ode(case: Case, model, x: Tensor, grid: Tensor, args: dict) -> Tensor:
    """``dpm`` takes its midpoint on the way to 0 as well; ``progdist`` ends at the lowest of one level more."""
    name = args["sampler"]
    stirred = name in ("heun", "dpm")  # the others take no churn
    solver = SOLVERS[name](**({ours: float(args[theirs]) for theirs, ours in CHURN.items()} if stirred else {}))
    levels = grid if name == "progdist" else append_zero(grid)
    watched, last = Watched(model), midpoint() if name == "dpm" else None
    noise = ByStep(case.draws[1:])  # the first of them is x
    *_, x = probability_flow(watched, x, levels, solver, case.inputs.get("y"), noise, last)
    case.check("traj_x", torch.stack(watched.inputs[:: solver.nfe_per_step]))
    case.check("traj_denoised", torch.stack(watched.answers[:: solver.nfe_per_step]))
    return x


@claim("cm_edit")
@torch.no_grad()
def edit(case: Case) -> None:
    images, spec, of = case.inputs["images"], case.spec, scalings(case)
    operator, fill = operator_of(case, images)
    case.check("images", operator.impose(torch.full_like(images, fill)))
    grid = karras(spec["steps"], of["sigma_min"], of["sigma_max"], of["rho"])[spec["ts"]]
    begun = replace(operator, start=case.inputs["x"], noisy=True)  # theirs is given with its first noise
    model = openai_model(case, boundary=spec.get("distillation", True))
    walk = constrained.edit(
        MultistepSampler(grid[:-1], of["sigma_min"], clip=True), begun, model, case.tape, case.inputs.get("y")
    )
    *_, x, _ = walk  # theirs is not brought back into [-1, 1] at the end
    # as above: noise after the last jump, of variance 0 where ts ends at the last index
    case.check("x", x + (grid[-1] ** 2 - of["sigma_min"] ** 2).clamp(min=0).sqrt().float() * case.tape.next())


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
        patch = case.spec.get("patch_size", 8)
        operator, first = operators.superres(images, factor=patch), torch.ones(patch**2)
    q = operators.orthogonal(first.double())
    case.check("Q", q * (q * case.outputs["Q"]).sum(0).sign())  # which way a free coordinate points is arbitrary
    return operator, 0.0


# ``CMStochasticIterativeScheduler``
SCHEDULER = {
    "num_train_timesteps": 40,
    "sigma_min": 0.002,
    "sigma_max": 80.0,
    "sigma_data": 0.5,
    "s_noise": 1.0,
    "rho": 7.0,
    "clip_denoised": True,
}


@claim("diffusers_scheduler")
@torch.no_grad()
def scheduler(case: Case) -> None:
    """Input and output of each step: our walk's next input is their ``prev_sample``."""
    of, levels = case.spec["sched"].options(SCHEDULER), diffusers_levels(case)
    sigma_min, data = of["sigma_min"], of["sigma_data"]
    preconditioning = Preconditioning(data, sigma_min, "log-1000")
    known = torch.tensor([0.002, 0.003, 0.1, 1, 20, 80])  # of the scalings, where the case does not record them
    c_skip, c_out, *_ = preconditioning(case.inputs.get("sigmas", known))
    case.check("c_skip", c_skip)
    case.check("c_out", c_out)
    case.check("timesteps", preconditioning(levels)[3])
    case.check("sigmas", torch.cat([levels, levels.new_tensor([sigma_min])]))
    net = tiny_net(case, "net", case.spec.get("num_classes", 0), case.spec.get("tscale", 0.01))
    model = Denoiser(net, preconditioning)
    watched = Watched(clip_denoised(model) if of["clip_denoised"] else model)
    x = of["sigma_max"] * case.inputs["noise0"]  # a defect: also where levels[0] is lower
    noise = Louder(case.tape, of["s_noise"])
    *_, end = multistep(watched, x, levels, noise, case.inputs.get("y"), sigma_min=sigma_min)
    case.check("x", end)
    scaled = [broadcast_like(1 / (s**2 + data**2).sqrt(), x) * x for x, s in zip(watched.inputs, levels, strict=True)]
    steps = zip(scaled, [*watched.inputs[1:], end], strict=True)
    case.check("traj_scaled_input_then_prev_sample", torch.stack([x for step in steps for x in step]))
    case.leave("noisy", "its clean image is not recorded")


class Louder:
    """Their ``s_noise``, by which every draw is multiplied."""

    def __init__(self, tape: Tape, scale: float):
        self.tape, self.scale = tape, scale

    def normal(self, shape, stream: int = 0) -> Tensor:
        return self.scale * self.tape.normal(shape, stream)


def diffusers_levels(case: Case) -> Tensor:
    """Theirs to choose: custom indices in ascending order of time, or every (40 // n)-th one."""
    of, chosen = case.spec["sched"].options(SCHEDULER), case.spec["set"]
    total = of["num_train_timesteps"]
    if "timesteps" in chosen:
        indices = list(chosen["timesteps"])[::-1]
    else:
        n = chosen["num_inference_steps"]
        indices = (np.arange(n) * (total // n)).tolist()
    return karras(total, of["sigma_min"], of["sigma_max"], of["rho"])[indices]
