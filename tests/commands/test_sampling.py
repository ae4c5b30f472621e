"""Every way of sampling from the command line: what it costs, which levels it visits, and what it refuses."""

import json

import numpy as np
import pytest
import torch
from tiny import listing, pixels

import cmtool
from cmtool.core.denoiser import Preconditioning
from cmtool.core.named_schedules import sigma_schedule
from cmtool.core.noise import STEP, Noise
from cmtool.core.pixels import to_pixels
from cmtool.core.process import EDM, VP
from cmtool.core.sampling.loops import clip_denoised
from cmtool.core.sigma_schedules import karras


@pytest.fixture
def drawn(well, tmp_path):
    """The document of ``cmtool sample`` and the files it wrote."""

    def call(model, *argv):
        folder = tmp_path / f"s{len(list(tmp_path.iterdir()))}"
        return json.loads(well("sample", "-m", model, "-o", folder, "--json", *argv)), listing(folder)

    return call


@pytest.mark.parametrize(
    ("words", "nfe"),
    [
        (["--sampler", "euler-maruyama", "--steps", "5"], 5),
        (["--sampler", "reverse-diffusion", "--steps", "5", "--process", "vp"], 5),
        (["--sampler", "sde-ancestral", "--steps", "5", "--set", "sampler.wide=true"], 5),
        (["--sampler", "predictor-corrector", "--steps", "5", "--set", "sampler.corrections=2"], 15),
        (["--sampler", "euler-maruyama", "--steps", "4", "--set", "sampler.corrector=ald"], 8),
        (["--sampler", "langevin", "--steps", "3", "--set", "sampler.each=4"], 17),  # a level more than steps
        (["--solver", "heun", "--steps", "5", "--set", "solver.churn=2"], 9),
        (["--solver", "heun", "--steps", "5", "--process", "vp", "--schedule", "time"], 9),
        (["--sampler", "euler-maruyama", "--sigmas", "80,9,1,0.1"], 3),
    ],
)
def test_a_score_model_takes_every_way_down(drawn, trained, words, nfe):
    document, files = drawn(trained["teacher"], "-n", "6", *words)
    assert document["nfe"] == nfe
    again, same = drawn(trained["teacher"], "-n", "6", "--batch", "1", "--threads", "1", *words)
    assert same == files
    assert len({files[f"{i:08}.png"] for i in range(6)}) == 6
    assert again["sigmas"] == document["sigmas"]


def test_nfe_is_printed(cm, trained, tmp_path):
    told = cm(
        "sample",
        "-m",
        trained["teacher"],
        "-n",
        "2",
        "--sampler",
        "predictor-corrector",
        "--steps",
        "4",
        "-o",
        tmp_path / "s",
    )
    assert "2 images, 8 NFE each" in told.err


@pytest.mark.parametrize("name", ["karras", "log", "linear", "cosine", "vp", "time"])
def test_levels_are_those_of_the_grid(drawn, trained, name):
    document, _ = drawn(trained["teacher"], "-n", "1", "--schedule", name, "--steps", "4")
    assert document["sigmas"] == [*sigma_schedule(name, 4, 0.002, 80.0, EDM()).tolist(), 0.0]


def test_even_times_are_those_of_the_process_asked_for(drawn, trained):
    document, _ = drawn(trained["teacher"], "-n", "1", "--schedule", "time", "--process", "vp", "--steps", "4")
    assert document["sigmas"][:-1] == pytest.approx(sigma_schedule("vp", 4, 0.002, 80.0, VP()).tolist())


def test_levels_as_openai_counts_them(drawn, rgb):
    document, files = drawn(rgb, "-n", "2", "--ts", "0,22,39")
    assert document["sigmas"] == karras(40)[[0, 22]].tolist()
    assert document["sigmas"][1] == pytest.approx(1.382368, rel=1e-6)  # as published
    assert drawn(rgb, "-n", "2", "--ts", "0,22", "--steps", "40")[1] == files
    assert drawn(rgb, "-n", "2", "--sigmas", ",".join(map(str, document["sigmas"])))[1] == files


@pytest.mark.parametrize(("ts", "n"), [("0,106,200", 201), ("0,62,150", 151), ("0,39", 40)])
def test_the_grid_that_openai_counts_on_is_said(drawn, rgb, cm, tmp_path, ts, n):
    places = [int(i) for i in ts.split(",")]
    told = cm("sample", "-m", rgb, "-n", "1", "--ts", ts, "-o", tmp_path / "said")
    assert f"on the Karras schedule of {n} sigmas" in told.err
    document, _ = drawn(rgb, "-n", "1", "--ts", ts)
    assert document["sigmas"] == karras(n)[places[:-1]].tolist()


def test_numbers_of_no_grid_of_openai_are_asked_about(cm, rgb):
    told = cm("sample", "-m", rgb, "-n", "1", "--ts", "0,22")
    assert told.code == 2 and "does not say of which schedule" in told.err and "--steps 40" in told.err


