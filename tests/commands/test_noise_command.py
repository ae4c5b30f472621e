"""``sample --noise``: published programs, written out by hand with torch's generators, and the same images."""

import json
import math

import numpy as np
import pytest
import torch
from tiny import pixels, random_model

import cmtool
from cmtool.core.pixels import to_pixels, truncate_to_pixels
from cmtool.core.sigma_schedules import append_zero, karras


@pytest.fixture(scope="module")
def consistency(tmp_path_factory):
    return random_model(tmp_path_factory.mktemp("models") / "cm.safetensors", (3, 8, 8), classes=4)


@pytest.fixture(scope="module")
def score(tmp_path_factory):
    return random_model(tmp_path_factory.mktemp("models") / "score.safetensors", (3, 8, 8), classes=4, kind="score")


def drawn(folder, n):
    return np.stack([pixels(folder / f"{i:08}.png") for i in range(n)])


def alike(images, x):
    """To one grey level: the network may round differently beside other images."""
    return np.abs(images.astype(int) - x.permute(0, 2, 3, 1).numpy().astype(int)).max() <= 1


@torch.no_grad()
def edm(model, seeds, steps=5, churn=2.0):
    """Algorithm 2 of Karras et al. 2022 in double precision, with a generator for each image."""
    hands = [torch.Generator().manual_seed(seed) for seed in seeds]
    x = torch.stack([torch.randn(3, 8, 8, generator=g) for g in hands]).double()
    labels = torch.stack([torch.randint(4, (), generator=g) for g in hands])
    t = append_zero(karras(steps))
    x = x * t[0]
    for k in range(steps):
        z = torch.stack([torch.randn(3, 8, 8, generator=g, dtype=torch.float64) for g in hands])
        gamma = min(churn / steps, math.sqrt(2) - 1) if 0.05 <= t[k] <= 50 else 0.0
        high = t[k] * (1 + gamma)
        x = x + (high**2 - t[k] ** 2).sqrt() * 1.003 * z
        slope = (x - model(x, high.expand(len(x)), labels)) / high
        end = x + (t[k + 1] - high) * slope
        if t[k + 1] > 0:
            at_end = (end - model(end, t[k + 1].expand(len(x)), labels)) / t[k + 1]
            end = x + (t[k + 1] - high) * (slope + at_end) / 2
        x = end
    return to_pixels(x), labels


@pytest.mark.parametrize("batch", [1, 3])
def test_edms_images_by_seed_whatever_the_batch(well, score, tmp_path, batch):
    churn = ["churn=2", "churn_min=0.05", "churn_max=50", "churn_noise=1.003"]
    sets = [word for one in churn for word in ("--set", f"solver.{one}")]
    words = ["sample", "-m", score, "-n", "5", "--steps", "5", "--solver", "heun", *sets, "--noise", "edm"]
    well(*words, "--batch", batch, "-o", tmp_path / "s")
    x, labels = edm(cmtool.load(score), range(5))
    assert alike(drawn(tmp_path / "s", 5), x)
    assert not alike(drawn(tmp_path / "s", 5), edm(cmtool.load(score), range(1, 6))[0])
    given = dict(json.loads((tmp_path / "s" / "dataset.json").read_text())["labels"])
    assert [given[f"{i:08}.png"] for i in range(5)] == labels.tolist()


def test_a_class_that_is_given_leaves_edms_noise_as_it_is(well, score, tmp_path):
    _, labels = edm(cmtool.load(score), [2])
    words = ["sample", "-m", score, "--seeds", "2", "--steps", "5", "--noise", "edm", "--set", "solver.churn=2"]
    well(*words, "-o", tmp_path / "a")
    well(*words, "--class", int(labels), "-o", tmp_path / "b")
    assert np.array_equal(pixels(tmp_path / "a" / "00000002.png"), pixels(tmp_path / "b" / "00000002.png"))


@torch.no_grad()
def openai(model, labels, n, batch, levels, seed, individual):
    """Their program on one process: all batches have the rows 0 to B - 1 of every draw, of the latest generators."""
    shared = torch.Generator().manual_seed(seed)
    own = [torch.Generator().manual_seed(i + n * seed) for i in range(n)]

    def draw():
        if individual:
            return torch.stack([torch.randn(3, 8, 8, generator=own[i]) for i in range(batch)])
        return torch.randn(n, 3, 8, 8, generator=shared)[:batch]

    images = []
    while len(images) * batch < n:
        y = labels[len(images) * batch :][:batch]
        y = torch.cat([y, y.new_zeros(batch - len(y))])
        x = levels[0].float() * draw()
        for k, sigma in enumerate(levels):
            x = model(x, sigma.expand(batch), y).clamp(-1, 1)
            after = levels[k + 1] if k + 1 < len(levels) else torch.tensor(0.002, dtype=torch.float64)
            if len(levels) > 1:
                x = x + (after**2 - 0.002**2).sqrt().float() * draw()
        images.append(truncate_to_pixels(x))
    return torch.cat(images)[:n]


