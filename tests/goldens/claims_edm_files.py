"""The networks of EDM and of easy consistency tuning, and the files that hold them."""

import json
from dataclasses import replace
from typing import Any

import torch
from harness import Case, claim, classes_of, edm_model

import cmtool
from cmtool.core.denoiser import Denoiser, Preconditioning
from cmtool.core.discrete_processes import ddpm_sigmas, nearest_step
from cmtool.core.process import VP
from cmtool.files.safe_pickle.unpickler import ALLOWED
from cmtool.formats.edm import CLASSES
from cmtool.formats.edm_arguments import process_fields, spec_of
from cmtool.options import registry

BELOW = {"VEPrecond": 0.02, "ECMPrecond": CLASSES["ECMPrecond"].sigma_min}  # the lowest levels of theirs that are not 0


def described(case: Case, precond: str, net: dict[str, Any]) -> dict[str, Any]:
    """What a file with this network would say of it."""
    return {"kind": precond, "inside": net.get("model_type", "SongUNet"), "arguments": net}


def arguments(case: Case) -> dict[str, Any]:
    """Of the network and of the class around it: theirs takes both together."""
    return {**case.spec["net"], **case.spec.get("precond_kwargs", {})}


def scaled(case: Case, precond: str, net: dict[str, Any]) -> Preconditioning:
    """Around our network what is around theirs; easy consistency tuning has no boundary in training."""
    kind, told = CLASSES[precond], described(case, precond, net)
    boundary = net.get("sigma_min", kind.sigma_min) if kind.consistency and not case.spec.get("train") else 0.0
    named = Preconditioning.named(kind.preconditioning, net.get("sigma_data", 0.5))
    return replace(named, sigma_min=boundary, **process_fields(case.folder, told))


def built(case: Case, precond: str, net: dict[str, Any]) -> Denoiser:
    """Our network of their arguments, as the format makes it."""
    shape, classes, spec = spec_of(case.folder, described(case, precond, net))
    return Denoiser(registry.build("backbones", spec, shape, classes), scaled(case, precond, net)).eval()


def filled(case: Case) -> Denoiser:
    precond, net = case.spec["precond"], arguments(case)
    if net.get("model_type") == "TinyAdapter":
        model = edm_model(case, tscale=net.get("tscale", 1.0))
        model.preconditioning = scaled(case, precond, net)
        return model
    model = built(case, precond, net)
    tensors = {k.removeprefix("model."): v for k, v in case.weights["net"].items() if k.startswith("model.")}
    model.net.load_state_dict(tensors)
    return model


@claim("edm_net")
@claim("ect_net")
@torch.no_grad()
def net(case: Case) -> None:
    answers(case, filled(case))


@claim("edm_pickle")
@claim("ect_pickle")
@torch.no_grad()
def pickle(case: Case) -> None:
    """The same outputs from the file itself, whose weights are those of the recipe."""
    model = cmtool.load(case.folder / "network.pkl").model
    theirs = {f"model.{name}": value for name, value in model.net.state_dict().items()}
    assert all(torch.equal(value, case.weights["net"][name]) for name, value in theirs.items())
    assert theirs.keys() == case.weights["net"].keys() - {"u"}
    named = json.loads((case.folder / "pickle_globals.json").read_text())
    assert {name.removeprefix("nested: ") for name in named} <= ALLOWED
    answers(case, model)


def answers(case: Case, model: Denoiser) -> None:
    x, sigma = case.inputs["x"], case.inputs["sigma"]
    labels, augment_labels = classes_of(case.inputs.get("class_labels")), case.inputs.get("augment_labels")
    given = {} if augment_labels is None else {"augment_labels": augment_labels}
    case.check("D", model(x, sigma, labels, **given))
    outputs = getattr(model.net, "outputs", model.net)
    case.check("F", outputs(case.inputs["x_raw"], case.inputs["c_noise"], labels, **given))
    if "D_nolabel" in case.outputs:
        case.check("D_nolabel", model(x, sigma, None, **given))
    levels(case)


def levels(case: Case) -> None:
    """The levels that their networks accept; ours accept every one, and these belong to a file's header."""
    precond, net, sigma = case.spec["precond"], arguments(case), case.inputs["sigma"]
    told = scaled(case, precond, net)
    ends = [
        net.get("sigma_min", BELOW.get(precond, 0.0)),
        net.get("sigma_max", 100.0 if precond == "VEPrecond" else 1e30),
    ]
    if precond == "iDDPMPrecond":
        # Theirs takes 0 for a level of the ladder, and tells the network a step of -1 there; ours begins at step 0.
        ladder = ddpm_sigmas(told.steps, "cosine", shift=told.cosine_shift, most=told.beta_limit)
        ends = [float(ladder[0]), float(ladder[-1])]
        ladder = torch.cat([torch.zeros(1), ladder])
        case.check("round_sigma", ladder[nearest_step(sigma, ladder)])
    else:
        case.check("round_sigma", sigma)
    if precond == "VPPrecond":
        process = VP(told.beta_min, told.beta_max)
        start = net.get("epsilon_t", 1e-5)
        ends = process.sigma(torch.tensor([start, 1.0], dtype=torch.float64)).tolist()
        case.check("sigma_inv", process.time(sigma))
        case.check("sigma_of_t", process.sigma(torch.linspace(start, 1, 9)))
    recorded = case.outputs["sigma_min_max"]  # where theirs is without end, 1e30
    case.check("sigma_min_max", torch.tensor(ends).clamp(max=1e30))
    if precond != "VPPrecond":  # theirs loses digits of the lower one in float32
        case.near("the lower one", torch.tensor(ends[0]), recorded[0])


@claim("manifest_edm")
@claim("manifest_ect")
def published(case: Case) -> None:
    """The networks of the released files, made as the format makes them: without memory for the weights.

    ``u`` is the ladder of iDDPM and the step below it, which is no part of our networks.
    """
    for model in case.expected.values():
        flags, theirs = model["flags"], dict(model["state"])
        inside, usual = ("unet.", "Precond") if "unet.out_gain" in theirs else ("model.", "ECMPrecond")
        with torch.device("meta"):
            made = built(case, flags.get("precond", usual), flags.get("net", flags))
        state = {f"{inside}{name}": [list(value.shape), "float32"] for name, value in made.net.state_dict().items()}
        if "u" in theirs:
            assert theirs.pop("u") == [[made.preconditioning.steps + 1], "float32"]
        assert state == theirs
        assert sum(p.numel() for p in made.net.parameters()) == model["n_params"]
