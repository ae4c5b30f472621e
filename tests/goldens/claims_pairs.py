"""The other pairwise losses: iCT's tables, FastGen's consistency models, progressive distillation.

Two deviations of the references are reproduced here alone. Kinyugo's pseudo-Huber distance acts on each pixel with the
constant that the paper gives to the whole image, and its models see neither c_in nor a function of sigma. FastGen
holds r at sigma_min, where the model is still asked, and has no boundary.
"""

import math
from collections.abc import Callable

import pytest
import torch
from claims_cm import weighting
from claims_training import NORMS, uniform_of
from harness import Case, claim, gradients, openai_model
from torch import Tensor, nn

from cmtool.core.denoiser import Denoiser, Preconditioning, like
from cmtool.core.grids import karras
from cmtool.core.process import TrigFlow
from cmtool.core.samplers import multistep
from cmtool.core.solvers import euler
from cmtool.objectives.consistency import (
    Consistency,
    Weight,
    along_noise,
    along_teacher,
    constant,
    inverse_gap,
    inverse_output,
)
from cmtool.objectives.denoising import Denoising
from cmtool.objectives.levels import adjacent_log_normal, doubling_steps, ect_ratio, openai_rate, openai_steps
from cmtool.objectives.metrics import huber_constant, pseudo_huber_of, squared
from cmtool.objectives.objective import Batch
from cmtool.objectives.pd import pd


@claim("cm_progdist_loss")
def progressive(case: Case) -> None:
    spec, x, z = case.spec, case.inputs["x_start"], case.inputs["noise"]
    model, n = openai_model(case), case.spec["num_scales"]
    objective = pd(openai_model(case, "teacher"), first=n)
    u = uniform_of(case.tape.next(), n + 1)
    for norm in ("l1", "l2"):
        for name in spec["weights"]:
            objective.metric, objective.weight = NORMS[norm], lambda t, r, name=name: weighting(name)(t)
            loss = objective.loss(model, Batch(x, z, u), 0.0)
            case.check(f"pd_loss.{norm}.{name}", loss)
            if f"pd_grad.{norm}.conv1.weight" in case.open and name == spec["weights"][0]:
                loss.mean().backward()
                for key, gradient in gradients(model).items():
                    case.check(f"pd_grad.{norm}.{key}", gradient)
    denoising(case, model, x, z)


@torch.no_grad()
def denoising(case: Case, model: Denoiser, x: Tensor, z: Tensor) -> None:
    batch = Batch(x, z, torch.zeros(len(x), dtype=torch.float64))
    for name in ("one", *case.spec["weights"]):
        weight = torch.ones_like if name == "one" else weighting(name)
        objective = Denoising(lambda u: case.inputs["sigmas"], weight, Preconditioning())
        case.check("tr_xs_mse" if name == "one" else f"tr_mse.{name}", objective.loss(model, batch, 0.0))


class Tiny(nn.Module):
    """FastGen's tiny network behind EDM's scalings; its head for a log variance is no part of these losses."""

    def __init__(self, case: Case, weights: str):
        super().__init__()
        self.net = case.golden.TinyFG()
        self.net.load_state_dict(case.weights[weights])

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.net(x, sigma)[0]


FASTGEN: dict[str, Weight] = {
    "default": inverse_gap,
    "c_out": inverse_output(0.5),
    "c_out_sq": inverse_output(0.5, 2),
    "sigma_sq": lambda t, r: t**-2,
    "sqrt": lambda t, r: (t - r) ** -0.5,
    "one": constant,
}


def held(t: Tensor, ratio: float) -> Tensor:
    """Our r(t), held at sigma_min; they call ``1 - 1/q^(stage + 1)`` the ratio."""
    return ect_ratio(t, 0, q=1 / (1 - ratio)).clamp(min=0.002)


@claim("fastgen_cm")
def fastgen(case: Case) -> None:
    spec, t, model = case.spec, case.inputs["t"], Tiny(case, "net")
    for name in sorted(case.open):
        if name.startswith("r_"):
            case.check(name, held(t, float(name.removeprefix("r_"))))
    case.check("edm_sigmas", karras(spec["num_steps"]).flip(0))
    times = torch.linspace(0, math.pi / 2, spec["num_steps"], dtype=torch.float64)
    case.check("trig_sigmas", TrigFlow(sigma_data=1.0).deviation(times))
    for stage, ratio in case.expected["ratio_stage"]:
        assert min(1 - 1 / spec["q"] ** (stage + 1), case.expected["ratio_limit"]) == pytest.approx(ratio, rel=1e-12)
    back = along_teacher(Tiny(case, "teacher"), euler()) if spec["cd"] else along_noise
    batch = Batch(case.inputs["real"], case.tape.next(), torch.zeros(len(t), dtype=torch.float64))
    for name in spec["weightings"]:
        for c, square in spec["hubers"]:
            of = f"{name}.c{c}.sq{int(square)}"
            metric = squared if square else pseudo_huber_of(c)
            for start, weight in (("loss", FASTGEN[name]), ("unweighted", constant)):
                objective = Consistency(lambda u, p: (t, held(t, spec["ratio"])), back, metric, weight, sigma_min=0.0)
                loss = objective.loss(model, batch, 0.0)
                case.check(f"{start}.{of}", loss)
                if start == "loss":
                    last = loss
    last.mean().backward()
    for key, p in model.net.named_parameters():
        if f"grad_last.{key}" in case.open:
            case.check(f"grad_last.{key}", p.grad)


