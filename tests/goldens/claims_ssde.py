"""Score-SDE: its three equations, predictor-corrector walks, and likelihoods of a Gaussian.

Its conventions that are not ours, reproduced here alone: scores at times linspace(1, eps, N) while the discrete
coefficients come from a table of N rungs; Euler-Maruyama steps of -1/N on that grid; editing that holds what is known
at the time before a prediction, and ends on a noisy image with a clean known part. Norms pooled over the batch are an
option of the corrector.
"""

from dataclasses import dataclass, replace

import torch
from harness import Case, Tape, claim
from oracles import Gaussian
from torch import Tensor

from cmtool.core.denoiser import Denoise, like
from cmtool.core.ladders import DDPM, NCSN
from cmtool.core.langevin import ALD, Langevin, annealed_langevin
from cmtool.core.likelihood import adaptive, bits_per_dim, every_axis, log_likelihood, log_normal
from cmtool.core.operators import Operator, inpaint
from cmtool.core.predictor_corrector import Held, predictor_corrector
from cmtool.core.process import VE, VP, Process, SubVP
from cmtool.core.samplers import last
from cmtool.core.sde import (
    Ancestral,
    EulerMaruyama,
    Motion,
    ReverseDiffusion,
    Update,
    denoiser_of,
    native_flow,
    native_start,
    reverse_drift,
)
from cmtool.core.solvers import Field

PROCESSES = {"VPSDE": VP(), "subVPSDE": SubVP(), "VESDE": VE()}


def ladder_of(case: Case) -> DDPM | NCSN | None:
    """The chain of N rungs behind the equation; sub-VP has none."""
    n = case.spec["sde"].get("N", 1000)
    make = {"VPSDE": DDPM.linear, "VESDE": NCSN.geometric}.get(case.spec["sde"]["name"])
    return make(n) if make else None


def rung(t: Tensor, n: int) -> Tensor:
    """Which rung of 1 .. N the reference takes for a time in its own precision."""
    return ((t.float() * (n - 1)).long() + 1).double()


@claim("ssde_sde")
def equation(case: Case) -> None:
    process, t, x, score = PROCESSES[case.spec["sde"]["name"]], case.inputs["t"], case.inputs["x"], case.inputs["score"]
    case.check("mean", like(process.scale(t), x) * x)
    case.check("std", process.deviation(t))
    case.check("drift", like(process.drift(t), x) * x)
    case.check("diffusion", process.diffusion(t))
    case.check("rev_drift", reverse_drift(process, score, x, t))
    case.check("rev_diffusion", process.diffusion(t))
    case.check("pf_drift", reverse_drift(process, score, x, t, noise=0.0))
    case.check("pf_diffusion", torch.tensor(0.0))
    one = torch.tensor(1.0)
    case.check("prior_logp", log_normal(x, process.prior(one)))
    case.check("prior_sample", native_start(case.tape, (3, 4, 4), process, one))
    tables(case)
    discrete(case, process, t, x, score)


def tables(case: Case) -> None:
    ladder, rungs = ladder_of(case), torch.arange(1, 1001, dtype=torch.float64)
    if isinstance(ladder, NCSN):
        case.check("table_discrete_sigmas", ladder.level(rungs))
    elif ladder:
        case.check("table_discrete_betas", ladder.transition(rungs, rungs - 1)[1] ** 2)
        case.check("table_alphas", ladder.transition(rungs, rungs - 1)[0] ** 2)
        case.check("table_alphas_cumprod", ladder.scale(rungs) ** 2)
        case.check("table_sqrt_alphas_cumprod", ladder.scale(rungs))
        case.check("table_sqrt_1m_alphas_cumprod", ladder.deviation(rungs))


def discrete(case: Case, process: Process, t: Tensor, x: Tensor, score: Tensor) -> None:
    """One discrete step: on the ladder, or for sub-VP, which has none, one of Euler of length 1/N."""
    ladder = ladder_of(case)
    at = rung(t, 1000)
    a, b = ladder.transition(at, at - 1) if ladder else (1 + process.drift(t) / 1000, process.diffusion(t) / 1000**0.5)
    case.check("disc_f", like(a - 1, x) * x)
    case.check("disc_G", b)
    case.check("rev_G", b)
    case.check("pf_G", torch.zeros(8))
    for name, noise in (("rev_f", 1.0), ("pf_f", 0.0)):
        if ladder:
            motion = Motion(ladder, lambda x, t: score, Zeros())
            _, mean = ReverseDiffusion(noise)(motion, x, at, at - 1)
        else:
            mean = x - reverse_drift(process, score, x, t, noise) / 1000
        case.check(name, x - mean)


class Zeros:
    """For updates of which only the mean is looked at."""

    def normal(self, shape, stream: int = 0) -> Tensor:
        return torch.zeros(1, *shape)


