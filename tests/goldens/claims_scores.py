"""Losses of score models with their gradients, augmentation, seeds."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from claims_training import edm_gradients, renamed
from harness import Case, claim, classes_of, edm_model, gradients
from torch import Tensor, nn

from cmtool.core.denoiser import Denoiser, Preconditioning
from cmtool.core.noise import STEP, Noise
from cmtool.core.process import VE
from cmtool.core.published import Individual, Shared
from cmtool.objectives.ddpm import ddpm
from cmtool.objectives.denoising import Denoising
from cmtool.objectives.dsm import dsm
from cmtool.objectives.edm import edm
from cmtool.objectives.ncsn import ncsn
from cmtool.objectives.objective import Batch
from cmtool.training.augment import Augment
from cmtool.training.ema import Average
from cmtool.training.loop import State, train
from cmtool.values import Seeds


@claim("edm_loss")
def denoising(case: Case) -> None:
    """Theirs is a sum over pixels, ours a mean; the loss of single pixels is compared through its mean."""
    first, images, hints = case.tape.next().double().flatten(), case.inputs["images"], None
    if "augment" in case.spec:
        images, hints = augmented(case, images, case.settings["noise_calls"][1:-1])
    objective, u, preconditioning = EDM_LOSSES[case.spec["loss"]](case, first)
    model = edm_model(case)
    model.preconditioning = preconditioning
    batch = Batch(images, case.tape.next(), u, classes_of(case.inputs.get("labels")), hints)
    loss = objective.loss(model, batch, 0.0)
    case.near("loss", loss, case.outputs["loss"].flatten(1).mean(1))
    case.leave("loss", "compared through its mean over pixels")
    (loss.mean() * batch.x[0].numel()).backward()
    edm_gradients(case, model)


def edm_loss(case: Case, first: Tensor):
    given = renamed(case, {"P_mean": "mean", "P_std": "std", "sigma_data": "sigma_data"})
    return edm(**given), torch.special.ndtr(first), Preconditioning()


def vp_loss(case: Case, first: Tensor):
    """Their uniform number runs from time 1 down; the tiny network sees 0.01 of 999 t."""
    return dsm(process="vp"), 1 - first, replace(Preconditioning.named("vp"), time_scale=9.99)


def ve_loss(case: Case, first: Tensor):
    """Levels uniform in ln sigma from 0.02 to 100: the VE process over all of its time."""
    objective = dsm(process="ve", start=0.0, sigma_min=0.02, sigma_max=100.0)
    return objective, first, replace(Preconditioning.named("ve"), time_scale=1.0)


EDM_LOSSES = {"EDMLoss": edm_loss, "VPLoss": vp_loss, "VELoss": ve_loss}


def augmented(case: Case, images: Tensor, calls: list[dict]) -> tuple[Tensor, Tensor]:
    """The recorded draws as the uniform numbers that ours are made from."""
    strengths = dict(case.spec["augment"])
    augment = Augment(strengths.pop("p"), strengths)
    return augment(images, torch.cat([uniforms(case.tape.next().double(), call) for call in calls], 1))


def uniforms(draw: Tensor, call: dict) -> Tensor:
    """[B, 1], or [B, 2] where two numbers an image were drawn at once."""
    if call["call"] == "randint":
        draw = (draw + 0.5) / call["high"]
    elif call["call"] == "randn":
        draw = torch.special.ndtr(draw)
    return draw.reshape(draw.shape[0], -1).T if draw.shape[0] <= 2 else draw.reshape(-1, 1)


@claim("edm_augment")
def augmentation(case: Case) -> None:
    images, hints = augmented(case, case.inputs["images"], case.settings["noise_calls"])
    case.check("images", images)
    case.check("labels", hints)


@claim("edm_seeds")
def seeds(case: Case) -> None:
    """Ours come from Philox with a key of 128 bits, theirs from torch's generators; lists of seeds read alike."""
    for text, want in case.expected["parse"].items():
        assert list(Seeds.parse(text)) == want
    theirs, shape = Individual(case.spec["seeds"], torch.float64), case.outputs["latents"].shape[1:]
    case.check("latents", theirs.normal(shape))
    case.check("classes", theirs.integers(1000))
    case.check("randn_like64", theirs.normal(shape, STEP))
    together, alone = (Noise(list_of).normal(shape) for list_of in (case.spec["seeds"], case.spec["seeds"][-1:]))
    assert torch.equal(together[-1:], alone)


