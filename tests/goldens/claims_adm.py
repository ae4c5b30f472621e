"""OpenAI's U-Nets, read from files such as were published."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from adm_files import adm_model, flags_of
from claims_training import uniform_of
from harness import Case, claim, scalings
from torch import Tensor

from cmtool.backbones.adm import sinusoidal_embedding
from cmtool.core.solvers import heun
from cmtool.errors import BadFile
from cmtool.formats.openai import check_adm
from cmtool.formats.openai_networks import ARCHITECTURES, ADMShape, read_adm_shape
from cmtool.objectives.consistency import Consistency, adjacent_pair, along_noise, along_teacher, pair_weight
from cmtool.objectives.distances import metric_called
from cmtool.objectives.objective import Batch, Requirements
from cmtool.options import registry


@claim("cm_unet")
@torch.no_grad()
def consistency_models(case: Case) -> None:
    model, given = adm_model(case, "model"), case.inputs
    case.check("forward", model.net.outputs(given["x"], given["t"], given.get("y")))
    case.check("timestep_embedding", sinusoidal_embedding(given["t"], flags_of(case)["num_channels"]))
    inside: list[Tensor] = []
    model.net.register_forward_hook(lambda net, given, made: inside.append(made))
    for name, boundary in (("denoise_D0", 0.0), ("denoise_D1", scalings(case)["sigma_min"])):
        if name in case.outputs:
            model.preconditioning = replace(model.preconditioning, sigma_min=boundary)
            case.check(name, model(given["x_t"], given["sigmas"], given.get("y_d")))
            case.check("denoise_model_output", inside[0])


@claim("gd_unet")
@torch.no_grad()
def guided_diffusion(case: Case) -> None:
    model = adm_model(case, "model", guided=True)
    case.check("forward", model.net.outputs(case.inputs["x"], case.inputs["t"], case.inputs.get("y")))


@claim("cm_consistency_loss_unet")
def distillation(case: Case) -> None:
    """With a teacher its step leads from one level to the next, without one the noise itself."""
    n, of = case.spec["num_scales"], scalings(case)
    model, target = (adm_model(case, name, of["sigma_min"]) for name in ("net", "target"))
    objective = Consistency(
        pair=lambda u, progress: adjacent_pair(u, n, of["sigma_min"], of["sigma_max"], of["rho"]),
        previous_point=along_teacher(adm_model(case, "teacher"), heun()) if "teacher" in case.weights else along_noise,
        metric=metric_called(case.spec["norm"]),
        weight=pair_weight(case.spec["weight"], of["sigma_data"]),
        requirements=Requirements("consistency", of["sigma_min"]),
    )
    objective.target = target
    batch = Batch(case.inputs["x_start"], case.inputs["noise"], uniform_of(case.tape.next(), n), case.inputs.get("y"))
    loss = objective.loss(model, batch, 0.0)
    case.check("loss", loss)
    loss.mean().backward()
    found = dict(model.net.named_parameters())
    assert sorted(found) == case.expected["param_names"]
    case.check("gradnorm", torch.stack([found[name].grad.norm() for name in sorted(found)]))


@claim("manifest_cm")
@claim("manifest_gd")
def published(case: Case) -> None:
    """The networks that the tensors of the published files tell, made without memory for the weights.

    Their flags must be the same ones; what the tensors do not tell is known of each architecture.
    """
    guided = case.settings["kind"] == "manifest_gd"
    for flags, recorded in ((model["flags"], model) for model in case.expected.values()):
        tensors = {name: torch.empty(shape, device="meta") for name, (shape, _) in recorded["state"].items()}
        if "out.2.weight" not in tensors:  # a classifier, which gives one vector
            with pytest.raises(BadFile, match="as a classifier is"):
                read_adm_shape(case.folder, tensors)
            continue
        shown = read_adm_shape(case.folder, tensors)
        if shown.channels != 3:  # an upsampler
            with pytest.raises(BadFile, match="as an upsampler does"):
                check_adm(case.folder, shown, {}, None)
            continue
        hidden = ARCHITECTURES[shown.layers]
        assert hidden.side == flags["image_size"]
        told(shown, flags)
        heads = {"head_width": flags["num_head_channels"]} if flags.get("num_head_channels", -1) > 0 else {}
        heads = heads or {"heads": flags.get("num_heads", 4)}
        assert heads.items() <= hidden.backbone.items()
        if guided:
            assert hidden.backbone["qkv"] == ("new" if flags.get("use_new_attention_order") else "legacy")
        with torch.device("meta"):
            spec, side = {**shown.backbone, **hidden.backbone}, flags["image_size"]
            net = registry.build("backbones", spec, (3, side, side), shown.classes).state_dict()
        found = {name: [list(value.shape), str(value.dtype).removeprefix("torch.")] for name, value in net.items()}
        assert found == recorded["state"]
        assert sum(value.numel() for value in net.values()) == recorded["n_params"]


def told(shown: ADMShape, flags: dict[str, Any]) -> None:
    """What the tensors tell is what the flags say."""
    assert shown.classes == (1000 if flags.get("class_cond") else 0)
    names = {
        "num_channels": "model_channels",
        "num_res_blocks": "num_blocks",
        "use_scale_shift_norm": "scale_shift",
        "resblock_updown": "updown",
        "learn_sigma": "learn_variance",
    }
    for theirs, ours in names.items():
        assert theirs not in flags or shown.backbone[ours] == flags[theirs]
    factors = {int(flags["image_size"]) // int(side) for side in flags["attention_resolutions"].split(",")}
    assert {2**level for level in shown.backbone["attention"]} == factors & {2**i for i in range(len(shown.layers[3]))}
