"""The networks of EDM and of easy consistency tuning, and the files that hold them."""

import json
from dataclasses import replace
from typing import Any

import torch
from harness import Case, claim, classes_of, edm_model

import cmtool
from cmtool import registry
from cmtool.core.denoiser import Denoiser, Preconditioning
from cmtool.core.process import VP
from cmtool.core.rungs import ddpm, nearest
from cmtool.formats.edm import KINDS
from cmtool.formats.edm_arguments import spec_of
from cmtool.formats.pickles import ALLOWED


def built(case: Case, precond: str, net: dict[str, Any]) -> Denoiser:
    """Our network of their arguments, as the format makes it."""
    told = {"kind": precond, "inside": net["model_type"], "arguments": net}
    shape, classes, spec = spec_of(case.folder, told)
    kind = KINDS[precond]
    boundary = 0.003 if kind.consistency and not case.spec.get("train") else 0.0
    return Denoiser(
        registry.build("backbones", spec, shape, classes),
        replace(Preconditioning.named(kind.preconditioning), sigma_min=boundary),
    ).eval()


def filled(case: Case) -> Denoiser:
    precond, net = case.spec["precond"], case.spec["net"]
    if net["model_type"] == "TinyAdapter":
        model = edm_model(case, tscale=net["tscale"])
        model.preconditioning = Preconditioning.named(KINDS[precond].preconditioning)
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
    model = cmtool.load(case.folder / "network.pkl")
    theirs = {f"model.{name}": value for name, value in model.net.state_dict().items()}
    assert all(torch.equal(value, case.weights["net"][name]) for name, value in theirs.items())
    assert theirs.keys() == case.weights["net"].keys() - {"u"}
    named = json.loads((case.folder / "pickle_globals.json").read_text())
    assert {name.removeprefix("nested: ") for name in named} <= ALLOWED
    answers(case, model)


def answers(case: Case, model: Denoiser) -> None:
    x, sigma = case.inputs["x"], case.inputs["sigma"]
    told = [classes_of(case.inputs.get("class_labels")), case.inputs.get("augment_labels")]
    given = told if told[1] is not None else told[:1]
    case.check("D", model(x, sigma, *given))
    case.check("F", model.net(case.inputs["x_raw"], case.inputs["c_noise"], *given))
    if told[0] is not None:
        case.check("D_nolabel", model(x, sigma, None, *given[1:]))
    levels(case)


def levels(case: Case) -> None:
    """The levels that their networks accept; ours accept every one, and these belong to a file's header."""
    sigma, ladder = case.inputs["sigma"], ddpm(1000, "cosine")
    vp = VP().level(torch.tensor([1e-5, 1.0], dtype=torch.float64))
    known = {"VPPrecond": vp, "iDDPMPrecond": ladder[[0, -1]]}
    if case.spec["precond"] in known:
        case.check("sigma_min_max", known[case.spec["precond"]])
    case.leave("sigma_min_max", "constants of theirs: 0.02 and 100 for VE, 0 (or ECT's boundary) and no end for EDM")
    if case.spec["precond"] == "iDDPMPrecond":
        # Theirs takes 0 for a level of the ladder, and tells the network a step of -1 there; ours begins at step 0.
        ladder = torch.cat([torch.zeros(1), ladder])
        case.check("round_sigma", ladder[nearest(sigma, ladder)])
    else:
        case.check("round_sigma", sigma)
    if "sigma_inv" in case.open:
        case.check("sigma_inv", VP().time(sigma))
        case.check("sigma_of_t", VP().level(torch.linspace(1e-5, 1, 9)))


@claim("manifest_edm")
@claim("manifest_ect")
def published(case: Case) -> None:
    """The networks of the released files, made as the format makes them: without memory for the weights."""
    for model in case.expected.values():
        flags = model["flags"]
        with torch.device("meta"):
            made = built(case, flags.get("precond", "ECMPrecond"), flags.get("net", flags)).net
        state = {f"model.{name}": [list(value.shape), "float32"] for name, value in made.state_dict().items()}
        assert state == model["state"]
        assert sum(p.numel() for p in made.parameters()) == model["n_params"]
