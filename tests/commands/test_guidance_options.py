"""Guidance from the command line: what is drawn, what is counted, what is distilled, and what is refused."""

import json
import re

import numpy as np
import pytest
import torch
from tiny import NETWORK, SHORT, TINY, random_model

from cmtool.core.denoiser import broadcast_like, ode_field
from cmtool.core.guidance import Guided, Unlabelled
from cmtool.core.solvers import euler
from cmtool.files.checkpoint import load as load_model
from cmtool.files.header import read_header
from cmtool.options.load import load_options
from cmtool.pipelines import sampling_pipeline
from cmtool.pipelines.training_job import build_training
from cmtool.settings import DistillOptions

DIGITS = ["-d", "digits"]
DRAW = ["-n", "3", "--steps", "3", "--solver", "heun"]  # 5 evaluations, at levels 80, 2.5 twice and 0.002 twice


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Random networks, and what each may be used for."""
    root = tmp_path_factory.mktemp("models")
    made = {
        "classes": (1, 2, "score"),
        "plain": (1, 0, "score"),
        "weak": (1, 0, "score"),
        "jump": (1, 2, "consistency"),
    }
    made |= {"colour": (3, 0, "score"), "many": (1, 5, "score")}
    for name, (channels, classes, kind) in made.items():
        random_model(root / f"{name}.safetensors", (channels, 8, 8), classes, kind)
    return root


@pytest.fixture(scope="module")
def dropped(tmp_path_factory):
    """A teacher that has met digits without their class."""
    from cmtool.cli import run

    folder = tmp_path_factory.mktemp("dropped") / "run"
    told = [
        "train-score",
        *DIGITS,
        *TINY,
        "--label-dropout",
        "0.3",
        "--run-dir",
        str(folder),
        "--threads",
        "1",
        "--quiet",
    ]
    assert run(told) == 0
    return folder


@pytest.fixture
def drawn(well, tmp_path):
    """The images that ``cmtool sample`` draws, and its document."""

    def call(*argv):
        document = json.loads(well("sample", *DRAW, "-o", tmp_path / "made.npz", "--json", *argv))
        return np.load(tmp_path / "made.npz")["arr_0"], document

    return call


def test_at_weight_one_nothing_changes(drawn, models):
    plain, document = drawn("-m", models / "classes.safetensors")
    same, again = drawn("-m", models / "classes.safetensors", "--guidance", "1")
    assert np.array_equal(plain, same)
    assert document["guidance"] is again["guidance"] is None
    assert document["nfe"] == again["nfe"] == 5


@pytest.mark.parametrize(("interval", "made"), [(None, 10), ("1,10", 7), ("0.001,10", 9), ("10,80", 6)])
def test_the_evaluations_that_are_told_are_those_of_the_network(cm, models, monkeypatch, tmp_path, interval, made):
    """Counted on the network itself, which sees its images in pieces of one size."""
    seen, size, load = [], 64, sampling_pipeline.in_fixed_batches

    def watched(model, *rest):
        model.model.net.register_forward_pre_hook(lambda net, given: seen.append(len(given[0])))
        return load(model, *rest)

    monkeypatch.setattr(sampling_pipeline, "in_fixed_batches", watched)
    argv = ["sample", *DRAW, "-m", models / "classes.safetensors", "--guidance", "2", "-o", tmp_path / "o.npz"]
    told = cm(*argv, *(["--guidance-interval", interval] if interval else []), "--json")
    assert f"3 images, {made} NFE each" in told.err
    assert json.loads(told.out)["nfe"] == made
    assert set(seen) == {size}
    assert len(seen) == made


def test_the_picture_is_that_of_the_formula(drawn, models):
    """One Euler step from the highest level to 0 is the guided denoiser itself."""
    from cmtool.core.noise import Noise
    from cmtool.core.pixels import to_pixels

    model = load_model(models / "classes.safetensors").model.requires_grad_(False)
    argv = ["-m", models / "classes.safetensors", "--seeds", "0-2", "--sigmas", "80", "--steps", "1"]
    made, _ = drawn(*argv, "--guidance", "3")
    x, sigma = 80 * Noise(range(3)).normal((1, 8, 8)), torch.tensor(80.0)
    with torch.no_grad():
        free, known = model(x, sigma), model(x, sigma, torch.arange(3) % 2)
    expected = to_pixels(free + 3 * (known - free)).permute(0, 2, 3, 1).numpy()
    assert np.abs(made.reshape(expected.shape).astype(int) - expected.astype(int)).max() <= 1


def test_another_network_guides_one_without_classes(drawn, models):
    plain, _ = drawn("-m", models / "plain.safetensors")
    weak = models / "weak.safetensors"
    same, document = drawn("-m", models / "plain.safetensors", "--guidance", "2", "--guidance-model", weak)
    assert np.array_equal(plain, same), "the guide is a copy of the model, so there is nothing to be pushed away from"
    assert document["nfe"] == 10
    assert document["guidance"] == {"weight": 2.0, "interval": None, "guide": str(weak)}
    other, _ = drawn("-m", models / "classes.safetensors", "--guidance", "2", "--guidance-model", weak)
    assert not np.array_equal(other, plain)


def test_interp_and_fid_are_guided_too(well, models, tmp_path):
    model = ["-m", models / "classes.safetensors", "--steps", "2"]
    document = json.loads(well("interp", "3", "7", *model, "--guidance", "2", "-o", tmp_path / "a.png", "--json"))
    assert document["nfe"] == 6
    argv = [models / "classes.safetensors", "--ref", "digits", "--features", "small", "-n", "16", "--steps", "1"]
    plain, guided = (json.loads(well("fid", *argv, *more, "--json")) for more in ([], ["--guidance", "4"]))
    assert plain["value"] != guided["value"]


def test_dropping_is_in_the_file_and_silences_the_warning(cm, trained, dropped, tmp_path):
    assert read_header(dropped / "model.safetensors").options["label_dropout"] == 0.3
    draw = ["sample", *DRAW, "--guidance", "2"]
    warned = cm(*draw, "-m", trained["teacher"], "-o", tmp_path / "warned.npz")
    quiet = cm(*draw, "-m", dropped, "-o", tmp_path / "quiet.npz")
    assert warned.code == quiet.code == 0
    assert "warning" in warned.err and "--label-dropout 0.1" in warned.err
    assert "warning" not in quiet.err


def test_every_training_command_drops_labels(well, dropped, tmp_path):
    short = [*DIGITS, *SHORT, "--label-dropout", "0.2"]
    well("train-ct", *short, *NETWORK, "--run-dir", tmp_path / "ct")
    well("distill", *short, "-t", dropped, "--run-dir", tmp_path / "cd")
    assert [read_header(tmp_path / name / "model.safetensors").options["label_dropout"] for name in ("ct", "cd")] == [
        0.2
    ] * 2


def test_the_step_back_of_a_student_is_that_of_the_guided_teacher(dropped):
    """Distilled are exactly the walks of ``Guided``: in the interval those of the blend, elsewhere of the teacher."""
    flags = {"teacher": str(dropped), "data": "digits", "guidance": "3", "guidance_interval": "0.5,20"}
    job = build_training(load_options(DistillOptions, flags, environment={}), torch.device("cpu"))
    teacher = load_model(dropped / "model.safetensors").model.requires_grad_(False)
    batch = job.batches.at(0)
    t, r = job.state.objective.pair(batch.u, 0.0)
    x_t = batch.x + broadcast_like(t, batch.x) * batch.z
    expected = euler()(ode_field(Guided(teacher, Unlabelled(teacher), 3.0, (0.5, 20.0)), batch.labels), x_t, t, r)
    found = job.state.objective.previous_point(x_t, batch, t, r)
    assert torch.equal(found, expected)
    plain = euler()(ode_field(teacher, batch.labels), x_t, t, r)
    outside = (t <= 0.5) | (r > 20)
    assert outside.any() and not outside.all()
    torch.testing.assert_close(found[outside], plain[outside])
    assert ((found - plain).flatten(1).abs().amax(1) > 1e-3)[~outside & (t > 1)].all()
    assert all(key.startswith("teacher.") for key in job.state.objective.state_dict() if "target" not in key)


def test_a_student_of_a_guided_teacher_knows_its_parents_and_can_be_resumed(stopped, well, dropped, tmp_path):
    weak = random_model(tmp_path / "weak.safetensors", (1, 8, 8), 10, "score")
    argv = ["distill", *DIGITS, *SHORT, "-t", dropped, "--guidance", "2", "--guidance-model", weak]
    assert stopped(*argv, name="cut").code == 130
    well(*argv, "--run-dir", tmp_path / "whole")
    well(*argv, "--resume", tmp_path / "cut")
    cut, whole = (tmp_path / name / "model.safetensors" for name in ("cut", "whole"))
    header = read_header(whole)
    assert [parent["path"] for parent in header.parents] == [str(dropped / "model.safetensors"), str(weak)]
    assert header.options["guidance"] == 2.0
    assert load_equal(cut, whole)


def load_equal(one, two):
    pairs = zip(load_model(one).model.parameters(), load_model(two).model.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


REFUSED = {
    "sample -m jump --guidance 2": ("*consistency model, whose steps are not linear*", "*distill*--guidance 2*"),
    "sample -m plain --guidance 2": ("*trained without classes*", "*--guidance 2 --guidance-model WEAK*"),
    "sample -m plain --guidance-model weak": ("--guidance-model does nothing while*", "add --guidance 2, say"),
    "sample -m plain --guidance-interval 1,2": ("--guidance-interval does nothing while*", "*"),
    "sample -m classes --guidance 2 --guidance-model jump": ("*only a score model can guide", "*"),
    "sample -m classes --guidance 2 --guidance-model colour": ("*makes 3x8x8 images, and *makes 1x8x8", "*"),
    "sample -m classes --guidance 2 --guidance-model many": ("*knows 5 classes, and *knows 2", "*"),
    "sample -m plain --guidance 2 --guidance-model classes": ("*knows 2 classes, and *knows none", "*"),
    "sample -m classes --guidance -1": ("--guidance must be at least 0, not -1*", ""),
    "sample -m classes --guidance 2 --guidance-interval 5,1": ("--guidance-interval must be two numbers*", ""),
    "sample -m classes --guidance 2 --guidance-interval 5": ("--guidance-interval must be two numbers*", ""),
    "distill -t teacher -d digits --guidance 2": (
        "*arbitrary",
        "train it with --label-dropout 0.1, or *--guidance-model FILE",
    ),
    "train-score -d digits --no-conditional --label-dropout 0.1": ("there are no labels to drop*", "leave out*"),
    "train-score -d digits --label-dropout 1.5": ("--label-dropout must be from 0 to 1, not 1.5", ""),
}


@pytest.mark.parametrize("argv", REFUSED)
def test_what_cannot_be_is_refused_with_what_would_work(cm, models, trained, tmp_path, monkeypatch, argv):
    monkeypatch.chdir(tmp_path)
    files = {path.stem: path for path in models.iterdir()} | {"teacher": trained["teacher"]}
    told = cm(*(files.get(word, word) for word in argv.split()))
    assert told.code == 2
    for found, wanted in zip(told.error, REFUSED[argv], strict=True):
        assert re.fullmatch(re.escape(wanted).replace(r"\*", ".*"), found), found
    assert not list(tmp_path.iterdir())
