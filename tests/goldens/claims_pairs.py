"""The other pairwise losses: iCT's tables, FastGen's consistency models, progressive distillation.

Two deviations of the references are reproduced here alone. Kinyugo's pseudo-Huber distance acts on each pixel with the
constant that the paper gives to the whole image, and its models see neither c_in nor a function of sigma. FastGen
holds r at sigma_min, where the model is still asked, and has no boundary.
"""

import math
from collections.abc import Callable

import pytest
import torch
from claims_training import uniform_of
from harness import Case, claim, gradients, openai_model, scalings, tiny_net
from torch import Tensor, nn

from cmtool.core.denoiser import Denoiser, Preconditioning, broadcast_like
from cmtool.core.process import TrigFlow
from cmtool.core.sampling.loops import multistep
from cmtool.core.sigma_schedules import karras
from cmtool.core.solvers import euler
from cmtool.objectives.consistency import Consistency, along_noise, along_teacher, ect_ratio, inverse_gap, pair_weight
from cmtool.objectives.consistency_2023 import adjacent_log_normal, doubling_steps, openai_ema_decay, openai_steps
from cmtool.objectives.denoising import Denoising
from cmtool.objectives.distances import huber_constant, pseudo_huber_of
from cmtool.objectives.easy_consistency import round_pair
from cmtool.objectives.multistep_distillation import pd
from cmtool.objectives.objective import Batch, Requirements


@claim("cm_progdist_loss")
def progressive(case: Case) -> None:
    spec, x, z, of = case.spec, case.inputs["x_start"], case.inputs["noise"], scalings(case)
    model, n = openai_model(case), case.spec["num_scales"]
    u, labels = uniform_of(case.tape.next(), n + 1), case.inputs.get("y")
    for norm in sorted({name.split(".")[1] for name in case.open if name.startswith("pd_loss.")}):
        for name in spec["weights"]:
            objective = pd(openai_model(case, "teacher"), first=n, last=n, metric=norm, weight=name, **of)
            loss = objective.loss(model, Batch(x, z, u, labels), 0.0)
            case.check(f"pd_loss.{norm}.{name}", loss)
            if f"pd_grad.{norm}.conv1.weight" in case.open and name == spec["weights"][0]:
                loss.mean().backward()
                for key, gradient in gradients(model).items():
                    case.check(f"pd_grad.{norm}.{key}", gradient)
    denoising(case, model, Batch(x, z, torch.zeros(len(x), dtype=torch.float64), labels))


@torch.no_grad()
def denoising(case: Case, model: Denoiser, batch: Batch) -> None:
    sigmas, data = case.inputs["sigmas"], scalings(case)["sigma_data"]
    for name in ("uniform", *case.spec["weights"]):
        weight = pair_weight(name, data)
        objective = Denoising(lambda u: sigmas, lambda t, weight=weight: weight(t, t), Preconditioning(data))
        loss = objective.loss(model, batch, 0.0)
        if name == "uniform":
            case.check("tr_xs_mse", loss)
        if name in case.spec["weights"]:
            case.check(f"tr_mse.{name}", loss)


class Tiny(nn.Module):
    """FastGen's tiny network behind EDM's scalings; its head for a log variance is no part of these losses."""

    def __init__(self, case: Case, weights: str):
        super().__init__()
        self.net = case.golden.TinyFG()
        self.net.load_state_dict(case.weights[weights])

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.net(x, sigma)[0]


# Their names of the weights of a pair, with sigma_data 0.5 in c_out.
FASTGEN = {
    "default": "gap",
    "c_out": "output",
    "c_out_sq": "variance",
    "sigma_sq": "snr",
    "sqrt": "root-gap",
    "one": "uniform",
}
# ``EDMNoiseSchedule``; its 1000 levels are those that ``quantize`` rounds to, whatever the case's ``num_steps``
SCHEDULE = {"min_t": 0.002, "max_t": 80.0, "rho": 7.0}
LEVELS, APART = 1000, 1e-6


def held(t: Tensor, ratio: float, lowest: float) -> Tensor:
    """Our r(t), held at the lowest level; they call ``1 - 1/q^(stage + 1)`` the ratio."""
    return ect_ratio(t, 0, q=1 / (1 - ratio)).clamp(min=lowest)