class Bare:
    """Kinyugo's wrapper: the boundary scalings around a network that is given x and sigma as they are."""

    def __init__(self, case: Case, weights: str):
        self.net = case.golden.TinyNet(tscale=0.1)
        self.net.load_state_dict(case.weights[weights])

    def __call__(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        c_skip, c_out, *_ = Preconditioning(0.5, 0.002)(sigma)
        return like(c_skip, x) * x + like(c_out, x) * self.net(x, sigma.to(x))


@claim("ict_tables")
@torch.no_grad()
def improved(case: Case) -> None:
    tables(case)
    grids(case)
    levels = torch.tensor([0.002, 0.003, 0.1, 1, 20, 80])  # they are not recorded
    c_skip, c_out, *_ = Preconditioning(0.5, 0.002)(levels)
    case.check("skip_scaling", c_skip)
    case.check("output_scaling", c_out)
    for _ in case.spec["N"][1:]:
        case.tape.next()  # drawn while the distributions were recorded
    losses(case)
    samples(case)


def tables(case: Case) -> None:
    total = case.expected["total"]
    for step, first, last, n in case.expected["improved"]:
        assert doubling_steps(step / total, first, last) == n
    for step, first, last, n in case.expected["original"]:
        assert openai_steps(step / total, first, last) == n
    for n, rate, first, mu in case.expected["ema"]:
        assert openai_rate(n, first, rate) == pytest.approx(mu, rel=1e-12)
    now = case.spec["cur"] / total
    assert doubling_steps(now, 10, 1280) == case.expected["ict_N"]
    assert openai_steps(now, 2, 150) == case.expected["ct_N"]


def grids(case: Case) -> None:
    """How likely each pair is: the share of evenly spread uniform numbers that choose it."""
    u = (torch.arange(400_000, dtype=torch.float64) + 0.5) / 400_000
    for n in case.spec["N"]:
        rising = karras(n).flip(0)
        case.check(f"sigmas.{n}", rising)
        ours, theirs = inverse_gap(rising[1:], rising[:-1]), case.outputs[f"weights.{n}"].double()
        assert torch.allclose(ours, theirs, rtol=2.0**-21 * n, atol=0)
        case.leave(f"weights.{n}", "compared above to what differences of float32 levels keep")
        if n > 2:
            t, r = adjacent_log_normal(u, n, -1.1, 2.0, 0.002, 80.0)
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
        rising = karras(int(n)).flip(0)
        t, r = rising[index + 1], rising[index]
        here, there = student(x + like(t, x) * z, t), Bare(case, teacher)(x + like(r, x) * z, r)
        case.check(f"{name}.predicted", here)
        case.check(f"{name}.target", there)
        if name == "ict":
            case.check("ict.loss_weights", inverse_gap(t, r).view(-1, 1, 1, 1))
            each = pseudo_huber_of(huber_constant(x))(here.reshape(-1, 1), there.reshape(-1, 1)).view_as(x)
            case.check("ict.pseudo_huber", each)
            case.check("ict.loss", (each * like(inverse_gap(t, r), x)).mean())


def samples(case: Case) -> None:
    x, mask, model = case.inputs["x"], case.inputs["mask"], Bare(case, "net")
    levels = torch.tensor(case.spec["sig"], dtype=torch.float64)

    # the share of the second image, and that only inpainting clips, are not recorded: found by trial
    def walk(start: Tensor, impose: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        *_, end = multistep(model, start, levels, case.tape, impose=impose, sigma_min=0.002)
        return end

    high = levels[0].float()
    case.check("sample", walk(high * case.tape.next()))
    known = x * (1 - mask)
    case.check("inpaint", walk(known + high * case.tape.next(), lambda y: known + mask * y.clamp(-1, 1)))
    a, b = (x[i : i + 1] + high * case.tape.next() for i in (0, 1))
    case.check("interpolate", walk(blended(a, b, 0.7)))


def blended(a: Tensor, b: Tensor, share: float) -> Tensor:
    psi = ((a * b).sum() / (a.norm() * b.norm())).arccos()
    return ((1 - share) * psi).sin() / psi.sin() * a + (share * psi).sin() / psi.sin() * b
