"""``cmtool search-sigmas`` on a network whose best levels are known, and on tiny ones."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import listing, random_model

from cmtool.commands.console import Console
from cmtool.commands.search_sigmas import confirm
from cmtool.core.denoiser import Denoiser, Preconditioning
from cmtool.core.sigma_schedules import multistep_schedule
from cmtool.evaluation.reference_statistics import write_statistics
from cmtool.evaluation.sigma_search import Trial
from cmtool.evaluation.statistics import Statistics
from cmtool.files.checkpoint import digest, save
from cmtool.files.header import Header, read_header
from cmtool.options import registry

POINTS = ["--features", "points"]
DIGITS = ["--ref", "digits", "--features", "small", "-n", "80"]


@pytest.fixture
def shrinking(tmp_path):
    """A network that says 0, so that a jump is x -> c_skip x, and a Gaussian of 0.5 to compare with.

    From points of variance v, new noise and a jump make v' = c_skip(sigma)^2 (v + sigma^2 - eps^2), where
    c_skip = d^2 / ((sigma - eps)^2 + d^2) and d = sigma_data. It never reaches 0.5^2: the larger, the closer.
    """
    spec = {"name": "mlp", "hidden_dim": 8, "depth": 1}
    net = registry.build("backbones", spec, (2,), 0)
    assert all(not p.any() for p in list(net.parameters())[-2:])
    data = {"name": "gaussian", "shape": [2], "classes": [], "notice": ""}
    model = Denoiser(net, Preconditioning(0.5, 0.002))
    save(tmp_path / "model.safetensors", model, Header("consistency", spec, {}, data, 0, 0.002, 80.0))
    with (tmp_path / "gaussian.npz").open("wb") as file:
        write_statistics(file, Statistics(torch.zeros(2), 0.25 * torch.eye(2)))
    return tmp_path / "model.safetensors", ["--ref", tmp_path / "gaussian.npz", *POINTS]


def variance(levels, eps=0.002, d=0.5):
    """Of a coordinate after jumps from 80 and ``levels``."""
    v = 0.0
    for sigma, floor in ((80.0, 0.0), *((level, eps) for level in levels)):
        v = (d**2 / ((sigma - eps) ** 2 + d**2)) ** 2 * (v + sigma**2 - floor**2)
    return v


def best_by_grid(steps):
    """The levels of the largest variance on a grid of 1% in sigma."""
    grid = np.exp(np.arange(math.log(0.05), math.log(3.0), 0.01))
    first = grid[np.argmax([variance([s]) for s in grid])]
    if steps == 2:
        return [first]
    return [first, grid[np.argmax([variance([first, s]) for s in grid])]]


def test_the_known_best_levels_are_found(well, shrinking, tmp_path):
    """Two steps: sigma = d = 0.5. Three: then sigma^2 = d^2 - 2 v = 0.125, v = 1/16 after the first two (eps = 0)."""
    assert best_by_grid(3) == pytest.approx([0.5, 0.125**0.5], rel=0.02)
    path, against = shrinking
    for steps in (2, 3):
        words = ["--steps", steps, "-n", "500", "--within", "0.02", "--tolerance", "1e-4", *against]
        document = json.loads(well("search-sigmas", path, *words, "-o", tmp_path / f"{steps}.safetensors", "--json"))
        assert document["found"]["sigmas"][0] == 80.0
        assert document["found"]["sigmas"][1:] == pytest.approx(best_by_grid(steps), rel=0.05)
        expected = 2 * (0.5 - variance(best_by_grid(steps)) ** 0.5) ** 2
        assert document["found"]["value"] == pytest.approx(expected, rel=0.1)
        assert document["start"]["sigmas"] == multistep_schedule(steps).tolist()
        assert document["found"]["value"] < document["start"]["value"]
        assert document["metric"] == "FD-points"


@pytest.fixture
def tuned(well, trained, tmp_path):
    """The document of a search at 2 steps, and the folder with the copy."""
    out = tmp_path / "out" / "tuned.safetensors"
    return json.loads(well("search-sigmas", trained["student"], *DIGITS, "--budget", "5", "-o", out, "--json")), out


def test_the_best_measurement_is_stored_in_a_copy(tuned, trained):
    document, out = tuned
    parent = trained["student"] / "model.safetensors"
    before, after = read_header(parent), read_header(out, whole=True)
    assert after.sigmas == document["found"]["sigmas"][1:]
    assert after.parents == [*before.parents, {"path": str(parent), "sha256": digest(parent)}]
    assert (after.sha256, before.sha256) == (document["sha256"], document["model"]["sha256"])
    same = {"sigmas", "parents", "sha256"}
    assert {k: v for k, v in vars(after).items() if k not in same} == {
        k: v for k, v in vars(before).items() if k not in same
    }
    ours, theirs = load_file(out), load_file(parent)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_every_measurement_is_on_record(tuned, fd_of, trained):
    document, out = tuned
    lines = [json.loads(line) for line in out.with_suffix(".trace.jsonl").read_text().splitlines()]
    assert lines == document["trace"]
    assert document["measurements"] == len(lines)
    searched = [line for line in lines if line["seed"] == 0]
    assert len(searched) == 5
    assert {"sigmas": searched[0]["sigmas"], "value": searched[0]["value"]} == document["start"]
    assert document["found"]["value"] == min(line["value"] for line in searched) <= document["start"]["value"]
    assert len({tuple(line["sigmas"]) for line in searched}) == 5
    for line in (lines[1], lines[-1]):
        assert line["value"] == fd_of(trained["student"], line["sigmas"], line["seed"])
    if document["other_noise"]:
        assert [line["seed"] for line in lines[5:]] == [80, 80]
        assert [line["value"] for line in lines[5:]] == [document["other_noise"][key] for key in ("start", "found")]


@pytest.fixture
def fd_of(well):
    """What ``cmtool fid`` says of a model at some levels."""

    def call(model, levels, seed):
        words = ["--sigmas", ",".join(map(repr, levels)), "--seed", seed, "--json"]
        return json.loads(well("fid", model, *DIGITS, *words))["value"]

    return call


def test_samples_are_drawn_at_the_stored_levels(well, tuned, trained, tmp_path):
    """As many steps as were tuned when nothing is asked for; other numbers of steps are what they were."""
    document, out = tuned
    found = document["found"]["sigmas"]
    drawn = json.loads(well("sample", "-m", out, "-n", "4", "-o", tmp_path / "a", "--json"))
    assert (drawn["sigmas"], drawn["nfe"]) == (found, 2)
    well("sample", "-m", trained["student"], "--sigmas", ",".join(map(repr, found)), "-n", "4", "-o", tmp_path / "b")
    a, b = (listing(tmp_path / name) for name in "ab")
    assert a.pop("manifest.jsonl") != b.pop("manifest.jsonl")  # which name the models
    assert a == b
    for steps in (1, 3):
        drawn = json.loads(well("sample", "-m", out, "-n", "1", "-k", steps, "-o", tmp_path / "c", "--json"))
        assert drawn["sigmas"] == multistep_schedule(steps).tolist()


def test_the_search_goes_on_from_stored_levels(well, tuned, tmp_path):
    document, out = tuned
    words = [*DIGITS, "--budget", "1", "-o", tmp_path / "again.safetensors", "--json"]
    again = json.loads(well("search-sigmas", out, *words))
    assert again["start"] == again["found"] == document["found"]
    assert (again["measurements"], again["other_noise"]) == (1, None)
    assert read_header(tmp_path / "again.safetensors").sigmas == read_header(out).sigmas
    other = json.loads(well("search-sigmas", out, "--steps", "3", *words))
    assert other["start"]["sigmas"] == multistep_schedule(3).tolist()


def test_few_images_are_named_and_progress_is_told(cm, tmp_path):
    model = random_model(tmp_path / "random.safetensors", (1, 8, 8))
    out = tmp_path / "t.safetensors"
    told = cm("search-sigmas", model, "--ref", "digits", "--features", "small", "-n", "40", "--within", "2", "-o", out)
    assert told.code == 0, told.err
    lines = (tmp_path / "t.trace.jsonl").read_text().splitlines()
    assert "40 images are too few for 64 features" in told.err
    assert "sigmas  40/240 images" in told.err
    assert "sigmas  240/240 images  measured 6  best " in told.err
    assert f"{len(lines)} measurements: {out}" in told.out


@pytest.mark.parametrize(("values", "warned"), [((2.0, 1.5), False), ((2.0, 2.5), True)])
def test_a_gain_that_other_noise_does_not_confirm_is_named(capsys, values, warned):
    """Of twelve measurements the least is partly luck."""
    asked, answers = [], iter(values)

    class Fake:
        options, trace, update = SimpleNamespace(seed=7, n=50), [0] * 12, None

        def __call__(self, levels, seed):
            asked.append((levels, seed))
            self.update(650)
            return next(answers)

    document = confirm(Fake(), Trial((2.0,), 9.0), Trial((0.8,), 1.0), Console("search-sigmas"))  # type: ignore[arg-type]
    assert document == {"seed": 57, "start": values[0], "found": values[1]}
    assert asked == [((2.0,), 57), ((0.8,), 57)]
    assert ("other noise does not confirm the gain: 2 became 2.5" in capsys.readouterr().err) == warned