def test_options_of_process_and_spacing(drawn, trained):
    """Karras et al.'s ablations: any schedule with any scaling and any discretisation."""
    teacher = trained["teacher"]
    document, _ = drawn(teacher, "-n", "1", "--steps", "4", "--set", "schedule.rho=3")
    assert document["sigmas"][:-1] == karras(4, rho=3.0).tolist()
    spaced = ["--schedule", "vp", "--set", "schedule.start=0.001", "--set", "schedule.sigma_max=50"]
    walked = ["--process", "sqrt", "--set", "process.scaling=vp", "--solver", "euler"]
    document, files = drawn(teacher, "-n", "1", "--steps", "4", *spaced, *walked)
    times = torch.linspace(1, 1e-3, 4, dtype=torch.float64)
    assert document["sigmas"][:-1] == pytest.approx(VP.spanning(0.002, 50.0, 1e-3).sigma(times).tolist())
    _, others = drawn(teacher, "-n", "1", "--steps", "4", *spaced, "--solver", "euler")
    assert others != files
    betas = ["--process", "vp", "--set", "process.beta_max=15", "--schedule", "time"]
    document, _ = drawn(teacher, "-n", "1", "--steps", "4", *betas, "--sampler", "euler-maruyama")
    ends = VP(0.1, 15.0).time(torch.tensor([80.0, 0.002], dtype=torch.float64))
    times = torch.linspace(float(ends[0]), float(ends[1]), 5, dtype=torch.float64)
    assert document["sigmas"] == pytest.approx(VP(0.1, 15.0).sigma(times).tolist())


def test_a_corrector_alone(cm, trained, tmp_path):
    solver = ["--sampler", "predictor-corrector", "--set", "sampler.predictor=none", "--set", "sampler.corrector=ald"]
    told = cm("sample", "-m", trained["teacher"], "-n", "1", "--steps", "3", *solver, "-o", tmp_path / "s")
    assert told.code == 0, told.err
    told = cm("sample", "-m", trained["teacher"], "-n", "1", *solver, "--set", "sampler.corrector=none")
    assert told.code == 2 and "goes nowhere" in told.err


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--set", "schedule.rh=3"], "unknown option of sigma schedule 'karras' 'rh'"),
        (["--set", "schedule.sigma_max=100"], "the model knows noise levels from 0.002 to 80"),
        (["--process", "vp", "--set", "process.beta_max=-1"], "not from 0.1 to -1"),
        (["--process", "vpp"], "unknown process 'vpp'"),
        (["--set", "process.name=vpp"], "unknown process 'vpp'"),
    ],
)
def test_options_that_no_process_or_spacing_has(cm, trained, words, error):
    told = cm("sample", "-m", trained["teacher"], "-n", "1", *words)
    assert told.code == 2 and error in told.err, told.err


@pytest.mark.parametrize(("convention", "floor"), [("paper", 0.002), ("openai", 0.002), ("ect", 0.0)])
def test_conventions_of_noise_and_clipping(drawn, rgb, tmp_path, convention, floor):
    drawn(rgb, "--seeds", "5", "--sigmas", "80,0.0021", "--convention", convention)
    model, noise = cmtool.load(rgb), Noise([5])
    model = clip_denoised(model) if convention == "openai" else model
    x = model(80 * noise.normal((3, 16, 16)), torch.tensor([80.0], dtype=torch.float64), None)
    x = x + (0.0021**2 - floor**2) ** 0.5 * noise.normal((3, 16, 16), STEP + 1)
    x = model(x, torch.tensor([0.0021], dtype=torch.float64), None)
    wanted = to_pixels(x.detach())[0].permute(1, 2, 0).numpy().astype(int)
    assert np.abs(pixels(tmp_path / "s0" / "00000005.png").astype(int) - wanted).max() <= 1


def test_the_process_of_a_model_is_its_own(drawn, trained):
    """The teacher of these tests is EDM's, whose reverse equation visits the Karras levels."""
    assert cmtool.load(trained["teacher"] / "model.safetensors").model.preconditioning == Preconditioning(0.5)
    document, _ = drawn(trained["teacher"], "-n", "1", "--sampler", "euler-maruyama", "--steps", "4")
    assert document["sigmas"] == pytest.approx(karras(5).tolist())


@pytest.mark.parametrize(
    ("kind", "words", "error", "hint"),
    [
        ("teacher", ["--ts", "0,22,39"], "--ts is for consistency models", "cmtool sample --solver heun"),
        ("teacher", ["--convention", "ect"], "--convention is for consistency models", "cmtool sample --solver heun"),
        ("student", ["--sampler", "langevin"], "--sampler is for score models", "cmtool sample --steps 2"),
        ("student", ["--schedule", "log", "--steps", "3"], "--schedule is for score models", "cmtool sample --steps 3"),
        ("student", ["--process", "vp"], "--process is for score models", "cmtool sample --steps 2"),
        (
            "student",
            ["--ts", "0,22,39", "--steps", "30"],
            "a Karras schedule of 30 sigmas has none with the index 39",
            "--steps 40",
        ),
        ("student", ["--ts", "22,39"], "ts", "the first of them 0"),
        (
            "teacher",
            ["--solver", "unipc", "--process", "vp"],
            "takes its steps in the noise level",
            "leave out --process",
        ),
        ("teacher", ["--schedule", "karas"], "schedule", "karras"),
        ("teacher", ["--sampler", "euler-maruyama", "--set", "sampler.corrector=mala"], "corrector", "langevin"),
        (
            "teacher",
            ["--solver", "heun", "--sampler", "langevin"],
            "--sampler langevin does not",
            "give one of them",
        ),
        ("teacher", ["--solver", "langevin"], "unknown solver 'langevin'", "it is a sampler: --sampler langevin"),
        ("teacher", ["--sampler", "predictor-corector"], "unknown sampler", "predictor-corrector"),
    ],
)
def test_what_cannot_be_is_refused(cm, trained, tmp_path, kind, words, error, hint):
    told = cm("sample", "-m", trained[kind], "-n", "1", "-o", tmp_path / "s", *words)
    assert told.code == 2
    assert error in told.err
    assert hint in told.err
    assert not (tmp_path / "s").exists()
