"""Losses of score models with their gradients, augmentation, seeds."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from augmentation import augmented
from claims_edm_files import arguments, scaled
from claims_training import edm_gradients
from harness import SDE, Case, claim, classes_of, edm_model, gradients, tiny_net
from torch import Tensor, nn

from cmtool.core.denoiser import Denoiser, Preconditioning
from cmtool.core.noise import STEP, Noise
from cmtool.core.process import VE
from cmtool.core.published_noise import PerSampleNoise, SharedNoise, ode_draw, step_draw
from cmtool.objectives.denoising import Denoising
from cmtool.objectives.edm import edm
from cmtool.objectives.objective import Batch
from cmtool.objectives.score_matching import ddpm, dsm, ncsn
from cmtool.options.types import Seeds
from cmtool.pipelines.noise_setup import OpenAIRun, edm_noise
from cmtool.training.ema import EMA
from cmtool.training.loop import LoopConfig, train
from cmtool.training.state import State


@claim("edm_loss")
def denoising(case: Case) -> None:
    """Theirs is a sum over pixels, ours a mean; the loss of single pixels is compared through its mean."""
    first, images, augment_labels = case.tape.next().double().flatten(), case.inputs["images"], None
    if "augment" in case.spec:
        images, augment_labels = augmented(case, images, case.settings["noise_calls"][1:-1])
    objective, u = EDM_LOSSES[case.spec["loss"]](case, first)
    model = edm_model(case)
    model.preconditioning = scaled(case, case.spec["precond"], arguments(case))
    batch = Batch(images, case.tape.next(), u, classes_of(case.inputs.get("labels")), augment_labels)
    loss = objective.loss(model, batch, 0.0)
    case.near("loss", loss, case.outputs["loss"].flatten(1).mean(1))
    case.leave("loss", "compared through its mean over pixels")
    (loss.mean() * batch.x[0].numel()).backward()
    edm_gradients(case, model)


def given(case: Case, **defaults: float) -> dict[str, float]:
    """The arguments of the loss."""
    options = case.spec["loss_kwargs"].options(defaults) if "loss_kwargs" in case.spec else defaults
    return {key: float(value) for key, value in options.items()}


def edm_loss(case: Case, first: Tensor) -> tuple[Denoising, Tensor]:
    of = given(case, P_mean=-1.2, P_std=1.2, sigma_data=0.5)
    return edm(P_mean=of["P_mean"], P_std=of["P_std"], sigma_data=of["sigma_data"]), torch.special.ndtr(first)


def vp_loss(case: Case, first: Tensor) -> tuple[Denoising, Tensor]:
    """Their uniform number runs from time 1 down."""
    of = given(case, beta_d=19.9, beta_min=0.1, epsilon_t=1e-5)
    ends = {"beta_min": of["beta_min"], "beta_max": of["beta_min"] + of["beta_d"]}
    return dsm(process="vp", start=of["epsilon_t"], **ends), 1 - first


def ve_loss(case: Case, first: Tensor) -> tuple[Denoising, Tensor]:
    """Levels uniform in ln sigma: the VE process over all of its time."""
    of = given(case, sigma_min=0.02, sigma_max=100.0)
    return dsm(process="ve", start=0.0, **of), first


EDM_LOSSES = {"EDMLoss": edm_loss, "VPLoss": vp_loss, "VELoss": ve_loss}


@claim("edm_augment")
def augmentation(case: Case) -> None:
    images, augment_labels = augmented(case, case.inputs["images"], case.settings["noise_calls"])
    case.check("images", images)
    case.check("labels", augment_labels)


@claim("edm_seeds")
def seeds(case: Case) -> None:
    """Ours come from Philox with a key of 128 bits, theirs from torch's generators; lists of seeds read alike."""
    assert list(case.spec["lists"]) == list(case.expected["parse"])
    for text, want in case.expected["parse"].items():
        assert list(Seeds.parse(text)) == want
    classes, shape = case.spec.get("label_dim", 1000), case.outputs["latents"].shape[1:]
    theirs = PerSampleNoise(case.spec["seeds"], torch.float64)
    theirs.normal(shape)
    case.check("classes", theirs.integers(classes))
    asked = edm_noise(case.spec["seeds"], ode_draw, classes)  # as ``sample --noise edm`` asks
    case.check("latents", asked.normal(shape).float())
    case.check("randn_like64", asked.normal(shape, STEP))
    together, alone = (Noise(list_of).normal(shape) for list_of in (case.spec["seeds"], case.spec["seeds"][-1:]))
    assert torch.equal(together[-1:], alone)


