"""OpenAI's U-Nets, read from files such as were published."""

from dataclasses import replace
from typing import Any

import torch
from adm_files import adm_model
from claims_training import uniform_of
from harness import Case, claim
from torch import Tensor

from cmtool import registry
from cmtool.backbones.adm import waves
from cmtool.core.solvers import heun
from cmtool.formats.adm_shapes import read_off
from cmtool.formats.released import ARCHITECTURES
from cmtool.objectives.consistency import Consistency, along_teacher
from cmtool.objectives.levels import adjacent
from cmtool.objectives.metrics import l2
from cmtool.objectives.objective import Batch


@claim("cm_unet")
@torch.no_grad()
def consistency_models(case: Case) -> None:
    model, x, sigmas = adm_model(case, "model"), case.inputs["x_t"], case.inputs["sigmas"]
    case.check("forward", model.net(case.inputs["x"], case.inputs["t"], case.inputs.get("y")))
    case.check("timestep_embedding", waves(case.inputs["t"], case.spec["create_model"]["num_channels"]))
    inside: list[Tensor] = []
    model.net.register_forward_hook(lambda net, given, made: inside.append(made))
    for name, sigma_min in (("denoise_D0", 0.0), ("denoise_D1", 0.002)):
        model.preconditioning = replace(model.preconditioning, sigma_min=sigma_min)
        case.check(name, model(x, sigmas, case.inputs.get("y_d")))
    case.check("denoise_model_output", inside[0])


@claim("gd_unet")
@torch.no_grad()
def guided_diffusion(case: Case) -> None:
    model = adm_model(case, "model", guided=True)
    case.check("forward", model.net.outputs(case.inputs["x"], case.inputs["t"]))


@claim("cm_consistency_loss_unet")
def distillation(case: Case) -> None:
    n = case.spec["num_scales"]
    model, target = (adm_model(case, name, 0.002) for name in ("net", "target"))
    objective = Consistency(
        pair=lambda u, progress: adjacent(u, n, 0.002, 80.0),
        back=along_teacher(adm_model(case, "teacher"), heun()),
        metric=l2,
    )
    objective.target = target
    batch = Batch(case.inputs["x_start"], case.inputs["noise"], uniform_of(case.tape.next(), n), case.inputs["y"])
    loss = objective.loss(model, batch, 0.0)
    case.check("loss", loss)
    loss.mean().backward()
    found = dict(model.net.named_parameters())
    assert sorted(found) == case.expected["param_names"]
    case.check("gradnorm", torch.stack([found[name].grad.norm() for name in sorted(found)]))


@claim("manifest_cm")
@claim("manifest_gd")
def published(case: Case) -> None:
    """The networks of the published files, made as the format makes them: without memory for the weights."""
    guided = case.settings["kind"] == "manifest_gd"
    for flags, recorded in ((model["flags"], model) for model in case.expected.values()):
        net = of_flags(flags, guided)
        found = {name: [list(value.shape), str(value.dtype).removeprefix("torch.")] for name, value in net.items()}
        assert found == recorded["state"]
        assert sum(value.numel() for value in net.values()) == recorded["n_params"]
        hidden = ARCHITECTURES[read_off(case.folder, net).layers]  # the format knows it by its tensors
        assert hidden.side == flags["image_size"]
        assert hidden.backbone["head_width"] == flags["num_head_channels"]
        assert hidden.backbone.get("qkv") == ("new" if guided else None)


def of_flags(flags: dict[str, Any], guided: bool) -> dict[str, Tensor]:
    """Levels and attention are those that the backbone chooses for the size of the images."""
    spec = {
        "name": "adm",
        "width": flags["num_channels"],
        "blocks": flags["num_res_blocks"],
        "head_width": flags["num_head_channels"],
        "scale_shift": flags["use_scale_shift_norm"],
        "updown": flags["resblock_updown"],
        "learn_variance": flags.get("learn_sigma", False),
        "qkv": "new" if guided else "flash",
    }
    shape, classes = (3, flags["image_size"], flags["image_size"]), 1000 if flags["class_cond"] else 0
    with torch.device("meta"):
        return registry.build("backbones", spec, shape, classes).state_dict()
