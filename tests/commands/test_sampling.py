"""Every way of sampling from the command line: what it costs, which levels it visits, and what it refuses."""

import json

import numpy as np
import pytest
import torch
from tiny import listing, pixels

import cmtool
from cmtool.core.denoiser import Preconditioning
from cmtool.core.grids import karras
from cmtool.core.noise import STEP, Noise
from cmtool.core.pixels import to_pixels
from cmtool.core.process import EDM, VP
from cmtool.core.samplers import clipped
from cmtool.core.spacings import grid


@pytest.fixture
def drawn(well, tmp_path):
    """The document of ``cmtool sample`` and the files it wrote."""

    def call(model, *argv):
        folder = tmp_path / f"s{len(list(tmp_path.iterdir()))}"
        return json.loads(well("sample", "-m", model, "-o", folder, "--json", *argv)), listing(folder)

    return call


@pytest.mark.parametrize(
    ("words", "evaluations"),
    [
        (["--solver", "euler-maruyama", "--steps", "5"], 5),
        (["--solver", "reverse-diffusion", "--steps", "5", "--process", "vp"], 5),
        (["--solver", "sde-ancestral", "--steps", "5", "--set", "solver.wide=true"], 5),
        (["--solver", "predictor-corrector", "--steps", "5", "--set", "solver.corrections=2"], 15),
        (["--solver", "euler-maruyama", "--steps", "4", "--set", "solver.corrector=ald"], 8),
        (["--solver", "langevin", "--steps", "3", "--set", "solver.each=4"], 17),  # a level more than steps
        (["--solver", "heun", "--steps", "5", "--set", "solver.churn=2"], 9),
        (["--solver", "heun", "--steps", "5", "--process", "vp", "--spacing", "time"], 9),
        (["--solver", "euler-maruyama", "--levels", "80,9,1,0.1"], 3),
    ],
)
def test_a_score_model_takes_every_way_down(drawn, trained, words, evaluations):
    document, files = drawn(trained["teacher"], "-n", "6", *words)
    assert document["evaluations"] == evaluations
    again, same = drawn(trained["teacher"], "-n", "6", "--batch", "1", "--threads", "1", *words)
    assert same == files
    assert len({files[f"{i:08}.png"] for i in range(6)}) == 6
    assert again["levels"] == document["levels"]


def test_evaluations_are_printed(cm, trained, tmp_path):
    told = cm(
        "sample",
        "-m",
        trained["teacher"],
        "-n",
        "2",
        "--solver",
        "predictor-corrector",
        "--steps",
        "4",
        "-o",
        tmp_path / "s",
    )
    assert "2 images, 8 network evaluations each" in told.err


@pytest.mark.parametrize("name", ["karras", "log", "linear", "cosine", "vp", "time"])
def test_levels_are_those_of_the_grid(drawn, trained, name):
    document, _ = drawn(trained["teacher"], "-n", "1", "--spacing", name, "--steps", "4")
    assert document["levels"] == [*grid(name, 4, 0.002, 80.0, EDM()).tolist(), 0.0]


def test_even_times_are_those_of_the_process_asked_for(drawn, trained):
    document, _ = drawn(trained["teacher"], "-n", "1", "--spacing", "time", "--process", "vp", "--steps", "4")
    assert document["levels"][:-1] == pytest.approx(grid("vp", 4, 0.002, 80.0, VP()).tolist())


def test_levels_as_openai_counts_them(drawn, rgb):
    document, files = drawn(rgb, "-n", "2", "--ts", "0,22,39")
    assert document["levels"] == karras(40)[[0, 22]].tolist()
    assert document["levels"][1] == pytest.approx(1.382368, rel=1e-6)  # as published
    assert drawn(rgb, "-n", "2", "--ts", "0,22", "--steps", "40")[1] == files
    assert drawn(rgb, "-n", "2", "--levels", ",".join(map(str, document["levels"])))[1] == files


@pytest.mark.parametrize(("convention", "floor"), [("paper", 0.002), ("openai", 0.002), ("ect", 0.0)])
def test_conventions_of_noise_and_clipping(drawn, rgb, tmp_path, convention, floor):
    drawn(rgb, "--seeds", "5", "--levels", "80,0.0021", "--convention", convention)
    model, noise = cmtool.load(rgb), Noise([5])
    model = clipped(model) if convention == "openai" else model
    x = model(80 * noise.normal((3, 16, 16)), torch.tensor([80.0], dtype=torch.float64), None)
    x = x + (0.0021**2 - floor**2) ** 0.5 * noise.normal((3, 16, 16), STEP + 1)
    x = model(x, torch.tensor([0.0021], dtype=torch.float64), None)
    wanted = to_pixels(x.detach())[0].permute(1, 2, 0).numpy().astype(int)
    assert np.abs(pixels(tmp_path / "s0" / "00000005.png").astype(int) - wanted).max() <= 1


def test_the_process_of_a_model_is_its_own(drawn, trained):
    """The teacher of these tests is EDM's, whose reverse equation visits the Karras levels."""
    assert cmtool.load(trained["teacher"] / "model.safetensors").preconditioning == Preconditioning(0.5)
    document, _ = drawn(trained["teacher"], "-n", "1", "--solver", "euler-maruyama", "--steps", "4")
    assert document["levels"] == pytest.approx(karras(5).tolist())


@pytest.mark.parametrize(
    ("kind", "words", "error", "hint"),
    [
        ("teacher", ["--ts", "0,22,39"], "--ts is about jumps", "cmtool sample --solver heun"),
        ("teacher", ["--convention", "ect"], "--convention is about jumps", "cmtool sample --solver heun"),
        ("student", ["--solver", "langevin"], "--solver is about the walk of a score model", "cmtool sample --steps 2"),
        ("student", ["--spacing", "log", "--steps", "3"], "--spacing is about the walk", "cmtool sample --steps 3"),
        ("student", ["--process", "vp"], "--process is about the walk", "cmtool sample --steps 2"),
        (
            "student",
            ["--ts", "0,22,39", "--steps", "30"],
            "a grid of 30 levels has none with the number 39",
            "--steps 40",
        ),
        ("student", ["--ts", "22,39"], "ts", "the first of them 0"),
        (
            "teacher",
            ["--solver", "unipc", "--process", "vp"],
            "takes its steps in the noise level",
            "leave out --process",
        ),
        ("teacher", ["--spacing", "karas"], "spacing", "karras"),
        ("teacher", ["--solver", "euler-maruyama", "--set", "solver.corrector=mala"], "corrector", "langevin"),
        ("teacher", ["--solver", "predictor-corector"], "unknown solver", "predictor-corrector"),
    ],
)
def test_what_cannot_be_is_refused(cm, trained, tmp_path, kind, words, error, hint):
    told = cm("sample", "-m", trained[kind], "-n", "1", "-o", tmp_path / "s", *words)
    assert told.code == 2
    assert error in told.err
    assert hint in told.err
    assert not (tmp_path / "s").exists()