@claim("cm_generators")
def generators(case: Case) -> None:
    """They deal samples to processes like cards; a batch that goes past the last sample repeats it, as theirs does."""
    total, seed, batch = case.spec["num_samples"], case.spec["seed"], case.spec["batch"]
    for rank, ranks in case.spec["ranks"]:

        def mine(done: int, rank: int = rank, ranks: int = ranks) -> list[int]:
            return [min(done + rank + ranks * i, total - 1) for i in range(batch)]

        for name, make in {"determ": SharedNoise, "determ-indiv": PerSampleNoise.openai}.items():
            place = f"{name}.r{rank}w{ranks}"
            noise, later = make(mine(0), total, seed), make(mine(case.spec["done"]), total, seed)
            for draw in ("randn0", "randn1"):
                case.check(f"{place}.{draw}", noise.normal(case.outputs[f"{place}.{draw}"].shape[1:], STEP))
            if ranks == 1:  # as ``sample --noise openai`` asks
                asked = OpenAIRun(total, batch, seed, 2, step_draw, name == "determ-indiv").noise()
                for k, draw in enumerate(("randn0", "randn1")):
                    recorded = case.outputs[f"{place}.{draw}"]
                    assert torch.equal(asked.normal(recorded.shape[1:], STEP + k), recorded)
            case.check(f"{place}.randint", noise.integers(1000))
            case.check(f"{place}.after_done", later.normal(case.outputs[f"{place}.after_done"].shape[1:]))


class Native(nn.Module):
    """A network of score_sde that is told the number of a rung of VE, counted from the highest."""

    def __init__(self, net: nn.Module, process: VE, rungs: int):
        super().__init__()
        self.net, self.process, self.rungs = net, process, rungs

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.net(x, (self.rungs - 1) * (1 - self.process.time(sigma)))


def score_model(case: Case) -> Denoiser:
    """Their network behind the preconditioning that makes a denoiser of it."""
    net, of = tiny_net(case, "net", 0, case.spec["tscale"]), sde_of(case)
    betas = {"beta_min": of["beta_min"], "beta_max": of["beta_max"]}
    match case.spec["loss"], of["name"]:
        case "sde", "VESDE":
            return Denoiser(net, Preconditioning(form="score-1", time="level"))
        case "sde", name:
            return Denoiser(net, replace(Preconditioning.named(f"{PROCESSES[name]}-999"), **betas))
        case "ddpm", "VPSDE":
            return Denoiser(net, replace(Preconditioning.named("ddpm-1000"), steps=of["N"], **betas))
        case "smld", "VESDE":
            net = Native(net, VE(of["sigma_min"], of["sigma_max"]), of["N"])
            return Denoiser(net, Preconditioning(form="score-1", time="level"))
        case loss:
            raise AssertionError(f"no loss of theirs: {loss}")


PROCESSES = {"VPSDE": "vp", "subVPSDE": "subvp", "VESDE": "ve"}


def sde_of(case: Case) -> dict[str, Any]:
    """The arguments of their equation."""
    of = case.spec["sde"].options(SDE)
    return {key: value if key in ("name", "N") else float(value) for key, value in of.items()}


