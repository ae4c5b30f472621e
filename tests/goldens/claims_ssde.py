"""Score-SDE: its three equations, predictor-corrector walks, and likelihoods of a Gaussian.

Its conventions that are not ours, reproduced here alone: scores at times linspace(1, eps, N) while the discrete
coefficients come from a table of N rungs; Euler-Maruyama steps of -1/N on that grid; editing that holds what is known
at the time before a prediction, and ends on a noisy image with a clean known part. Norms pooled over the batch are an
option of the corrector.
"""

from dataclasses import dataclass, replace

import torch
from harness import SDE, Case, Tape, claim
from oracles import Gaussian
from torch import Tensor

from cmtool.core.denoiser import Denoise, broadcast_like
from cmtool.core.discrete_processes import DDPM, NCSN
from cmtool.core.editing.constrained import ConstrainedUpdate
from cmtool.core.editing.operators import Operator, inpaint
from cmtool.core.likelihood import Integrator, adaptive, axis_probes, bits_per_dim, log_likelihood, log_normal
from cmtool.core.named_processes import build_process
from cmtool.core.process import Process
from cmtool.core.sampling.loops import last
from cmtool.core.sampling.predictor_corrector import ALD, Langevin, solve_reverse_sde
from cmtool.core.sampling.sde import (
    Ancestral,
    EulerMaruyama,
    NoPrediction,
    ReverseDiffusion,
    ReverseSDE,
    Update,
    denoiser_function,
    native_initial_noise,
    native_ode_field,
    reverse_drift,
)
from cmtool.core.solvers import Field

PROCESSES = {"VPSDE": "vp", "subVPSDE": "subvp", "VESDE": "ve"}
LADDERS = {"VPSDE": "ddpm", "VESDE": "ncsn"}


def sde_of(case: Case) -> dict:
    """The arguments of their equation."""
    of = case.spec["sde"].options(SDE)
    return {key: value if key in ("name", "N") else float(value) for key, value in of.items()}


def named(case: Case, name: str, keys: str, **more: int) -> Process:
    """One of our processes with their arguments that begin with ``keys``."""
    of = sde_of(case)
    options = {key: of[key] for key in of if key.startswith(keys)}
    return build_process({"name": name, **options, **more}, of["sigma_min"], of["sigma_max"])


def process_of(case: Case) -> Process:
    name = PROCESSES[sde_of(case)["name"]]
    return named(case, name, "sigma" if name == "ve" else "beta")


def ladder_of(case: Case) -> DDPM | NCSN | None:
    """The chain of N rungs behind the equation; sub-VP has none."""
    of = sde_of(case)
    if of["name"] not in LADDERS:
        return None
    name = LADDERS[of["name"]]
    found = named(case, name, "sigma" if name == "ncsn" else "beta", steps=of["N"])
    assert isinstance(found, DDPM | NCSN)
    return found


def rung(t: Tensor, n: int) -> Tensor:
    """Which rung of 1 .. N the reference takes for a time in its own precision."""
    return ((t.float() * (n - 1)).long() + 1).double()


@claim("ssde_sde")
def equation(case: Case) -> None:
    process, t, x, score = process_of(case), case.inputs["t"], case.inputs["x"], case.inputs["score"]
    case.near("t", t, torch.tensor(case.spec["t"]))
    case.check("mean", broadcast_like(process.scale(t), x) * x)
    case.check("std", process.deviation(t))
    case.check("drift", broadcast_like(process.drift(t), x) * x)
    case.check("diffusion", process.diffusion(t))
    case.check("rev_drift", reverse_drift(process, score, x, t))
    case.check("rev_diffusion", process.diffusion(t))
    case.check("pf_drift", reverse_drift(process, score, x, t, noise=0.0))
    case.check("pf_diffusion", torch.tensor(0.0))
    one = torch.tensor(1.0)
    case.check("prior_logp", log_normal(x, process.prior(one)))
    case.check("prior_sample", native_initial_noise(case.tape, tuple(x.shape[1:]), process, one))
    tables(case)
    discrete(case, process, t, x, score)


def tables(case: Case) -> None:
    ladder, rungs = ladder_of(case), torch.arange(1, sde_of(case)["N"] + 1, dtype=torch.float64)
    if isinstance(ladder, NCSN):
        case.check("table_discrete_sigmas", ladder.sigma(rungs))
    elif ladder:
        case.check("table_discrete_betas", ladder.transition(rungs, rungs - 1)[1] ** 2)
        case.check("table_alphas", ladder.transition(rungs, rungs - 1)[0] ** 2)
        case.check("table_alphas_cumprod", ladder.scale(rungs) ** 2)
        case.check("table_sqrt_alphas_cumprod", ladder.scale(rungs))
        case.check("table_sqrt_1m_alphas_cumprod", ladder.deviation(rungs))


