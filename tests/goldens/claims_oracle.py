"""Group closed: Gaussian mixtures in the plane, exact to 1e-9."""

import torch
from harness import Case, claim
from oracles import AnisotropicGaussian, Mixture, Oracle
from torch import Tensor

from cmtool.core.denoiser import broadcast_like, ode_field
from cmtool.core.process import VP

# Where the two walks end, and the betas, where a case does not say.
DEFAULTS = {"eps": 0.002, "eps_vp": 1e-3, "b0": 0.1, "b1": 20.0}


def of(case: Case, key: str) -> float:
    return case.spec.get(key, DEFAULTS[key])


@claim("closed_gmm")
def mixture(case: Case) -> None:
    data = Mixture(case.spec["weights"], case.spec["means"], case.spec["covs"])
    variance_exploding(case, data)
    process = VP(of(case, "b0"), of(case, "b1"))
    for name in ("sigmas", "t_vp", "ode_t", "ode_t_vp"):
        case.near(name, case.inputs[name], torch.tensor(case.spec[name], dtype=torch.float64))
    variance_preserving(case, data, process)
    if len(case.spec["weights"]) == 1:
        analytic(case, AnisotropicGaussian(case.spec["means"][0], case.spec["covs"][0]), process)


def variance_exploding(case: Case, data: Mixture) -> None:
    n = case.spec["n"]
    x, sigma = case.inputs["x_ve"].flatten(0, 1), case.inputs["sigmas"].repeat_interleave(n)
    case.check("denoiser_ve", data.denoiser(x, sigma).unflatten(0, (-1, n)))
    case.check("score_ve", data.score(x, sigma).unflatten(0, (-1, n)))
    case.check("logp_ve", data.log_density(x, sigma).unflatten(0, (-1, n)))
    slope = ode_field(data)(x, sigma)
    case.near("the flow is -sigma score", slope / broadcast_like(sigma, x), -case.outputs["score_ve"].flatten(0, 1))
    x, t = case.inputs["ode_x"].flatten(0, 1), case.inputs["ode_t"].repeat_interleave(n)
    case.check("f_ve_eps", data.flow(x, t, of(case, "eps")).unflatten(0, (-1, n)))
    case.check("f_ve_0", data.flow(x, t, 0.0).unflatten(0, (-1, n)))


def variance_preserving(case: Case, data: Mixture, process: VP) -> None:
    """The same oracle seen through the process: ``x = x_t / s``, densities change by ``s^-D``, scores by ``1 / s``."""
    n = case.spec["n"]
    x_t, t = case.inputs["x_vp"].flatten(0, 1), case.inputs["t_vp"].repeat_interleave(n)
    s, sigma = process.scale(t), process.sigma(t)
    x = x_t / broadcast_like(s, x_t)
    case.check("denoiser_vp", data.denoiser(x, sigma).unflatten(0, (-1, n)))
    case.check("score_vp", (data.score(x, sigma) / broadcast_like(s, x)).unflatten(0, (-1, n)))
    case.check("logp_vp", (data.log_density(x, sigma) - x.shape[1] * s.log()).unflatten(0, (-1, n)))
    case.check("f_vp", native_end(case, data, process))


def native_end(case: Case, data: Oracle, process: VP) -> Tensor:
    n, end = case.spec["n"], torch.tensor(of(case, "eps_vp"), dtype=torch.float64)
    x_t, t = case.inputs["ode_x_vp"].flatten(0, 1), case.inputs["ode_t_vp"].repeat_interleave(n)
    reached = data.flow(x_t / broadcast_like(process.scale(t), x_t), process.sigma(t), process.sigma(end))
    return (process.scale(end) * reached).unflatten(0, (-1, n))


def analytic(case: Case, data: AnisotropicGaussian, process: VP) -> None:
    n = case.spec["n"]
    x, t = case.inputs["ode_x"].flatten(0, 1), case.inputs["ode_t"].repeat_interleave(n)
    case.check("f_ve_eps_analytic", data.flow(x, t, of(case, "eps")).unflatten(0, (-1, n)))
    case.check("f_ve_0_analytic", data.flow(x, t, 0.0).unflatten(0, (-1, n)))
    case.check("f_vp_analytic", native_end(case, data, process))
