"""Checkpoints of header format 1, kept as the program of that time wrote them, give the numbers that it gave.

``format1/`` holds three networks, trained for a moment on the digits, a flow map of points (``mlp``), and for each a
batch with the output that was recorded then: ``NAME_x``, ``NAME_sigma`` and ``NAME_labels`` are the arguments,
``NAME_out`` is the output; so are the augment labels of ``unet``, and the noise levels to which ``mlp`` steps.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

import cmtool
from cmtool.bundled import find_bundled
from cmtool.core.flow_map import flow_map_step
from cmtool.files.header import FORMAT, parse, read_header
from cmtool.files.header_versions import upgrade_header

FOLDER = Path(__file__).with_name("format1")
SPECS = {
    "unet": {"model_channels": 8, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [4], "augment_dim": 9},
    "ncsnpp": {"model_channels": 8, "channel_mult": [1, 1], "num_blocks": 1, "attn_resolutions": [4]},
    "image_v1": {"mapping_dim": 8, "widths": [8, 16], "depths": [1, 1], "attn_resolutions": [2], "patch_size": 2},
}


def recorded(*names):
    with np.load(FOLDER / "outputs.npz") as arrays:
        return [torch.from_numpy(arrays[name]) for name in names]


@pytest.mark.parametrize("name", SPECS)
@torch.no_grad()
def test_an_old_checkpoint_gives_the_numbers_that_were_recorded(name):
    model = cmtool.load(FOLDER / f"{name}.safetensors")
    x, sigma, labels, out = recorded(*(f"{name}_{part}" for part in ("x", "sigma", "labels", "out")))
    torch.testing.assert_close(model(x, sigma, labels), out, atol=1e-5, rtol=1e-5)
    assert out.flatten(1).std(0).min() > 0.01  # the images differ


@torch.no_grad()
def test_augment_labels_and_the_target_of_a_flow_map_were_one_argument():
    unet, mlp = (cmtool.load(FOLDER / f"{name}.safetensors") for name in ("unet", "mlp"))
    x, sigma, labels, augment, out = recorded(
        *("unet_x", "unet_sigma", "unet_labels", "unet_augment_labels", "unet_augmented")
    )
    torch.testing.assert_close(unet.model(x, sigma, labels, augment_labels=augment), out, atol=1e-5, rtol=1e-5)
    x, t, s, labels, out = recorded("mlp_x", "mlp_sigma", "mlp_target", "mlp_labels", "mlp_out")
    torch.testing.assert_close(flow_map_step(mlp.model, x, t, s, labels), out, atol=1e-5, rtol=1e-5)
    assert mlp.header.backbone == {"name": "mlp", "hidden_dim": 8, "depth": 1, "target_dim": 8}


@pytest.mark.parametrize("name", SPECS)
def test_the_header_has_the_words_of_today(name):
    header = read_header(FOLDER / f"{name}.safetensors", whole=True)
    assert header.format == FORMAT
    assert header.num_classes == 10
    assert header.backbone == {"name": name, **SPECS[name]}
    assert {"augment_dim": 9, **header.options["backbone"]} == {"augment_dim": 9, **header.backbone}
    assert header.average["ema"].startswith("half-life:")
    assert parse("copy", header.document()) == header


def test_options_of_commands_and_methods_are_renamed():
    score, student = (read_header(FOLDER / f"{name}.safetensors").options for name in ("unet", "ncsnpp"))
    assert (score["label_dropout"], score["grad_clip"], score["lr_schedule"]) == (0.2, 1.0, "linear")
    assert score["method"] == {"name": "edm", "P_mean": -1.0, "P_std": 1.4}
    assert student["method"] == {"name": "ict", "P_mean": -1.0, "P_std": 1.4, "s0": 4, "s1": 16}
    assert not {"drop_labels", "clip", "decay", "mean", "first"} & (score.keys() | student.keys())


@pytest.mark.parametrize("name", ["shapes-consistency", "shapes-score"])
def test_bundled_models_are_such_files(name):
    header = read_header(find_bundled(Path(name)))
    assert (header.format, header.num_classes) == (FORMAT, 10)
    assert header.backbone == header.options["backbone"] == {"name": "unet", "model_channels": 32}
    assert header.average == {"ema": "half-life:15000"}


@pytest.mark.parametrize(
    ("backbone", "shape", "converted"),
    [
        ({"name": "unet", "attention": [0, 2]}, [3, 64, 64], {"name": "unet", "attn_resolutions": [32, 8]}),
        ({"name": "unet", "attention": [1]}, [3, 28, 28], {"name": "unet", "attn_resolutions": [14]}),
        ({"name": "unet", "attention": [1], "patch": 4}, [3, 64, 64], {"attn_resolutions": [8], "patch_size": 4}),
        ({"name": "adm", "attention": [1, 2], "heads": 4}, [3, 64, 64], {"attn_resolutions": [32, 16], "num_heads": 4}),
        ({"name": "image_v1", "attention": [1], "wide": 8}, [3, 32, 64], {"attn_resolutions": [16], "mapping_dim": 8}),
        ({"name": "songunet", "attention": [16], "waves": 2}, [3, 32, 32], {"attn_resolutions": [16]}),
        ({"name": "edm2", "attention": None, "head": 32}, [3, 32, 32], {"attn_resolutions": None}),
        ({"name": "mlp", "width": 5}, [2], {"hidden_dim": 5}),
        ({"name": "dit", "width": 64, "heads": 2, "patch": 2}, [3, 32, 32], {"hidden_dim": 64, "num_heads": 2}),
        ({"name": "of another package", "width": 5}, [2], {"width": 5}),
    ],
)
def test_levels_become_resolutions(backbone, shape, converted):
    document = {"format": 1, "backbone": backbone, "data": {"shape": shape}, "options": {"backbone": dict(backbone)}}
    found = upgrade_header(document)
    assert converted.items() <= found["backbone"].items()
    assert found["options"]["backbone"] == found["backbone"]
    assert len(found["backbone"]) == len(backbone)


@pytest.mark.parametrize("value", [None, 3, "x", [1], {"name": ["unet"]}, {"name": "unet", "attention": ["a", -1]}])
@pytest.mark.parametrize("field", ["backbone", "options", "average", "data"])
def test_what_makes_no_sense_is_left_for_the_checks(field, value):
    document = {"format": 1, "backbone": {"name": "unet", "attention": [1 << 70]}, "data": {"shape": [3, "a", 4]}}
    assert upgrade_header({**document, field: value})["format"] == FORMAT


def test_a_header_of_today_is_left_as_it_is():
    document = {"format": FORMAT, "conditional": 3, "backbone": {"name": "unet", "width": 8}}
    assert upgrade_header(document) is document
