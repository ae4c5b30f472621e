"""FastGen's sCM: velocity, tangent, loss and gradients of continuous-time consistency in TrigFlow's coordinates."""

from typing import Any

import torch
from harness import Case, claim
from torch import Tensor, nn

from cmtool.core.denoiser import Denoiser, Preconditioning, broadcast_like
from cmtool.objectives.continuous import Continuous, velocity_of_noise
from cmtool.objectives.objective import Batch
from cmtool.objectives.scm import scd, sct, trig_of_sigma


class Head(nn.Module):
    """The recorded log-variance, linear in three functions of ``ln(sigma) / 4``."""

    def __init__(self, weights: dict[str, Tensor]):
        super().__init__()
        self.lv = nn.Linear(3, 1)
        self.lv.load_state_dict({name: weights[f"lv.{name}"] for name in ("weight", "bias")})

    def forward(self, c: Tensor) -> Tensor:
        return self.lv(torch.stack([c.sin(), c.cos(), 0.1 * c], 1).float()).squeeze(1)


# What FastGen's configuration has by default: the method, its loss, and the warm-up of the tangent in iterations.
DEFAULTS = {"sigma_data": 0.5, "tangent_warmup_steps": 10_000, "tangent_warmup_const": 0.1, "tscale": 1.0}
DEFAULTS |= {"prior_weighting_enabled": True, "g_norm_spatial_invariance": True, "divide_x_0_spatial_dim": True}
RUN = 100_000  # iterations, as long as the warm-up fits in


def of(case: Case, key: str) -> float:
    return float(case.spec.get(key, DEFAULTS[key]))


def network(case: Case, name: str) -> Denoiser:
    net = case.golden.TinyNet(tscale=of(case, "tscale"))
    weights = case.weights[name].items()
    net.load_state_dict({key.removeprefix("tiny."): v for key, v in weights if key.startswith("tiny.")})
    return Denoiser(net, Preconditioning(of(case, "sigma_data")))


def objective_of(case: Case) -> Continuous:
    """The recipe with FastGen's choices: the rms norm, and the weight 1/sigma, which the paper does not have."""
    given: dict[str, Any] = {"c": of(case, "tangent_warmup_const"), "adaptive": True}
    given |= {"norm": "rms" if of(case, "g_norm_spatial_invariance") else "l2"}
    given |= {"prior": of(case, "prior_weighting_enabled")}
    given |= {"warmup": of(case, "tangent_warmup_steps") / RUN, "sigma_data": of(case, "sigma_data")}
    objective = scd(network(case, "teacher"), **given) if case.spec["cd"] else sct(**given)
    objective.noise_levels = lambda u: case.inputs["t"]
    objective.head = Head(case.weights["net"])
    return objective


@claim("fastgen_scm")
def simplified(case: Case) -> None:
    """The mean over pixels is divided by their number once more, which no option of ours does: done here."""
    objective, model, progress = objective_of(case), network(case, "net"), case.spec["iteration"] / RUN
    x, sigma = case.inputs["real"], case.inputs["t"]
    batch = Batch(x, case.draws[0], torch.zeros_like(sigma))
    coordinates(case, objective_of(case), model, batch)

    unweighted = objective.error
    weight = sigma ** -of(case, "prior_weighting_enabled")
    case.check("loss_unweighted", unweighted(objective.tangent(model, batch), progress) / weight)
    size = x[0].numel() if of(case, "divide_x_0_spatial_dim") else 1
    objective.error = lambda tangent, progress: unweighted(tangent, progress) / size
    loss = objective.loss(model, batch, progress)
    case.check("loss", loss)
    loss.mean().backward()
    for key, p in model.net.named_parameters():
        case.check(f"grad.tiny.{key}", p.grad)
    for key, p in objective.head.named_parameters():
        case.check(f"grad.{key}", p.grad)


def coordinates(case: Case, objective: Continuous, model: Denoiser, batch: Batch) -> None:
    """What is recorded on the way; ``F_jvp`` is dF/d ln sigma, for ``cos t sin t d/dt`` is ``d/d ln sigma``."""
    tangent, sigma = objective.tangent(model, batch), case.inputs["t"]
    data = of(case, "sigma_data")
    cos, sin = (broadcast_like(v, tangent.x) for v in trig_of_sigma(sigma, data))
    case.check("t_hat", torch.atan2(sigma, torch.full_like(sigma, data)))
    case.check("x_t_hat", cos * tangent.x)
    case.check("net_x_t", tangent.x)
    case.check("net_t", sigma)
    case.check("dxt_dt", data / cos * tangent.dx - sin * tangent.x)
    case.check("F_theta", tangent.online)
    case.check("F_jvp", tangent.dy)
    case.check("x0_pred", model(tangent.x, sigma))
    objective.velocity = velocity_of_noise  # along which the reference checks itself, with a teacher too
    secant = case.outputs["F_jvp_finite_diff"]
    apart = (objective.tangent(model, batch).dy.double() - secant).abs().flatten(1).amax(1)
    assert (apart <= 2e-3 + 2.0**-20 / (1e-3 * (sigma / data).atan())).all()  # what rounding does to steps of t/1000
    case.leave("F_jvp_finite_diff", "a difference of float32 values, which is no closer; compared above")
    case.check("logvar", objective.head(sigma.log() / 4)[:, None])