@claim("fastgen_cm")
def fastgen(case: Case) -> None:
    spec, t, model = case.spec, case.inputs["t"], Tiny(case, "net")
    of = {key: spec.get(key, value) for key, value in SCHEDULE.items()}
    lowest = max(of["min_t"], spec.get("min_r", 0.0))
    for name in sorted(case.open):
        if name.startswith("r_"):
            case.check(name, held(t, float(name.removeprefix("r_")), lowest))
    case.check("edm_sigmas", karras(spec["num_steps"], *of.values()).flip(0))
    times = torch.linspace(0, math.pi / 2, spec["num_steps"], dtype=torch.float64)
    case.check("trig_sigmas", TrigFlow(sigma_data=1.0).deviation(times))
    for stage, ratio in case.expected["ratio_stage"]:
        assert min(1 - 1 / spec["q"] ** (stage + 1), case.expected["ratio_limit"]) == pytest.approx(ratio, rel=1e-12)
    assert case.expected["q"] == spec["q"]

    r = held(t, spec["ratio"], lowest)
    t = torch.where(r >= t - APART, r + APART, t)
    pair = round_pair(t, r, karras(LEVELS, *of.values())) if spec.get("quantize", False) else (t, r)
    back = along_teacher(Tiny(case, "teacher"), euler()) if spec["cd"] else along_noise
    batch = Batch(case.inputs["real"], case.tape.next(), torch.zeros(len(t), dtype=torch.float64))
    last = torch.empty(0)
    for name in spec["weightings"]:
        for c, square in spec["hubers"]:
            of_pair = f"{name}.c{c}.sq{int(square)}"
            metric = squared_distance if square and not c else pseudo_huber_of(c)  # the constant comes first
            for start, weight in (("loss", FASTGEN[name]), ("unweighted", "uniform")):
                objective = Consistency(
                    lambda u, p: pair, back, metric, pair_weight(weight, 0.5), requirements=Requirements("consistency")
                )
                loss = objective.loss(model, batch, 0.0)
                case.check(f"{start}.{of_pair}", loss)
                if start == "loss":
                    last = loss
    last.mean().backward()
    for key, p in model.net.named_parameters():
        if f"grad_last.{key}" in case.open:
            case.check(f"grad_last.{key}", p.grad)


# Kinyugo's constructors and samplers by default, and what their test network is told.
KINYUGO = {"sigma_min": 0.002, "sigma_max": 80.0, "rho": 7.0, "sigma_data": 0.5, "mean": -1.1, "std": 2.0}
KINYUGO |= {"tscale": 0.1, "ab_ratio": 0.3}  # the share of the first image, which no case records


def of_kinyugo(case: Case) -> dict[str, float]:
    return {key: case.spec.get(key, value) for key, value in KINYUGO.items()}


def squared_distance(a: Tensor, b: Tensor) -> Tensor:
    """``|a - b|^2``, summed over the image."""
    return (a - b).square().flatten(1).sum(1)


def rising_levels(case: Case, n: int) -> Tensor:
    of = of_kinyugo(case)
    return karras(n, of["sigma_min"], of["sigma_max"], of["rho"]).flip(0)