def discrete(case: Case, process: Process, t: Tensor, x: Tensor, score: Tensor) -> None:
    """One discrete step: on the ladder, or for sub-VP, which has none, one of Euler of length 1/N."""
    ladder, n = ladder_of(case), sde_of(case)["N"]
    at = rung(t, n)
    a, b = ladder.transition(at, at - 1) if ladder else (1 + process.drift(t) / n, process.diffusion(t) / n**0.5)
    case.check("disc_f", broadcast_like(a - 1, x) * x)
    case.check("disc_G", b)
    case.check("rev_G", b)
    case.check("pf_G", torch.zeros(len(t)))
    for name, noise in (("rev_f", 1.0), ("pf_f", 0.0)):
        if ladder:
            sde = ReverseSDE(ladder, lambda x, t: score, Zeros())
            _, mean = ReverseDiffusion(noise)(sde, x, at, at - 1)
        else:
            mean = x - reverse_drift(process, score, x, t, noise) / n
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

    @property
    def nfe(self) -> int:
        return self.update.nfe

    def __call__(self, sde: ReverseSDE, x: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        at = rung(t, len(self.ladder))
        return self.update(replace(sde, process=self.ladder, score=lambda x, _: sde.score(x, t)), x, at, at - 1)


@dataclass(frozen=True)
class OnScale:
    """Everything at t, but the alpha of a Langevin step of the rung that belongs to t."""

    update: Update
    ladder: DDPM

    @property
    def nfe(self) -> int:
        return self.update.nfe

    def __call__(self, sde: ReverseSDE, x: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        at = rung(t, len(self.ladder))
        return self.update(replace(sde, process=Borrowed(sde.process, self.ladder, at)), x, t, s)


@dataclass(frozen=True)
class Borrowed(Process):
    """A process with the transition of a rung."""

    process: Process
    ladder: DDPM
    at: Tensor

    def scale(self, t: Tensor) -> Tensor:
        return self.process.scale(t)

    def sigma(self, t: Tensor) -> Tensor:
        return self.process.sigma(t)

    def time(self, sigma: Tensor) -> Tensor:
        return self.process.time(sigma)

    def drift(self, t: Tensor) -> Tensor:
        return self.process.drift(t)

    def diffusion(self, t: Tensor) -> Tensor:
        return self.process.diffusion(t)

    def transition(self, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        return self.ladder.transition(self.at, self.at - 1)


@dataclass(frozen=True)
class Short:
    """A step of 1/N, whatever the grid."""

    update: Update
    n: int

    @property
    def nfe(self) -> int:
        return self.update.nfe

    def __call__(self, sde: ReverseSDE, x: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        return self.update(sde, x, t, t - 1 / self.n)


def predictor_of(case: Case) -> Update:
    """Reverse diffusion on no ladder is a step of Euler's, as their equation's own discretisation is."""
    of, name = sde_of(case), case.spec["predictor"]
    noise = 0.0 if case.spec.get("pf", case.spec.get("probability_flow", False)) else 1.0
    if name == "none":
        return NoPrediction()
    if name == "euler_maruyama":
        return Short(EulerMaruyama(noise), of["N"])
    ladder = ladder_of(case)
    match name:
        case "reverse_diffusion":
            return OnRungs(ReverseDiffusion(noise), ladder) if ladder else Short(EulerMaruyama(noise), of["N"])
        case "ancestral_sampling":
            assert ladder and noise
            return OnRungs(Ancestral(isinstance(ladder, DDPM)), ladder)
        case _:
            raise AssertionError(f"no predictor of theirs: {name}")


def corrector_of(case: Case) -> Update | None:
    """The scale of a step comes from the ladder, and is 1 on the one without a scale."""
    snr, steps, name = case.spec["snr"], case.spec["n_steps"], case.spec["corrector"]
    if name == "none":
        return None
    ladder = ladder_of(case)
    match name:
        case "ald":
            update: Update = ALD(snr, steps)
        case "langevin":
            update = Langevin(snr, steps, pooled=True)
        case _:
            raise AssertionError(f"no corrector of theirs: {name}")
    assert ladder, "a corrector of theirs needs the alphas of a ladder"
    return OnScale(update, ladder) if isinstance(ladder, DDPM) else update


def network(case: Case, process: Process) -> Denoise:
    """Theirs predicts a score from sigma (VE), or noise from 999 t, or from the number of the rung that t is on."""
    golden, kind, n = case.golden, case.spec["model"], sde_of(case)["N"]
    ladder = None if case.spec.get("continuous", True) or kind == "subvp" else ladder_of(case)
    net = golden.GaussTinyVE() if kind == "ve" else golden.GaussTinyVP(sub=kind == "subvp")
    net.load_state_dict(case.weights["net"])

    def score(x: Tensor, t: Tensor) -> Tensor:
        if kind == "ve":
            return net(x, process.sigma(t) if ladder is None else ((n - 1) * (1 - t)).round())
        if ladder:
            return -net(x, (n - 1) * t) / broadcast_like(ladder.deviation(rung(t, n)), x)
        return -net(x, 999 * t) / broadcast_like(process.deviation(t), x)

    return denoiser_function(score, process)


@claim("ssde_pc")
@torch.no_grad()
def walk(case: Case) -> None:
    spec, process, n = case.spec, process_of(case), sde_of(case)["N"]
    assert PROCESSES[spec["sde"]["name"]] == spec["model"]
    model, shape = network(case, process), tuple(spec["shape"][1:])
    times = torch.linspace(1.0, spec["eps"], n).double()
    x = native_initial_noise(case.tape, shape, process, times[0])
    below = torch.cat([times, torch.zeros(1)])  # a prediction from every time; where the last one leads is the rung's
    predictor, corrector, denoise = predictor_of(case), corrector_of(case), spec.get("denoise", True)
    if "task" not in spec:
        case.check(
            "x",
            last(
                solve_reverse_sde(
                    ReverseSDE.of(model, process, case.tape), x, below, predictor, corrector, denoise=denoise
                )
            ),
        )
        return
    operator, x = task(case, x)
    held = ConstrainedUpdate(predictor, operator, stays=True)
    # theirs holds what is known after a corrector that does nothing, too, and draws for it
    mended = ConstrainedUpdate(corrector or NoPrediction(), operator, stays=True)
    tape = Tape(in_task(case, operator, spec["n_steps"] if corrector else 0))
    walked = solve_reverse_sde(ReverseSDE.of(model, process, tape), x, below, held, mended, denoise=False)
    x = last(walked)
    if denoise:  # theirs is the known part of this time without its noise, beside an unknown part with all of its own
        known = broadcast_like(process.scale(times[-1]), x) * operator.reference
        x = replace(operator, reference=known).impose(x)
    case.check("x", x)


def in_task(case: Case, operator: Operator, corrections: int) -> list[Tensor]:
    """The draws after the first; theirs for what is known are in the coordinates of the task.

    In law they are the same, as those coordinates are orthogonal. The draws of an update come before that of its known
    part; a predictor makes one.
    """
    known = [False] * corrections + [True] + [False] * (case.spec["predictor"] != "none") + [True]
    draws = case.draws[1:]
    return [operator.inverse(z) if known[k % len(known)] else z for k, z in enumerate(draws)]


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
    process, eps = process_of(case), case.spec["eps"]
    data = Gaussian(*case.spec.get("gauss", (0.2, 0.4)))  # of the closed form, where a case does not say
    data_of = case.inputs["data"]
    field, prior = native_ode_field(data, process), process.prior(torch.tensor(1.0).double())
    probes = case.tape.next()[None]
    hutch = case.spec.get("hutch", "Rademacher")
    probes = {"Gaussian": probes, "Rademacher": 2 * probes - 1}[hutch]
    case.check("z_exact", bits(case, "bpd", field, prior, probes))
    case.check("z", bits(case, "bpd_exact", field, prior, axis_probes(len(data_of), tuple(data_of.shape[1:]))))
    z = case.inputs["z"]
    x = solver(case, 1.0, eps)(lambda y, t: field(y.view_as(z), t).flatten(1), z.flatten(1)).view_as(z)
    case.check("x", x)
    case.check("x_exact", x)


def solver(case: Case, begin: float, end: float) -> Integrator:
    """Theirs has two tolerances, ours one."""
    tolerance = min(float(case.spec.get(key, 1e-5)) for key in ("rtol", "atol"))
    return adaptive(begin, end, tolerance, case.spec.get("method", "RK45"))


def bits(case: Case, name: str, field: Field, prior: Tensor, probes: Tensor) -> Tensor:
    """Check the bits per dimension that the probes find, and return the noise of the images."""
    walk = solver(case, case.spec["eps"], 1.0)
    log_density, z = log_likelihood(field, case.inputs["data"], walk, probes, prior)
    width = 1 / 128 if case.spec.get("centered", True) else 1 / 256
    case.check(name, bits_per_dim(log_density, z[0].numel(), width))
    return z