@claim("cm_generators")
def generators(case: Case) -> None:
    """They deal samples to processes like cards; a batch that goes past the last sample repeats it, as theirs does."""
    total, seed, batch = case.spec["num_samples"], case.spec["seed"], case.spec["batch"]
    for rank, ranks in case.spec["ranks"]:

        def mine(done: int, rank: int = rank, ranks: int = ranks) -> list[int]:
            return [min(done + rank + ranks * i, total - 1) for i in range(batch)]

        for name, make in {"determ": Shared, "determ-indiv": Individual.openai}.items():
            place = f"{name}.r{rank}w{ranks}"
            noise, later = make(mine(0), total, seed), make(mine(case.spec["done"]), total, seed)
            for draw in ("randn0", "randn1"):
                case.check(f"{place}.{draw}", noise.normal(case.outputs[f"{place}.{draw}"].shape[1:], STEP))
            case.check(f"{place}.randint", noise.integers(1000))
            case.check(f"{place}.after_done", later.normal(case.outputs[f"{place}.after_done"].shape[1:]))


class Native(nn.Module):
    """A network of score_sde, which returns the score and is told the level itself, or the number of its rung."""

    def __init__(self, net: nn.Module, rungs: int = 0):
        super().__init__()
        self.net, self.rungs = net, rungs

    def forward(self, x: Tensor, log_sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        sigma = log_sigma.exp()
        told = (self.rungs - 1) * (1 - VE().time(sigma)) if self.rungs else sigma  # rungs count from the highest
        return sigma[:, None, None, None] * self.net(x, told)


def score_model(case: Case) -> Denoiser:
    """Their network behind the preconditioning that makes a denoiser of it."""
    net = case.golden.TinyNet(tscale=case.spec["tscale"])
    net.load_state_dict(case.weights["net"])
    match case.spec["loss"], case.spec["sde"]["name"]:
        case "sde", "VPSDE":
            return Denoiser(net, replace(Preconditioning.named("vp"), time_scale=999.0))
        case "sde", "subVPSDE":
            return Denoiser(net, replace(Preconditioning.named("subvp"), time_scale=999.0))
        case "ddpm", _:
            return Denoiser(net, replace(Preconditioning.named("ddpm"), time_scale=1.0))
        case loss, _:
            return Denoiser(Native(net, 1000 if loss == "smld" else 0), Preconditioning(form="score", time_scale=4.0))


PROCESSES = {"VPSDE": "vp", "subVPSDE": "subvp", "VESDE": "ve"}


def score_loss(case: Case) -> Denoising:
    ends = {"sigma_min": 0.01, "sigma_max": 50.0}
    if case.spec["loss"] == "smld":
        return ncsn(steps=1000, **ends)
    if case.spec["loss"] == "ddpm":
        return ddpm()
    weight = "likelihood" if case.spec.get("lw") else "noise"
    return dsm(process=PROCESSES[case.spec["sde"]["name"]], weight=weight, **ends)


def next_batch(case: Case) -> Batch:
    """The recorded numbers are uniform times, 1e-5 at the least, or rungs, which VE counts from the highest."""
    first, z = case.tape.next().double(), case.tape.next()
    if case.spec["loss"] == "smld":
        first = 999 - first
    u = first if case.spec["loss"] == "sde" else (first + 0.5) / 1000
    return Batch(case.inputs["batch"], z, u)


@claim("ssde_loss")
def score_matching(case: Case) -> None:
    """Without their ``reduce_mean`` the loss of an image is half the sum over its pixels, where ours is the mean."""
    model, objective, batch = score_model(case), score_loss(case), next_batch(case)
    size = 1 if case.spec["reduce_mean"] else batch.x[0].numel() / 2
    loss = size * objective.loss(model, batch, 0.0).mean()
    case.check("loss", loss)
    loss.backward()
    for name, gradient in gradients(model).items():
        case.check(f"grad.{name.removeprefix('net.')}", gradient)
    if case.spec.get("steps"):
        training(case, objective)


class Counted(Average):
    """Their average: the decay grows with the number n of the update, min(0.9999, (1 + n) / (10 + n))."""

    n = 0

    def update(self, model: nn.Module, batch: int, images: int) -> None:
        self.n += 1
        torch._foreach_lerp_(list(self.model.parameters()), list(model.parameters()), 9 / (10 + self.n))


def training(case: Case, objective: Denoising) -> None:
    """Adam, gradients of norm 1 at most, a rate that grows from 0; 2e-3 in 3 steps is read off the recorded weights."""

    def batches() -> Iterator[Batch]:
        for _ in range(case.spec["steps"]):
            yield next_batch(case)

    model = score_model(case)
    state = State(model, objective, torch.optim.Adam(model.parameters(), 2e-3), Counted(model, 0))
    size = len(case.inputs["batch"])
    total = case.spec["steps"] * size
    reports = list(train(state, batches(), total, lambda n: 2e-3 * min(n / size / 3, 1), clip=1.0))
    case.check("train_losses", torch.stack([report.loss for report in reports]))
    for name, averaged in state.average.model.net.state_dict().items():
        case.check(f"train_param.{name}", model.net.state_dict()[name])
        case.check(f"train_ema.{name}", averaged)
