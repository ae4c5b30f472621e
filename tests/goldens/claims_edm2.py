"""EDM2: the network, its learned uncertainty, and the shapes of the released files."""

from typing import Any

import torch
from harness import Case, claim, classes_of
from torch import Tensor, nn

import cmtool
from cmtool.backbones.edm2 import edm2 as network
from cmtool.core.denoiser import Denoiser, Preconditioning
from cmtool.objectives.edm2 import edm2
from cmtool.objectives.objective import Batch, Objective
from cmtool.objectives.uncertainty import FourierLogVariance
from cmtool.training.ema import Average
from cmtool.training.loop import State, projected

NAMES = {"model_channels": "width", "num_blocks": "blocks", "channels_per_head": "head"}
PUBLISHED = {  # what the names of the released files say
    "edm2-img64-s": ((3, 64, 64), {"width": 192}),
    "edm2-img512-xs": ((4, 64, 64), {"width": 128}),
}


def built(net: dict[str, Any]) -> tuple[nn.Module, FourierLogVariance]:
    options = {ours: net[theirs] for theirs, ours in NAMES.items()}
    shape = (net["img_channels"], net["img_resolution"], net["img_resolution"])
    sides = {"mults": tuple(net["channel_mult"]), "attention": tuple(net["attn_resolutions"])}
    return network(shape, net["label_dim"], **sides, **options), FourierLogVariance(net["logvar_channels"])


def under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def loaded(case: Case) -> tuple[Denoiser, FourierLogVariance]:
    """Their one module is our network and the head of the loss, under their names."""
    net, head = built(case.spec["net"])
    net.load_state_dict(under("unet.", case.weights["net"]))
    head.load_state_dict(under("logvar_", case.weights["net"]))
    return Denoiser(net, Preconditioning()), head


def project(model: Denoiser, objective: Objective) -> None:
    """What the training loop does before each step, and theirs inside each forward pass of training."""
    parameters = [*model.parameters(), *objective.parameters()]
    optimiser = torch.optim.SGD(parameters)
    for layer in projected(State(model, objective, optimiser, Average(model, 0)), parameters):
        layer.project()


@claim("edm2_net")
@torch.no_grad()
def net(case: Case) -> None:
    model, head = loaded(case)
    x, sigma, labels = case.inputs["x"], case.inputs["sigma"], classes_of(case.inputs.get("class_labels"))
    case.check("D", model.eval()(x, sigma, labels))
    if (case.folder / "network.pkl").is_file():
        case.near("D of the file", cmtool.load(case.folder / "network.pkl")(x, sigma, labels), case.outputs["D"])
    case.check("logvar", head(sigma.log() / 4)[:, None, None, None])
    if labels is not None:
        case.check("D_nolabel", model(x, sigma))
    for step in (1, 2):
        project(model, edm2())
        case.check(f"D_train{step}", model.train()(x, sigma, labels))
    for name in [name for name in case.open if name.startswith("w_after_train.")]:  # recorded after both passes
        case.check(name, model.net.state_dict()[name.removeprefix("w_after_train.unet.")])


@claim("edm2_loss")
def uncertain(case: Case) -> None:
    """The loss of single pixels is compared through its mean; each parameter's gradient through its length."""
    model, head = loaded(case)
    first = case.tape.next().double().flatten()
    objective = edm2(mean=-0.4, std=1.0)
    objective.head = head
    project(model, objective)
    batch = Batch(case.inputs["images"], case.tape.next(), torch.special.ndtr(first), classes_of(case.inputs["labels"]))
    loss = objective.loss(model.train(), batch, 0.0)
    case.near("loss", loss, case.outputs["loss"].flatten(1).mean(1))
    case.leave("loss", "compared through its mean over pixels")
    loss.mean().backward()
    slopes = {f"unet.{name}": p.grad for name, p in model.net.named_parameters()}
    slopes |= {f"logvar_{name}": p.grad for name, p in head.named_parameters()}
    assert sorted(slopes) == case.expected["param_names"]
    case.check("gradnorm", torch.stack([slopes[name].norm() for name in case.expected["param_names"]]))


@claim("manifest_edm2")
def manifest(case: Case) -> None:
    for name, (shape, options) in PUBLISHED.items():
        with torch.device("meta"):
            net, head = network(shape, 1000, blocks=3, **options), FourierLogVariance()
        state = {f"unet.{key}": value for key, value in net.state_dict().items()}
        state |= {f"logvar_{key}": value for key, value in head.state_dict().items()}
        want = case.expected[name]
        assert {key: [list(value.shape), "float32"] for key, value in state.items()} == want["state"]
        assert sum(p.numel() for p in [*net.parameters(), *head.parameters()]) == want["n_params"]
    assert PUBLISHED.keys() == case.expected.keys()
