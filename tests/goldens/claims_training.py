"""Losses with their gradients, schedules of N(k) and mu(k), and whole training loops."""

import math

import pytest
import torch
from claims_cm import weighting
from claims_edm import choices
from harness import Case, claim, classes_of, edm_model, gradients, openai_model
from torch import Tensor, nn

from cmtool.core.denoiser import Denoiser
from cmtool.core.solvers import heun
from cmtool.objectives.cd import cd
from cmtool.objectives.consistency import Consistency, along_noise, along_teacher
from cmtool.objectives.ct import ct
from cmtool.objectives.ect import ect
from cmtool.objectives.levels import adjacent, halving_steps, openai_rate, openai_steps
from cmtool.objectives.metrics import l1, l2
from cmtool.objectives.objective import Batch
from cmtool.training.ema import Average


def l2_32(a: Tensor, b: Tensor) -> Tensor:
    """OpenAI's third metric: l2 after a bilinear resize to 32 pixels."""
    a, b = (nn.functional.interpolate(v, size=32, mode="bilinear") for v in (a, b))
    return l2(a, b)


NORMS = {"l1": l1, "l2": l2, "l2-32": l2_32}


def uniform_of(index: Tensor, n: int) -> Tensor:
    """The uniform number from which ``adjacent`` chooses this pair of an n-level grid."""
    return (index.double() + 0.5) / (n - 1)


@claim("cm_consistency_loss")
def consistency(case: Case) -> None:
    spec, n = case.spec, case.spec["num_scales"]
    model, target = (openai_model(case, name, sigma_min=0.002) for name in ("net", "target"))
    back = along_teacher(openai_model(case, "teacher"), heun()) if spec["mode"] == "cd" else along_noise
    u = uniform_of(case.tape.next(), n)
    for name in spec["weights"]:
        weight = weighting(name)
        objective = Consistency(
            pair=lambda u, progress: adjacent(u, n, 0.002, 80.0),
            back=back,
            metric=NORMS[spec["norm"]],
            weight=lambda t, r, weight=weight: weight(t),
        )
        objective.target = target
        loss = objective.loss(model, Batch(case.inputs["x_start"], case.inputs["noise"], u), 0.0)
        case.check(f"loss.{name}", loss)
        loss.mean().backward()
        for key, gradient in gradients(model).items():
            case.check(f"grad.{name}.{key}", gradient)


def renamed(case: Case, names: dict[str, str]) -> dict[str, float]:
    """The options that the recorded loss was made with, under our names."""
    options = case.spec.get("loss_kwargs", {})
    return {ours: options[theirs] for theirs, ours in names.items() if theirs in options}


def edm_gradients(case: Case, model: Denoiser) -> None:
    for key, gradient in gradients(model).items():
        case.check(f"grad.model.tiny.{key.removeprefix('net.')}", gradient)


@claim("ect_loss")
def tuning(case: Case) -> None:
    """Training mode: EDM's scalings without the boundary, so the target is the network at every r > 0."""
    ((_, stage),) = case.spec["calls"]
    given = renamed(case, {"c": "c", "P_mean": "mean", "P_std": "std"})
    objective = ect(**given, **choices(case.spec["loss_kwargs"]), stages=stage + 1, sigma_min=0.0)
    u = torch.special.ndtr(case.tape.next().double().flatten())
    model = edm_model(case)
    batch = Batch(case.inputs["images"], case.tape.next(), u, classes_of(case.inputs.get("labels")))
    loss = objective.loss(model, batch, progress=1.0)  # the last of stage + 1 stages
    case.check("loss", loss)
    loss.mean().backward()
    edm_gradients(case, model)


@claim("cm_ema_scales")
def tables(case: Case) -> None:
    for table in case.expected["tables"]:
        config = table["config"]
        if config["scale_mode"] == "progdist":
            halvings(config, table["rows"])
            continue
        for step, rate, levels in table["rows"]:
            assert levels_at(config, step) == levels
            assert rate_at(config, step) == pytest.approx(rate, rel=1e-12)
    follow(case)


