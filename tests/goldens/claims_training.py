"""Losses with their gradients, schedules of N(k) and mu(k), and whole training loops."""

import math

import pytest
import torch
from augmentation import augmented
from claims_edm import TUNING, choices
from harness import Case, claim, classes_of, edm_model, gradients, openai_model, scalings
from torch import Tensor, nn

from cmtool.core.denoiser import Denoiser
from cmtool.core.solvers import heun
from cmtool.objectives.consistency import Consistency, adjacent_pair, along_noise, along_teacher, pair_weight
from cmtool.objectives.consistency_2023 import cd, ct, openai_ema_decay, openai_steps
from cmtool.objectives.distances import metric_called
from cmtool.objectives.easy_consistency import ect
from cmtool.objectives.multistep_distillation import halving_steps
from cmtool.objectives.objective import Batch, Requirements
from cmtool.training.ema import EMA


def uniform_of(index: Tensor, n: int) -> Tensor:
    """The uniform number from which ``adjacent_pair`` chooses this pair of an n-level grid."""
    return (index.double() + 0.5) / (n - 1)


@claim("cm_consistency_loss")
def consistency(case: Case) -> None:
    spec, n, of = case.spec, case.spec["num_scales"], scalings(case)
    model, target = (openai_model(case, name, boundary=True) for name in ("net", "target"))
    ends = of["sigma_min"], of["sigma_max"], of["rho"]
    u = uniform_of(case.tape.next(), n)
    batch = Batch(case.inputs["x_start"], case.inputs["noise"], u, case.inputs.get("y"))
    for name in spec["weights"]:
        objective = Consistency(
            pair=lambda u, progress: adjacent_pair(u, n, *ends),
            previous_point=BACK[spec["mode"]](case),
            metric=metric_called(spec["norm"]),
            weight=pair_weight(name, of["sigma_data"]),
            requirements=Requirements("consistency", of["sigma_min"]),
        )
        objective.target = target
        loss = objective.loss(model, batch, 0.0)
        case.check(f"loss.{name}", loss)
        loss.mean().backward()
        for key, gradient in gradients(model).items():
            case.check(f"grad.{name}.{key}", gradient)


BACK = {"cd": lambda case: along_teacher(openai_model(case, "teacher"), heun()), "ct": lambda case: along_noise}


def edm_gradients(case: Case, model: Denoiser) -> None:
    for key, gradient in gradients(model).items():
        case.check(f"grad.model.tiny.{key.removeprefix('net.')}", gradient)


@claim("ect_loss")
def tuning(case: Case) -> None:
    """Training mode: EDM's scalings without the boundary, so the target is the network at every r > 0."""
    assert case.spec["loss"] == "ECMLoss" and case.spec["precond"] == "ECMPrecond"
    calls = case.spec["calls"]
    assert {call for call, _ in calls} <= {"update_schedule"}
    stage = calls[-1][1] if calls else 0  # each replaces the one before it
    given = case.spec["loss_kwargs"].options(TUNING)
    levels = {
        "P_mean": float(given["P_mean"]),
        "P_std": float(given["P_std"]),
        "sigma_data": float(given["sigma_data"]),
    }
    objective = ect(**levels, c=float(given["c"]), **choices(given), stages=stage + 1, sigma_min=0.0)
    u = torch.special.ndtr(case.tape.next().double().flatten())
    assert len(u) == case.spec["batch"]
    model, images, augment_labels = edm_model(case), case.inputs["images"], None
    if "augment" in case.spec:
        images, augment_labels = augmented(case, images, case.settings["noise_calls"][1:-1])
    batch = Batch(images, case.tape.next(), u, classes_of(case.inputs.get("labels")), augment_labels)
    loss = objective.loss(model, batch, progress=1.0)  # the last of stage + 1 stages
    case.check("loss", loss)
    loss.mean().backward()
    edm_gradients(case, model)


