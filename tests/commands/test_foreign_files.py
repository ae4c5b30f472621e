"""Models of other programs, from the shell: nothing is converted first."""

import json

import numpy as np
import pytest
import torch

import cmtool
from cmtool.backbones.adm import adm
from cmtool.commands.information.checkpoints import SCORE_FLAGS
from cmtool.files.checkpoint import digest
from cmtool.files.header import read_header
from cmtool.options import yaml_files
from cmtool.testing import wake

SAID = ["--set", "backbone.num_head_channels=16", "--set", "format.side=16"]


def write(path, format=None, **options):
    """A random network as OpenAI's programs save it; with ``format`` a file beside it says what it does not say."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = adm(
            (3, 16, 16),
            0,
            model_channels=32,
            channel_mult=(1, 1),
            num_blocks=1,
            attn_resolutions=(8,),
            num_head_channels=16,
            **options,
        )
        torch.save(wake(net).state_dict(), path)
    if format:
        layout = {key: value for key, value in options.items() if key == "qkv"}
        said = {"format": {"side": 16, **format}, "backbone": {"num_head_channels": 16, **layout}}
        path.with_name(f"{path.name}.yaml").write_text(yaml_files.write_yaml(said))
    return path


@pytest.fixture
def student(tmp_path):
    return write(tmp_path / "student.pt")


def test_a_consistency_model_is_sampled_and_edits(well, cm, student, tmp_path, picture):
    told = cm("sample", "-m", student, "-n", "2", "-o", tmp_path / "a.npz")
    assert (told.code, told.error[0]) == (
        2,
        f"{student} does not say backbone.num_head_channels, format.side, format.kind",
    )
    said = [*SAID, "--set", "format.kind=consistency"]
    document = json.loads(
        well("sample", "-m", student, *said, "-n", "4", "-k", "2", "-o", tmp_path / "a.npz", "--json")
    )
    assert document["model"] == {"path": str(student), "kind": "consistency", "sha256": digest(student)}
    assert np.load(tmp_path / "a.npz")["arr_0"].shape == (4, 16, 16, 3)
    photo = picture("photo.png", np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    out = tmp_path / "out.png"
    edited = json.loads(well("edit", "colorize", photo, "-m", student, *said, "-k", "2", "-o", out, "--json"))
    assert edited["known_error"] < 1
    well("interp", "1", "2", "-m", student, *said, "-n", "3", "-o", tmp_path / "strip.png")


@pytest.mark.parametrize(
    ("format", "options"),
    [({"kind": "score"}, {}), ({"schedule": "linear"}, {"qkv": "legacy", "learn_variance": True})],
)
def test_a_score_model_teaches(well, tmp_path, format, options):
    teacher = write(tmp_path / "teacher.pt", format, **options)
    run = tmp_path / "run"
    short = ["--images", "16", "--batch", "8", "--snapshots", "0", "--lr", "1e-4", "--warmup", "0"]
    well("distill", "-t", teacher, "--set", "data.size=16", "--no-conditional", *short, "--run-dir", run)
    header = read_header(run / "model.safetensors", whole=True)
    assert (header.kind, header.backbone["name"], header.images) == ("consistency", "adm", 16)
    assert header.parents == [{"path": str(teacher), "sha256": digest(teacher)}]
    assert header.preconditioning["sigma_min"] == 0.002
    well("sample", "-m", run, "-n", "2", "-o", tmp_path / "b.npz")


def test_convert_makes_it_ours_and_keeps_the_lineage(well, student, tmp_path):
    ours, said = tmp_path / "ours.safetensors", [*SAID, "--set", "format.kind=consistency"]
    well("convert", student, "-o", ours, *said)
    assert read_header(ours, whole=True).parents == [{"path": str(student), "sha256": digest(student)}]
    for model, extra in ((student, said), (ours, [])):
        well("sample", "-m", model, *extra, "-n", "2", "-o", tmp_path / f"{model.stem}.npz")
    a, b = (np.load(tmp_path / f"{name}.npz")["arr_0"] for name in ("student", "ours"))
    assert np.array_equal(a, b)


def test_info_says_what_it_is(well, tmp_path):
    model = write(tmp_path / "net.pt", {"kind": "score"})
    header = json.loads(well("info", model, "--json"))["header"]
    assert (header["kind"], header["method"], header["data"]["shape"]) == ("score", "openai", [3, 16, 16])
    assert header["preconditioning"]["time"] == "log-1000"
    parameters = sum(p.numel() for p in cmtool.load(model).model.net.parameters())
    lines = well("info", model).splitlines()
    assert lines[:2] == [
        f"# score model for 3x16x16 images: adm, {parameters:,} parameters",
        "# noise levels 0.002 to 80; parameterisation: form edm, time log-1000, sigma_data 0.5",
    ]
    assert lines[2] == f"# sample it with: cmtool sample --model {model} {SCORE_FLAGS}"
    well(*lines[2].split()[5:], "-n", "1", "-o", tmp_path / "a.npz")
    said = [*SAID, "--set", "format.kind=consistency"]
    document = json.loads(well("info", write(tmp_path / "other.pt"), *said, "--json"))
    assert document["header"]["parameters"] == parameters
    assert {*document["sample"].split()} >= {"format.kind=consistency", "backbone.num_head_channels=16", "--steps", "1"}


def test_fid_takes_it_as_a_source(well, tmp_path):
    model = write(tmp_path / "net.pt", {"kind": "consistency"})
    document = json.loads(well("fid", model, "--ref", "shapes", "--features", "small", "-n", "4", "--json"))
    assert (document["source"]["data"], document["source"]["images"]) == (str(model), 4)


def test_convert_writes_for_diffusers_and_takes_it_back(well, cm, student, tmp_path):
    said, theirs, ours = [*SAID, "--set", "format.kind=consistency"], tmp_path / "theirs", tmp_path / "ours.safetensors"
    document = json.loads(well("convert", student, "-o", theirs, "--to", "diffusers", *said, "--json"))
    weights = theirs / "unet" / "diffusion_pytorch_model.safetensors"
    assert document["sha256"] == digest(weights)
    again = json.loads(well("convert", student, "-o", theirs, "--to", "diffusers", *said, "--json"))
    assert again["sha256"] == document["sha256"], "an earlier copy gives way to the same one"
    well("convert", theirs, "-o", ours)
    lineage = [{"path": str(student), "sha256": digest(student)}, {"path": str(theirs), "sha256": digest(weights)}]
    assert read_header(ours, whole=True).parents == lineage
    assert json.loads(well("info", theirs, "--json"))["header"]["parents"] == lineage[:1]
    for name, model in (("a", theirs), ("b", ours)):
        well("sample", "-m", model, "-n", "2", "-o", tmp_path / f"{name}.npz")
    a, b = (np.load(tmp_path / f"{name}.npz")["arr_0"] for name in "ab")
    assert np.array_equal(a, b)
    told = cm("convert", ours, "-o", tmp_path / "c", "--to", "diffuser")
    assert (told.code, told.error) == (2, ("unknown format to write 'diffuser'", "did you mean 'diffusers'?"))


def test_the_average_that_a_file_gave_is_named(cm, student, tmp_path):
    state = torch.load(student, weights_only=True)
    torch.save({"model": state, "ema": {name: value + 1 for name, value in state.items()}}, tmp_path / "both.pt")
    options = [*SAID, "--set", "format.kind=consistency", "-n", "1", "-k", "1"]
    told = cm("sample", "-m", tmp_path / "both.pt", *options, "-o", tmp_path / "a.npz")
    assert f"model: {tmp_path / 'both.pt'} (consistency, openai, its average 'ema')" in told.err
    told = cm("sample", "-m", tmp_path / "both.pt", *options, "-o", tmp_path / "b.npz", "--set", "format.ema=false")
    assert f"model: {tmp_path / 'both.pt'} (consistency, openai)" in told.err