def halvings(config: dict, rows: list) -> None:
    """Their run goes on as long as there are steps; ours ends with the last stage."""
    stages = math.log2(config["start_scales"]) + 3  # those of 2 and 1 steps are twice as long
    for step, rate, levels in rows:
        progress = step / (stages * config["distill_steps_per_iter"])
        assert (rate, levels) == (1.0, halving_steps(progress, config["start_scales"]))


def follow(case: Case) -> None:
    """The target's average; recorded in float32, where the order of the two products moves the last bit."""
    given = case.expected["update_ema_inputs"]
    target, source = (weights_of(given[name]) for name in ("targ", "src"))
    objective = ct()
    objective.target, objective.decay = target, lambda progress: case.expected["update_ema_rate"]
    objective.update(source, 0.0)
    for name, ours in zip(("ema_a", "ema_b"), target, strict=True):
        assert torch.allclose(ours, case.outputs[name].double(), rtol=2**-23, atol=0)
        case.leave(name, "compared above to float32")


def weights_of(values: list) -> nn.ParameterList:
    return nn.ParameterList([torch.tensor(value, dtype=torch.float64) for value in values])


def levels_at(config: dict, step: int) -> int:
    if config["scale_mode"] == "fixed":
        return config["start_scales"]
    return openai_steps(step / config["total_steps"], config["start_scales"], config["end_scales"])


def rate_at(config: dict, step: int) -> float:
    if config["target_ema_mode"] == "fixed":
        return config["start_ema"]
    return openai_rate(levels_at(config, step), config["start_scales"], config["start_ema"], "openai")


@claim("cm_train_loop")
def loop(case: Case) -> None:
    spec, config = case.spec, case.spec["ema"]
    model, objective = openai_model(case, sigma_min=0.002), objective_of(case)
    averages = [Average(model, half_life=math.log(0.5) / math.log(float(rate))) for rate in spec["ema_rate"].split(",")]
    optimiser = torch.optim.RAdam(model.parameters(), spec["lr"], weight_decay=spec.get("weight_decay", 0.0))
    for step in range(spec["steps"]):
        assert case.expected["ema_and_scales"][step] == pytest.approx([rate_at(config, step), levels_at(config, step)])
        optimiser.zero_grad()
        x, progress = case.inputs[f"batch{step}"], step / config["total_steps"]
        for piece in x.split(spec["microbatch"] if spec["microbatch"] > 0 else len(x)):
            z, index = case.tape.next(), case.tape.next()
            batch = Batch(piece, z, uniform_of(index, levels_at(config, step)))
            objective.loss(
                model, batch, step / config["total_steps"]
            ).mean().backward()  # pieces add up, as in the reference
        optimiser.step()
        for average in averages:
            average.update(model, batch=1, images=math.inf)  # steps, not images, and no ramp
        objective.update(model, progress)
        check_weights(case, f"student.step{step + 1}", model)
    case.leave("lg_loss_scale", "we train without loss scaling")
    check_weights(case, "target", objective.target)
    for i, average in enumerate(averages):
        check_weights(case, f"ema{i}", average.model)


def objective_of(case: Case) -> Consistency:
    """The recipe with the choices of the recorded run; the target starts from weights of its own."""
    spec, config = case.spec, case.spec["ema"]
    if spec["mode"] == "consistency_distillation":
        objective = cd(openai_model(case, "teacher"), steps=config["start_scales"])
    elif spec["mode"] == "consistency_training":
        objective = ct(first=config["start_scales"], last=config["end_scales"], convention="openai")
    else:
        raise AssertionError(f"no method of ours trains in the mode {spec['mode']}")
    weight = weighting(spec["weight"])
    objective.metric, objective.weight = NORMS[spec["norm"]], lambda t, r: weight(t)
    objective.decay = lambda progress: rate_at(config, round(progress * config["total_steps"]))
    objective.target = openai_model(case, "target", sigma_min=0.002)
    return objective


def check_weights(case: Case, name: str, model: Denoiser) -> None:
    for key, value in model.net.state_dict().items():
        case.check(f"{name}.{key}", value)