class Bare:
    """Kinyugo's wrapper: the boundary scalings around a network that is given x and sigma as they are."""

    def __init__(self, case: Case, weights: str):
        of = of_kinyugo(case)
        self.net = tiny_net(case, weights, 0, of["tscale"])
        self.preconditioning = Preconditioning(of["sigma_data"], of["sigma_min"])

    def __call__(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        c_skip, c_out, *_ = self.preconditioning(sigma)
        return broadcast_like(c_skip, x) * x + broadcast_like(c_out, x) * self.net(x, sigma.to(x))


@claim("ict_tables")
@torch.no_grad()
def improved(case: Case) -> None:
    """The first draws belong to the recorded distributions, from each of which a few indices were drawn."""
    tables(case)
    grids(case)
    levels = case.inputs.get("sigmas", torch.tensor([0.002, 0.003, 0.1, 1, 20, 80]))
    c_skip, c_out, *_ = Bare(case, "net").preconditioning(levels)
    case.check("skip_scaling", c_skip)
    case.check("output_scaling", c_out)
    for _ in [n for n in case.spec["N"] if n > 2]:
        case.tape.next()
    losses(case)
    samples(case)


def tables(case: Case) -> None:
    spec, total = case.spec, case.expected["total"]
    assert total == spec["total"]
    assert [row[:3] for row in case.expected["improved"]] == [[k, *ends] for ends in spec["ict"] for k in spec["steps"]]
    for step, first, last, n in case.expected["improved"]:
        assert doubling_steps(progress_of(step, total, first, last), first, last) == n
    for step, first, last, n in case.expected["original"]:
        assert openai_steps(step / total, first, last) == n
    for n, rate, first, mu in case.expected["ema"]:
        assert openai_ema_decay(n, first, rate) == pytest.approx(mu, rel=1e-12)
    now = spec["cur"]  # under the schedules that their constructors have by default
    assert doubling_steps(progress_of(now, total, 10, 1280), 10, 1280) == case.expected["ict_N"]
    assert openai_steps(now / total, 2, 150) == case.expected["ct_N"]


def progress_of(step: int, total: int, first: int, last: int) -> float:
    """Their stages are whole numbers of steps, ours need not be: the middle of this step in the same place of ours."""
    stages = math.log2(last // first) + 1
    return (step + 0.5) / math.floor(total / stages) / stages


def grids(case: Case) -> None:
    """How likely each pair is: the share of evenly spread uniform numbers that choose it."""
    of, u = of_kinyugo(case), (torch.arange(400_000, dtype=torch.float64) + 0.5) / 400_000
    for n in case.spec["N"]:
        rising = rising_levels(case, n)
        case.check(f"sigmas.{n}", rising)
        ours, theirs = inverse_gap(rising[1:], rising[:-1]), case.outputs[f"weights.{n}"].double()
        assert torch.allclose(ours, theirs, rtol=2.0**-21 * n, atol=0)
        case.leave(f"weights.{n}", "compared above to what differences of float32 levels keep")
        if n > 2:
            t, r = adjacent_log_normal(u, rising.flip(0), of["mean"], of["std"])
            index = torch.searchsorted(rising, t) - 1
            assert torch.equal(rising[index], r)
            share = index.bincount(minlength=n - 1).double() / len(u)
            assert torch.allclose(share, case.outputs[f"lognormal_pdf.{n}"].double(), rtol=0, atol=2.6e-6)
            case.leave(f"lognormal_pdf.{n}", "compared above to the fineness of the uniform numbers")


def losses(case: Case) -> None:
    """Pairs by index; iCT's teacher is the student, CT's has weights of its own."""
    x, student = case.inputs["x"], Bare(case, "net")
    for name, teacher, n in (("ict", "net", case.expected["ict_N"]), ("ct", "target", case.expected["ct_N"])):
        z, index = case.tape.next(), case.tape.next()
        rising = rising_levels(case, int(n))
        t, r = rising[index + 1], rising[index]
        here, there = student(x + broadcast_like(t, x) * z, t), Bare(case, teacher)(x + broadcast_like(r, x) * z, r)
        case.check(f"{name}.predicted", here)
        case.check(f"{name}.target", there)
        if name == "ict":
            weights = case.outputs["ict.loss_weights"]
            assert torch.allclose(inverse_gap(t, r), weights.flatten().double(), rtol=2.0**-21 * n, atol=0)
            case.leave("ict.loss_weights", "compared above to what differences of float32 levels keep")
            each = pseudo_huber_of(huber_constant(x))(here.reshape(-1, 1), there.reshape(-1, 1)).view_as(x)
            case.check("ict.pseudo_huber", each)
            case.check("ict.loss", (each * weights).mean())


def samples(case: Case) -> None:
    """Only inpainting clips what the model says; no case records that."""
    x, mask, model, of = case.inputs["x"], case.inputs["mask"], Bare(case, "net"), of_kinyugo(case)
    levels = torch.tensor(case.spec["sig"], dtype=torch.float64)

    def walk(start: Tensor, impose: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        *_, end = multistep(model, start, levels, case.tape, impose=impose, sigma_min=of["sigma_min"])
        return end

    high = levels[0].float()
    case.check("sample", walk(high * case.tape.next()))
    known = x * (1 - mask)
    case.check("inpaint", walk(known + high * case.tape.next(), lambda y: known + mask * y.clamp(-1, 1)))
    a, b = (x[i : i + 1] + high * case.tape.next() for i in (0, 1))
    case.check("interpolate", walk(blended(a, b, of["ab_ratio"])))


def blended(a: Tensor, b: Tensor, share: float) -> Tensor:
    """``share`` of a."""
    psi = ((a * b).sum() / (a.norm() * b.norm())).arccos()
    return (share * psi).sin() / psi.sin() * a + ((1 - share) * psi).sin() / psi.sin() * b
