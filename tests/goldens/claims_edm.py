"""EDM and easy consistency tuning: preconditioning, samplers, r(t)."""

import torch
from harness import CHECKPOINTS, SAMPLERS, Case, Watched, claim, classes_of, edm_model, later

from cmtool.core.grids import karras, to_zero
from cmtool.core.pixels import to_pixels
from cmtool.core.samplers import multistep, probability_flow
from cmtool.core.solvers import euler, heun
from cmtool.objectives.levels import ect_ratio

# What an ablation of the sampler may say while staying Algorithm 1 in the noise level, without churn.
PLAIN = {"S_churn": 0, "alpha": 1, "discretization": "edm", "scaling": "none", "schedule": "linear"}
GRID = {"num_steps", "rho", "sigma_max", "sigma_min", "solver"}


@claim("edm_net")
@torch.no_grad()
def net(case: Case) -> None:
    if case.spec["net"]["model_type"] != "TinyAdapter" or case.spec["precond"] != "EDMPrecond":
        later(CHECKPOINTS)
    model, labels = edm_model(case), classes_of(case.inputs.get("class_labels"))
    case.check("D", model(case.inputs["x"], case.inputs["sigma"], labels))
    case.check("F", model.net(case.inputs["x_raw"], case.inputs["c_noise"], labels))
    if labels is not None:
        case.check("D_nolabel", model(case.inputs["x"], case.inputs["sigma"]))
    case.check("round_sigma", case.inputs["sigma"])
    case.leave("sigma_min_max", "0 and no upper end: our denoisers accept every level")


@claim("edm_sampler")
@torch.no_grad()
def sampler(case: Case) -> None:
    args = case.spec["args"]
    plain = all(name in GRID or PLAIN.get(name) == value for name, value in args.items())
    if not plain or case.spec["precond"] != "EDMPrecond":
        later(SAMPLERS)
    model = Watched(edm_model(case))
    ends = args.get("sigma_min", 0.002), args.get("sigma_max", 80.0), args.get("rho", 7.0)
    levels = to_zero(karras(args["num_steps"], *ends))
    solver = {"euler": euler, "heun": heun}[args.get("solver", "heun")]()
    x, labels = case.inputs["latents"].double() * levels[0], classes_of(case.inputs.get("class_labels"))
    *_, x = probability_flow(model, x, levels, solver, labels)
    case.check("x", x)
    case.check("sigma_calls", torch.stack(model.levels))
    case.check("denoised_calls", torch.stack(model.answers))
    # their 127.5 x + 128, cut to an integer, is our round(127.5 (x + 1)); a pixel on the edge may fall either way
    assert (to_pixels(x).int() - case.outputs["uint8"].int()).abs().max() <= 1
    case.leave("uint8", "checked above to one grey level")


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