def score_loss(case: Case) -> Denoising:
    of = sde_of(case)
    ends, betas = ({key: of[key] for key in of if key.startswith(kind)} for kind in ("sigma", "beta"))
    if case.spec["loss"] == "smld":
        return ncsn(steps=of["N"], **ends)
    if case.spec["loss"] == "ddpm":
        return ddpm(steps=of["N"], **betas)
    assert case.spec.get("continuous", True)
    weight = "likelihood" if case.spec.get("lw", case.spec.get("likelihood_weighting", False)) else "noise"
    return dsm(process=PROCESSES[of["name"]], weight=weight, start=case.spec.get("eps", 1e-5), **ends, **betas)


def next_batch(case: Case) -> Batch:
    """The recorded numbers choose a time, or are rungs, which VE counts from the highest."""
    first, z, n = case.tape.next().double(), case.tape.next(), sde_of(case)["N"]
    if case.spec["loss"] == "smld":
        first = n - 1 - first
    u = first if case.spec["loss"] == "sde" else (first + 0.5) / n
    return Batch(case.inputs["batch"], z, u)


@claim("ssde_loss")
def score_matching(case: Case) -> None:
    """Without their ``reduce_mean`` the loss of an image is half the sum over its pixels, where ours is the mean."""
    model, objective, batch = score_model(case), score_loss(case), next_batch(case)
    if not case.spec["reduce_mean"]:
        half, weight = batch.x[0].numel() / 2, objective.weight
        objective.weight = lambda t: half * weight(t)
    loss = objective.loss(model, batch, 0.0).mean()
    case.check("loss", loss)
    loss.backward()
    for name, gradient in gradients(model).items():
        case.check(f"grad.{name.removeprefix('net.')}", gradient)
    if case.spec.get("steps"):
        training(case, objective)


# Of a training whose optimiser no case records, as the weights show it.
OPTIMISER = {"lr": 2e-3, "warmup": 3, "grad_clip": 1.0, "beta1": 0.9, "eps": 1e-8, "weight_decay": 0.0}
OPTIMISER |= {"ema_rate": 0.9999}


class Counted(EMA):
    """Their average: the decay grows with the number n of the update, min(rate, (1 + n) / (10 + n))."""

    n = 0
    rate = 0.9999

    def update(self, model: nn.Module, batch: int, images: int) -> None:
        self.n += 1
        share = 1 - min(self.rate, (1 + self.n) / (10 + self.n))
        ours, theirs = list(self.model.parameters()), list(model.parameters())
        torch._foreach_lerp_(ours, theirs, share)  # pyright: ignore[reportPrivateImportUsage]


def training(case: Case, objective: Denoising) -> None:
    """Adam, gradients of bounded norm, a rate that grows from 0."""
    of = {key: case.spec.get("optim", {}).get(key, value) for key, value in OPTIMISER.items()}

    def batches() -> Iterator[Batch]:
        for _ in range(case.spec["steps"]):
            yield next_batch(case)

    model, size = score_model(case), len(case.inputs["batch"])
    options = {"eps": of["eps"], "weight_decay": of["weight_decay"], "betas": (of["beta1"], 0.999)}
    state = State(model, objective, torch.optim.Adam(model.parameters(), of["lr"], **options), Counted(model, 0))
    state.average.rate = of["ema_rate"]

    def rate(n: int) -> float:
        return of["lr"] * (min(n / size / of["warmup"], 1) if of["warmup"] > 0 else 1)

    clip = max(of["grad_clip"], 0)  # theirs is switched off by a negative number, ours by 0
    reports = list(train(state, batches(), case.spec["steps"] * size, rate, LoopConfig(clip=clip)))
    case.check("train_losses", torch.stack([report.loss for report in reports]))
    for name, averaged in state.average.model.net.state_dict().items():
        theirs = name.removeprefix("net.")
        case.check(f"train_param.{theirs}", model.net.state_dict()[name])
        case.check(f"train_ema.{theirs}", averaged)
