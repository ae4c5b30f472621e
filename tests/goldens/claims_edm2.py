"""EDM2: the network, its learned uncertainty, and the shapes of the released files."""

from typing import Any

import torch
from harness import Case, claim, classes_of
from torch import Tensor

import cmtool
from cmtool.core.denoiser import Denoiser, Preconditioning
from cmtool.formats.edm_arguments import spec_of
from cmtool.objectives.edm import FourierLogVariance, edm2
from cmtool.objectives.objective import Batch, Objective
from cmtool.options import registry
from cmtool.training.ema import EMA
from cmtool.training.loop import projected_layers
from cmtool.training.state import State


def built(case: Case, net: dict[str, Any]) -> tuple[Denoiser, FourierLogVariance]:
    """Our network of their arguments, as the format makes it, and the head of the loss."""
    told = {"kind": "Precond", "inside": "UNet", "arguments": net}
    shape, classes, spec = spec_of(case.folder, told)
    model = Denoiser(registry.build("backbones", spec, shape, classes), Preconditioning(net.get("sigma_data", 0.5)))
    return model, FourierLogVariance(net.get("logvar_channels", 128))


def under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def loaded(case: Case) -> tuple[Denoiser, FourierLogVariance]:
    """Their one module is our network and the head of the loss, under their names."""
    model, head = built(case, case.spec["net"])
    model.net.load_state_dict(under("unet.", case.weights["net"]))
    head.load_state_dict(under("logvar_", case.weights["net"]))
    return model, head


def project(model: Denoiser, objective: Objective) -> None:
    """What the training loop does before each step, and theirs inside each forward pass of training."""
    parameters = [*model.parameters(), *objective.parameters()]
    optimiser = torch.optim.SGD(parameters)
    for layer in projected_layers(State(model, objective, optimiser, EMA(model, 0)), parameters):
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
    if "D_nolabel" in case.outputs:
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
    kwargs = {"P_mean": -0.4, "P_std": 1.0, "sigma_data": 0.5, **case.spec.get("loss_kwargs", {})}
    first = case.tape.next().double().flatten()
    objective = edm2(P_mean=kwargs["P_mean"], P_std=kwargs["P_std"], sigma_data=kwargs["sigma_data"])
    objective.head = head
    project(model, objective)
    labels = classes_of(case.inputs.get("labels"))
    batch = Batch(case.inputs["images"], case.tape.next(), torch.special.ndtr(first), labels)
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
    """The networks of the released files, made as the format makes them: without memory for the weights."""
    for want in case.expected.values():
        with torch.device("meta"):
            model, head = built(case, want["flags"])
        state = {f"unet.{key}": value for key, value in model.net.state_dict().items()}
        state |= {f"logvar_{key}": value for key, value in head.state_dict().items()}
        assert {key: [list(value.shape), "float32"] for key, value in state.items()} == want["state"]
        assert sum(p.numel() for p in [*model.net.parameters(), *head.parameters()]) == want["n_params"]