@pytest.mark.parametrize("name", ["openai", "openai-indiv"])
@pytest.mark.parametrize(("words", "places"), [(["--ts", "0,22,39"], [0, 22]), (["--steps", "1"], [0])])
def test_openais_images_by_run(well, consistency, tmp_path, name, words, places):
    labels = torch.tensor([3, 0, 1, 1, 2])
    (tmp_path / "classes.txt").write_text("\n".join(map(str, labels.tolist())))
    run = ["--convention", "openai", "-n", "5", "--batch", "2", "--seed", "42", "--classes", tmp_path / "classes.txt"]
    command = ["sample", "-m", consistency, *words, *run, "--noise", name]
    well(*command, "-o", tmp_path / "s")
    wanted = openai(cmtool.load(consistency), labels, 5, 2, karras(40)[places], 42, name == "openai-indiv")
    assert alike(drawn(tmp_path / "s", 5), wanted)
    whole = drawn(tmp_path / "s", 5)
    other = openai(cmtool.load(consistency), labels, 5, 2, karras(40)[places], 43, name == "openai-indiv")
    assert not alike(whole, other)

    (tmp_path / "s" / "00000003.png").unlink()  # in the middle of a batch
    document = json.loads(well(*command, "-o", tmp_path / "s", "--json"))
    assert (document["made"], document["nfe"]) == (1, len(places))
    assert np.array_equal(drawn(tmp_path / "s", 5), whole)
    well(*command, "--shard", "2/2", "-o", tmp_path / "part")
    assert np.array_equal(pixels(tmp_path / "part" / "00000004.png"), whole[4])


def test_openais_score_models_draw_once_a_step_and_are_clipped(well, score, tmp_path):
    words = ["--solver", "ancestral", "--steps", "3", "--convention", "openai", "--class", "1"]
    well("sample", "-m", score, *words, "-n", "4", "--batch", "2", "--noise", "openai", "-o", tmp_path / "s")
    model, hand, images = cmtool.load(score), torch.Generator().manual_seed(0), []
    t = append_zero(karras(3))
    with torch.no_grad():
        for _ in range(2):
            x = 80 * torch.randn(4, 3, 8, 8, generator=hand)[:2]
            for k in range(3):
                clean = model(x, t[k].expand(2), torch.tensor([1, 1])).clamp(-1, 1)
                up = (t[k + 1] ** 2 * (t[k] ** 2 - t[k + 1] ** 2) / t[k] ** 2).sqrt()
                down = (t[k + 1] ** 2 - up**2).sqrt()
                x = x + ((down - t[k]) / t[k]).float() * (x - clean)
                x = x + up.float() * torch.randn(4, 3, 8, 8, generator=hand)[:2]
            images.append(truncate_to_pixels(x))
    assert alike(drawn(tmp_path / "s", 4), torch.cat(images))


@pytest.mark.parametrize(
    ("kind", "words", "error", "hint"),
    [
        ("cm", ["--noise", "openai"], "depend on its batch", "--batch 16"),
        ("cm", ["--noise", "openai", "--batch", "3"], "not of 3", "--batch 2"),
        ("cm", ["--noise", "openai", "--batch", "2", "--seeds", "1,2"], "from one seed", "-n and the --seed"),
        ("cm", ["--noise", "nvidia"], "--noise must be one of cmtool, edm", ""),
        ("score", ["--noise", "openai", "--batch", "2", "--solver", "unipc"], "no solver unipc", "heun"),
        ("score", ["--noise", "edm", "--sampler", "langevin"], "is for ODE solvers and consistency", "leave it out"),
        ("score", ["--sampler", "langevin", "--convention", "openai"], "--sampler takes none", "leave it out"),
    ],
)
def test_what_no_program_drew_is_refused(cm, consistency, score, tmp_path, kind, words, error, hint):
    model = {"cm": consistency, "score": score}[kind]
    told = cm("sample", "-m", model, "-n", "2", "-o", tmp_path / "s", *words)
    assert told.code == 2 and error in told.err and hint in told.err, told.err
    assert not (tmp_path / "s").exists()
