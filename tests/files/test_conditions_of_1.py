"""Networks of format 1 had one option for what are two conditions now; their checkpoints still open."""

import pytest
import torch

from cmtool.core.denoiser import TARGET_DIM, Denoiser, Preconditioning
from cmtool.files.checkpoint import load, save
from cmtool.files.container import read_envelope
from cmtool.files.header import KEY, Header
from cmtool.files.sealed import read_sealed, write_sealed
from cmtool.options import registry


@pytest.mark.parametrize(("name", "layer"), [("mlp", "hints"), ("unet", "hints"), ("songunet", "map_augment")])
@pytest.mark.parametrize("option", ["augment_dim", "target_dim"])
def test_a_checkpoint_of_format_1_opens(tmp_path, name, layer, option):
    dim, jumps = (TARGET_DIM, True) if option == "target_dim" else (9, False)
    spec = {"name": name, option: dim}
    model = Denoiser(registry.build("backbones", spec, (1, 8, 8), 0), Preconditioning(jumps=jumps))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    data = {"name": "none", "shape": [1, 8, 8], "classes": [], "notice": ""}
    path = tmp_path / "new.safetensors"
    save(path, model, Header("consistency", spec, {}, data, 0, 0.002, 80.0))

    tensors, document = read_sealed(path, KEY)
    new = "map_target" if jumps else "map_augment"
    document |= {"format": 1, "conditional": document.pop("num_classes"), "levels": document.pop("sigmas")}
    document["backbone"] = {"name": name, "augment": dim}
    document["preconditioning"]["jumps"] = jumps
    document.pop("sha256", None)
    old = tmp_path / "old.safetensors"
    write_sealed(old, {key.replace(new, layer): value for key, value in tensors.items()}, KEY, document)
    assert read_envelope(old, KEY).document["format"] == 1

    again = load(old)
    assert again.header.backbone == load(path).header.backbone == spec
    for key, value in load(path).model.net.state_dict().items():
        assert torch.equal(again.model.net.state_dict()[key], value), key
