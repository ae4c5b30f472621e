"""Averages of the weights, their reconstruction, and the learning rate that goes with them."""

import numpy as np
import pytest
import torch
from harness import Case, claim
from torch import Tensor, nn

from cmtool.options.lr_schedule import learning_rate
from cmtool.training import posthoc_ema
from cmtool.training.ema import EMA, Rule, half_life_decay, power_decay

# ``learning_rate_schedule`` by default; the hold in batches.
SCHEDULE = {"ref_lr": 0.01, "ref_batches": 70_000, "rampup_Mimg": 10}


@claim("edm2_phema")
def post_hoc(case: Case) -> None:
    spec, widths = case.spec, case.spec["stds"]
    assert len(case.inputs["traj"]) == spec["steps"]
    assert {images for images, *_ in case.expected["lr"]} == set(spec["lr_nimg"])
    gammas = [posthoc_ema.exponent(w) for w in widths]
    case.check("std_to_exp", torch.tensor(gammas, dtype=torch.float64))
    case.check("exp_to_std", torch.tensor([posthoc_ema.width(gamma) for gamma in gammas], dtype=torch.float64))
    case.check("exp_to_std_of_1_6_16", torch.tensor([posthoc_ema.width(g) for g in ROUNDED], dtype=torch.float64))
    betas = [[power_decay(w)(spec["batch"], images) for images in spec["t_next"]] for w in widths]
    case.check("beta", torch.tensor(betas, dtype=torch.float64))
    sampled = posthoc_ema.profile(np.arange(len(case.outputs["response"])), spec["ofs"], widths[0])
    case.check("response", torch.from_numpy(sampled / sampled.sum()))
    times, of = zip(*spec["pairs"], strict=True)
    case.check("corr", torch.from_numpy(posthoc_ema.overlap(times, of, times, of)))
    for i, (times, of, time, wanted) in enumerate(spec["solves"]):
        of = of if isinstance(of, list) else [of] * len(times)
        mixes = [posthoc_ema.solve_mix(times, of, time, w).weights for w in wanted]
        case.check(f"coef.{i}", torch.from_numpy(np.stack(mixes, 1)))
    for w in widths:
        case.check(f"ema-{w:.3f}", averaged(case, power_decay(w)))
    case.check("ema_traditional", averaged(case, half_life_decay(spec["halflife"] * 1e6, ramp=0.09)))
    schedule(case)


ROUNDED = (1.0, 6.94, 16.97)  # the exponents behind a name that cuts their digits


def averaged(case: Case, rule: Rule) -> Tensor:
    """The average of a vector that is ``in.traj[k]`` after the k-th step."""
    model = nn.Linear(1, 5, bias=False)
    average, batch = EMA(model, rule=rule), case.spec["batch"]
    for k, value in enumerate(case.inputs["traj"], 1):
        model.weight.data.copy_(value[:, None])
        average.update(model, batch, k * batch)
    return next(average.model.parameters())[:, 0]


def schedule(case: Case) -> None:
    """In the warm-up their rate at image n is ours at n - 1: ours does not begin with a rate of 0."""
    of = {key: case.spec.get(key, value) for key, value in SCHEDULE.items()}
    warmup = of["rampup_Mimg"] * 1_000_000
    for images, batch, rate in case.expected["lr"]:
        seen = images - (0 < images < warmup)
        ours = learning_rate(of["ref_lr"], seen, 10**10, warmup, "sqrt", of["ref_batches"] * batch)
        assert ours == pytest.approx(rate, rel=1e-9) or images == 0