@dataclass(frozen=True)
class OnRungs:
    """Scores at t, but the coefficients of the rung that belongs to t."""

    update: Update
    ladder: DDPM | NCSN

    def __call__(self, motion: Motion, x: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        at = rung(t, len(self.ladder))
        return self.update(replace(motion, process=self.ladder, score=lambda x, _: motion.score(x, t)), x, at, at - 1)


@dataclass(frozen=True)
class Short:
    """A step of 1/N, whatever the grid."""

    update: Update
    n: int

    def __call__(self, motion: Motion, x: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        return self.update(motion, x, t, t - 1 / self.n)


def predictor_of(case: Case) -> Update:
    ladder, noise = ladder_of(case), 0.0 if case.spec.get("pf") else 1.0
    if case.spec["predictor"] == "euler_maruyama":
        return Short(EulerMaruyama(noise), case.spec["sde"]["N"])
    assert ladder
    wide = isinstance(ladder, DDPM)
    return OnRungs(
        Ancestral(wide) if case.spec["predictor"] == "ancestral_sampling" else ReverseDiffusion(noise), ladder
    )


def corrector_of(case: Case) -> Update | None:
    """The scale of a step comes from the ladder, and is 1 on the one without a scale."""
    if case.spec["corrector"] == "none":
        return None
    snr, steps, ladder = case.spec["snr"], case.spec["n_steps"], ladder_of(case)
    update = ALD(snr, steps) if case.spec["corrector"] == "ald" else Langevin(snr, steps, pooled=True)
    return OnRungs(update, ladder) if isinstance(ladder, DDPM) else update


def network(case: Case, process: Process) -> Denoise:
    """Theirs predicts a score from sigma (VE), or noise from 999 t."""
    golden, kind = case.golden, case.spec["model"]
    net = golden.GaussTinyVE() if kind == "ve" else golden.GaussTinyVP(sub=kind == "subvp")
    net.load_state_dict(case.weights["net"])

    def score(x: Tensor, t: Tensor) -> Tensor:
        if kind == "ve":
            return net(x, process.level(t))
        return -net(x, 999 * t) / like(process.deviation(t), x)

    return denoiser_of(score, process)


@claim("ssde_pc")
@torch.no_grad()
def walk(case: Case) -> None:
    spec, process = case.spec, PROCESSES[case.spec["sde"]["name"]]
    model, shape, n = network(case, process), tuple(spec["shape"][1:]), spec["sde"]["N"]
    times = torch.linspace(1.0, spec["eps"], n).double()
    x = native_start(case.tape, shape, process, times[0])
    if spec["predictor"] == "none":  # the annealed Langevin dynamics of NCSN
        levels, rate = process.level(times), 2 * spec["snr"] ** 2
        case.check("x", last(annealed_langevin(model, x, levels, case.tape, rate, spec["n_steps"])))
        return
    below = torch.cat([times, torch.zeros(1)])  # a prediction from every time; where the last one leads is the rung's
    predictor, corrector = predictor_of(case), corrector_of(case)
    if "task" not in spec:
        ends = predictor_corrector(
            model, x, below, process, case.tape, predictor, corrector, denoise=spec.get("denoise", True)
        )
        case.check("x", last(ends))
        return
    assert corrector
    operator, x = task(case, x)
    # their noise on what is known is drawn in the coordinates of the task: the same in law, as those are orthogonal
    tape = Tape([operator.inverse(z) if k % 2 else z for k, z in enumerate(case.draws[1:])])
    held = Held(predictor, operator, stays=True), Held(corrector, operator, stays=True)
    x = last(predictor_corrector(model, x, below, process, tape, *held, denoise=False))
    case.check("x", operator.impose(x))


def task(case: Case, prior: Tensor) -> tuple[Operator, Tensor]:
    """The operator and the start: the reference where it is known, the prior elsewhere."""
    data = case.inputs["data"]
    if case.spec["task"] == "inpaint":
        operator = inpaint(data, mask=1 - case.inputs["mask"][:, :1])
        return operator, operator.impose(prior)
    unknown = torch.tensor([False, True, True]).view(1, 3, 1, 1)
    operator = Operator(data, grey, lambda y: torch.einsum("bchw,cd->bdhw", y, GREY.inverse()), unknown, start=data)
    # a defect: the prior loses its red, where it should lose its grey
    return operator, operator.known_part(data) + prior * unknown


GREY = torch.tensor(
    [
        [5.7735014e-01, -8.1649649e-01, 4.7008697e-08],
        [5.7735026e-01, 4.0824834e-01, 7.0710671e-01],
        [5.7735026e-01, 4.0824822e-01, -7.0710683e-01],
    ]
)


def grey(x: Tensor) -> Tensor:
    return torch.einsum("bchw,cd->bdhw", x, GREY)


@claim("ssde_ode_likelihood")
def likelihood(case: Case) -> None:
    """Theirs integrates native time in float32 with scipy; the exact values are theirs as well."""
    process, eps, data = PROCESSES[case.spec["sde"]["name"]], case.spec["eps"], Gaussian(0.2, 0.4)
    field, prior = native_flow(data, process), process.prior(torch.tensor(1.0).double())
    probes = case.tape.next()[None]
    probes = probes if case.spec.get("hutch") == "Gaussian" else 2 * probes - 1
    case.check("z_exact", bits(case, "bpd", field, prior, probes))
    case.check("z", bits(case, "bpd_exact", field, prior, every_axis(3, (3, 4, 4))))
    z = case.inputs["z"]
    x = adaptive(1.0, eps)(lambda y, t: field(y.view_as(z), t).flatten(1), z.flatten(1)).view_as(z)
    case.check("x", x)
    case.check("x_exact", x)


def bits(case: Case, name: str, field: Field, prior: Tensor, probes: Tensor) -> Tensor:
    """Check the bits per dimension that the probes find, and return the noise of the images."""
    walk = adaptive(case.spec["eps"], 1.0)
    log_density, z = log_likelihood(field, case.inputs["data"], walk, probes, prior)
    width = 1 / 128 if case.spec.get("centered", True) else 1 / 256
    case.check(name, bits_per_dim(log_density, z[0].numel(), width))
    return z