@claim("cm_ema_scales")
def tables(case: Case) -> None:
    configs = [table["config"] for table in case.expected["tables"]]
    assert configs == list(case.spec["configs"])
    for table in case.expected["tables"]:
        config = table["config"]
        steps = case.spec["pd_steps" if config["scale_mode"] == "progdist" else "steps"]
        assert [step for step, *_ in table["rows"]] == list(steps)
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
    assert case.expected["update_ema_rate"] == case.spec["rate"]
    objective.target, objective.decay = target, lambda progress: case.spec["rate"]
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
    return openai_ema_decay(levels_at(config, step), config["start_scales"], config["start_ema"], "openai")


# ``CMTrainLoop`` and ``create_ema_and_scales_fn``, where a case does not say
LOOP = {"microbatch": -1, "weight_decay": 0.0, "lr_anneal_steps": 0}


@claim("cm_train_loop")
def loop(case: Case) -> None:
    spec, config = case.spec, dict(case.spec["ema"])
    given = {key: spec.get(key, value) for key, value in LOOP.items()}
    model, objective = openai_model(case, boundary=True), objective_of(case)
    averages = [EMA(model, half_life=math.log(0.5) / math.log(float(rate))) for rate in spec["ema_rate"].split(",")]
    optimiser = torch.optim.RAdam(model.parameters(), spec["lr"], weight_decay=given["weight_decay"])
    for step in range(spec["steps"]):
        assert case.expected["ema_and_scales"][step] == pytest.approx([rate_at(config, step), levels_at(config, step)])
        optimiser.zero_grad()
        x, progress = case.inputs[f"batch{step}"], step / config["total_steps"]
        labels, size = case.inputs.get(f"y{step}"), given["microbatch"] if given["microbatch"] > 0 else len(x)
        for first in range(0, len(x), size):
            piece = slice(first, first + size)
            z, index = case.tape.next(), case.tape.next()
            u = uniform_of(index, levels_at(config, step))
            batch = Batch(x[piece], z, u, None if labels is None else labels[piece])
            objective.loss(model, batch, progress).mean().backward()  # pieces add up, as in the reference
        optimiser.step()
        for average in averages:
            average.update(model, batch=1, images=math.inf)  # steps, not images, and no ramp
        objective.update(model, progress)
        anneal(optimiser, spec["lr"], step, given["lr_anneal_steps"])
        check_weights(case, f"student.step{step + 1}", model)
    case.leave("lg_loss_scale", "we train without loss scaling")
    check_weights(case, "target", objective.target)
    for i, average in enumerate(averages):
        check_weights(case, f"ema{i}", average.model)


def anneal(optimiser: torch.optim.Optimizer, rate: float, step: int, steps: int) -> None:
    """Their rate falls to 0 over ``steps``; after this step it is that of the next."""
    if steps:
        optimiser.param_groups[0]["lr"] = rate * (1 - (step + 1) / steps)


def objective_of(case: Case) -> Consistency:
    """The recipe with the choices of the recorded run; the target starts from weights of its own."""
    spec, config, of = case.spec, dict(case.spec["ema"]), scalings(case)
    common = {"metric": spec["norm"], "weight": spec["weight"], **of}
    if spec["mode"] == "consistency_distillation":
        objective = cd(openai_model(case, "teacher"), steps=2, **common)
    elif spec["mode"] == "consistency_training":
        objective = ct(convention="openai", **common)
    else:
        raise AssertionError(f"no method of ours trains in the mode {spec['mode']}")
    ends = of["sigma_min"], of["sigma_max"], of["rho"]

    def step_at(progress: float) -> int:
        return round(progress * config["total_steps"])

    objective.pair = lambda u, progress: adjacent_pair(u, levels_at(config, step_at(progress)), *ends)
    objective.decay = lambda progress: rate_at(config, step_at(progress))
    objective.target = openai_model(case, "target", boundary=True)
    return objective


def check_weights(case: Case, name: str, model: Denoiser) -> None:
    for key, value in model.net.state_dict().items():
        case.check(f"{name}.{key}", value)
