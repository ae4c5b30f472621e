"""A file of every family, from the shell: what it is, our copy of it, images, edits, a student."""

import json
import shlex

import numpy as np
import pytest
import torch
from adm_nets import write as adm
from diffusers_nets import tiny
from edm_nets import magnitudes, song, text
from flax_files import write as flax
from kdiffusion_files import slim, training
from PIL import Image
from score_sde_files import network as ncsnpp
from score_sde_files import write as score_sde

from cmtool.cli import run
from cmtool.commands.information.checkpoints import SCORE_FLAGS
from cmtool.files.checkpoint import digest
from cmtool.files.header import read_header
from cmtool.files.model_files import format_of, parent_record
from cmtool.formats.diffusers_writer import write_diffusers as diffusers
from cmtool.pipelines.sampler_setup import ODE_STEPS

FAMILIES = {
    "openai": lambda at: adm(at),
    "edm": lambda at: pickled(at, song("")),
    "ect": lambda at: pickled(at, song("", "ECMPrecond")),
    "edm2": lambda at: pickled(at, magnitudes("")),
    "score_sde": lambda at: score_sde(at),
    "jcm": lambda at: flax(at, ncsnpp(), target_params={}),
    "diffusers": lambda at: folder(at),
    "kdiffusion": lambda at: slim(at),
    "kdiffusion's training": lambda at: training(at),
}
SAID = {
    "openai": ["--set", "backbone.num_head_channels=16", "--set", "format.side=16", "--set", "format.kind=score"],
    "score_sde": ["--set", "format.side=16"],
    "jcm": ["--set", "format.side=16", "--set", "backbone.attn_resolutions=[8]"],
}
NONCOMMERCIAL = {"edm", "ect", "edm2"}


def pickled(path, net):
    path.write_bytes(text(net))
    return path


def folder(path):
    model = tiny()
    diffusers(path, model.model, model.header)
    return path


@pytest.fixture
def well(capsys, monkeypatch):
    """A command that must succeed, on one thread; what it says on both streams."""
    monkeypatch.setenv("CMTOOL_THREADS", "1")

    def call(*argv):
        assert run([str(word) for word in argv]) == 0, capsys.readouterr().err
        return capsys.readouterr()

    return call


@pytest.fixture(params=FAMILIES)
def file(request, tmp_path):
    """A file of a family, and what must be said of it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return request.param, FAMILIES[request.param](tmp_path / "net"), SAID.get(request.param, [])


def test_a_file_of_every_family(file, well, tmp_path):
    name, path, said = file
    ours, picture = tmp_path / "ours.safetensors", tmp_path / "edited.png"
    assert format_of(path) in (name, "kdiffusion", "edm")
    told = json.loads(well("info", path, *said, "--json").out)
    header = told["header"]

    warning = f"cmtool: warning: {ours} inherits the licence CC BY-NC-SA 4.0: it is not for commercial use"
    assert (warning in well("convert", path, "-o", ours, *said, "--quiet").err) == (name in NONCOMMERCIAL)
    copy = read_header(ours, whole=True)
    lineage = [*header["parents"], {"path": str(path), "sha256": parent_record(path)["sha256"]}]
    assert (copy.parents, copy.licence, copy.parameters) == (lineage, header["licence"], header["parameters"])

    for model, out in ((told["sample"], "a"), (f"cmtool sample --model {ours}", "b")):
        well(*shlex.split(model)[1:], "--steps", "2", "-n", "2", "-o", tmp_path / f"{out}.npz")
    a, b = (np.load(tmp_path / f"{out}.npz")["arr_0"] for out in "ab")
    assert np.array_equal(a, b)

    if header["kind"] == "consistency":
        side = header["data"]["shape"][-1]
        Image.fromarray(np.full((side, side, 3), 99, np.uint8)).save(tmp_path / "grey.png")
        well("edit", "colorize", tmp_path / "grey.png", "-m", path, *said, "-k", "2", "-o", picture)
        with Image.open(picture) as edited:
            assert edited.size == (side, side)
    else:
        student = taught(well, path, said, header, tmp_path)
        assert (student.kind, student.licence) == ("consistency", header["licence"])
        assert student.parents == [{"path": str(path), "sha256": digest(path)}]


def taught(well, path, said, header, tmp_path):
    """A student after ten steps; what it must know of its teacher's file stands beside that."""
    if said:
        keys = [word.split(".", 1)[1].replace("=", ": ") for word in said if "." in word]
        groups = {group: [k for k, w in zip(keys, said[1::2], strict=True) if w.startswith(group)] for group in SETS}
        lines = [f"{group}: {{{', '.join(words)}}}" for group, words in groups.items() if words]
        path.with_name(f"{path.name}.yaml").write_text("\n".join(lines))
    size = ["--set", f"data.size={header['data']['shape'][-1]}"]
    short = ["--images", "80", "--batch", "8", "--snapshots", "0", "--lr", "1e-4", "--warmup", "0", "--quiet"]
    well("distill", "-t", path, *size, "--no-conditional", *short, "--run-dir", tmp_path / "run")
    return read_header(tmp_path / "run" / "model.safetensors", whole=True)


SETS = ("format", "backbone")


def test_info_says_what_it_is_before_it_tells_all(well, tmp_path):
    model = pickled(tmp_path / "net.pkl", song("", "ECMPrecond"))
    ours = tmp_path / "ours.safetensors"
    well("convert", model, "-o", ours)
    assert well("info", ours).out.splitlines()[:6] == [
        "# consistency model for 3x8x8 images: songunet, 48,275 parameters",
        "# noise levels 0.003 to 80; parameterisation: form edm, time log, sigma_data 0.5",
        "# licence: CC BY-NC-SA 4.0, not for commercial use",
        f"# made from {model} ({digest(model)[:12]})",
        f"# sample it with: cmtool sample --model {ours} --steps 2  (at 80, 0.821)",
        "kind: consistency",
    ]
    assert f"--solver heun --steps {ODE_STEPS}" == SCORE_FLAGS
