import io
import json
import sys
import tarfile
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import listing, pixels, random_model

import cmtool
from cmtool.bundled import bundled
from cmtool.core.noise import START, STEP, Noise
from cmtool.core.pixels import to_pixels
from cmtool.core.sampling.loops import CountNFE, last, probability_flow
from cmtool.core.sigma_schedules import append_zero, karras
from cmtool.core.solvers import heun
from cmtool.core.solvers.adaptive import rk45
from cmtool.files.picture_files import draw_text


@pytest.fixture
def sampled(well, tmp_path):
    """The files, by name, that ``cmtool sample`` writes with these words."""

    def call(model, *argv):
        folder = tmp_path / f"samples{len(list(tmp_path.iterdir()))}"
        well("sample", "-m", model, "-o", folder, *argv)
        return listing(folder)

    return call


def level(path, expected):
    """The largest difference in grey levels; the network may round differently beside other images."""
    return np.abs(pixels(path).astype(int) - np.asarray(expected).astype(int)).max()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("batch", [1, 7, 100])
def test_files_are_the_same_at_every_batch_and_number_of_threads(sampled, rgb, batch, threads):
    whole = sampled(rgb, "--seeds", "0-99", "--steps", "2")
    assert len(whole) == 101  # and a manifest
    some = sampled(rgb, "--seeds", "0-99", "--steps", "2", "--batch", batch, "--threads", threads)
    assert some == whole


def test_an_image_depends_on_its_seed_alone(sampled, trained):
    whole = sampled(trained["student"], "-n", "40")
    some = sampled(trained["student"], "--seeds", "3,17,30-33")
    assert sorted(some) == [
        "00000003.png",
        "00000017.png",
        *(f"{i:08}.png" for i in range(30, 34)),
        "dataset.json",
        "manifest.jsonl",
    ]
    assert all(some[name] == whole[name] for name in some if name.endswith(".png"))
    assert len(set(whole.values())) == 42
    assert sampled(trained["student"], "-n", "4", "--seed", "30")["00000032.png"] == whole["00000032.png"]


def test_one_step_is_one_jump(well, trained, tmp_path):
    document = json.loads(well("sample", "-m", trained["student"], "--seeds", "5", "-o", tmp_path / "s", "--json"))
    model = cmtool.load(trained["student"] / "model.safetensors")
    sigma = torch.tensor([80.0], dtype=torch.float64)
    z = Noise([5]).normal((1, 8, 8), START)
    image = to_pixels(model(80 * z, sigma, torch.tensor([5])).detach())
    assert level(tmp_path / "s" / "00000005.png", image[0, 0]) <= 1
    assert (document["images"], document["nfe"], document["sigmas"]) == (1, 1, [80.0])
    assert document["model"]["kind"] == "consistency"


def test_two_steps_are_two_jumps_with_noise_between(well, rgb, tmp_path):
    well("sample", "-m", rgb, "--seeds", "5", "--sigmas", "80,0.8", "-o", tmp_path / "s")
    model = cmtool.load(rgb)
    noise = Noise([5])
    high, low = (torch.tensor([x], dtype=torch.float64) for x in (80.0, 0.8))
    x = model(80 * noise.normal((3, 16, 16), START), high)
    x = model(x + (0.8**2 - 0.002**2) ** 0.5 * noise.normal((3, 16, 16), STEP + 1), low)
    assert level(tmp_path / "s" / "00000005.png", to_pixels(x.detach())[0].permute(1, 2, 0)) <= 1


def test_a_score_model_walks_the_ode(well, trained, tmp_path):
    document = json.loads(well("sample", "-m", trained["teacher"], "--seeds", "5", "-o", tmp_path / "s", "--json"))
    model = cmtool.load(trained["teacher"] / "model.safetensors")
    x = 80 * Noise([5]).normal((1, 8, 8), START)
    x = last(probability_flow(model, x, append_zero(karras(18)), heun(), torch.tensor([5])))
    assert level(tmp_path / "s" / "00000005.png", to_pixels(x)[0, 0]) <= 1
    assert (document["nfe"], len(document["sigmas"])) == (35, 19)
    euler = json.loads(
        well("sample", "-m", trained["teacher"], "-n", "1", "-k", "5", "--solver", "euler", "-o", tmp_path, "--json")
    )
    assert euler["nfe"] == 5


def test_folder_npz_tar_and_pipe_hold_the_same(well, trained, tmp_path, monkeypatch):
    words = ["sample", "-m", trained["tuned"], "--seeds", "2-21", "--batch", "8"]
    for output in ("folder", "x.npz", "x.tar"):
        assert well(*words, "-o", tmp_path / output) == f"{tmp_path / output}\n"
    stdout = types.SimpleNamespace(buffer=io.BytesIO(), isatty=lambda: False, flush=lambda: None)
    monkeypatch.setattr(sys, "stdout", stdout)
    well(*words, "-o", "-")
    piped = stdout.buffer.getvalue()
    assert piped == (tmp_path / "x.tar").read_bytes()

    with np.load(tmp_path / "x.npz") as archive:
        images, labels = archive["arr_0"], archive["arr_1"]
    assert (images.shape, images.dtype) == ((20, 8, 8, 1), np.uint8)
    assert labels.tolist() == [seed % 10 for seed in range(2, 22)]
    given = dict(json.loads((tmp_path / "folder" / "dataset.json").read_text())["labels"])
    with tarfile.open(tmp_path / "x.tar") as tar:
        for seed, image, label in zip(range(2, 22), images, labels, strict=True):
            name = f"{seed:08}"
            member = tar.extractfile(f"{name}.png")
            assert np.array_equal(np.asarray(Image.open(member)), image[..., 0])
            assert np.array_equal(pixels(tmp_path / "folder" / f"{name}.png"), image[..., 0])
            assert tar.extractfile(f"{name}.cls").read() == str(label).encode()
            assert given[f"{name}.png"] == label


def test_a_class_by_number_or_by_name(sampled, trained):
    by_turns = sampled(trained["shapes"], "-n", "10")
    alone = sampled(trained["shapes"], "-n", "10", "--class", "3")
    assert alone["00000003.png"] == by_turns["00000003.png"]
    assert dict(json.loads(alone["dataset.json"])["labels"]) == {f"{i:08}.png": 3 for i in range(10)}
    name = cmtool.load(trained["shapes"] / "model.safetensors").header.classes[3]
    assert sampled(trained["shapes"], "-n", "10", "--class", name) == alone


def test_a_grid_shows_the_first_hundred_images(well, rgb, tmp_path):
    well("sample", "-m", rgb, "-n", "130", "-o", tmp_path / "s", "--grid", tmp_path / "grid.png")
    sheet = pixels(tmp_path / "grid.png")
    assert sheet.shape == (10 * 66 + 2, 10 * 66 + 2, 3)  # 16 pixels enlarged 4 times, and a gap of 2
    for i in (0, 9, 57, 99):
        top, left = i // 10 * 66 + 2, i % 10 * 66 + 2
        shown = sheet[top : top + 64 : 4, left : left + 64 : 4]
        assert np.array_equal(shown, pixels(tmp_path / "s" / f"{i:08}.png"))


def test_a_grid_has_a_column_for_each_class(well, trained, tmp_path):
    well("sample", "-m", trained["tuned"], "-n", "20", "-o", tmp_path / "s", "--grid", tmp_path / "grid.png")
    sheet = pixels(tmp_path / "grid.png")
    assert sheet.shape == (2 * (66 + 12) + 2, 10 * 66 + 2)
    for i in range(20):  # each digit stands above its images
        top, left = i // 10 * 78 + 2, i % 10 * 66 + 2
        assert np.array_equal(sheet[top : top + 12, left : left + 64], draw_text(str(i % 10), 64, 12))
        shown = sheet[top + 12 : top + 76 : 8, left : left + 64 : 8]
        assert np.array_equal(shown, pixels(tmp_path / "s" / f"{i:08}.png"))


def test_points_go_to_npz_and_a_scatter_plot(cm, tmp_path):
    words = ["--backbone", "mlp", "-d", "ring", "--images", "64", "--batch", "64", "--snapshots", "1"]
    assert cm("train-ct", *words, "--run-dir", tmp_path / "run").code == 0
    told = cm("sample", "-m", tmp_path / "run", "-n", "300", "-o", tmp_path / "x.npz", "--grid", tmp_path / "g.png")
    assert told.code == 0, told.err
    with np.load(tmp_path / "x.npz") as archive:
        assert (archive["arr_0"].shape, archive["arr_0"].dtype) == ((300, 2), np.float32)
    assert pixels(tmp_path / "g.png").shape == (384, 384, 3)
    told = cm("sample", "-m", tmp_path / "run", "-o", tmp_path / "folder")
    assert (told.code, told.error) == (
        2,
        (f"points cannot be written to {tmp_path / 'folder'}", "points go to .npz or .npy"),
    )
    told = cm("edit", "colorize", "photo.png", "-m", tmp_path / "run")
    assert told.error[0] == f"edit works on images, and {tmp_path / 'run' / 'model.safetensors'} makes points"


def test_the_model_comes_from_the_flag_the_environment_or_the_newest_run(cm, trained, rgb, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def used(*argv):
        told = cm("sample", "-n", "1", *argv)
        assert told.code == 0, told.err
        return told.err.splitlines()[0].split(" ")[1]

    assert Path(used()) == bundled("consistency")
    (tmp_path / "run").mkdir()
    for name in ("model.safetensors", "status.json"):
        (tmp_path / "run" / name).write_bytes((trained["tuned"] / name).read_bytes())
    assert used() == "run/model.safetensors"
    other = random_model(tmp_path / "other.safetensors", classes=3)
    monkeypatch.setenv("CMTOOL_MODEL", str(other))
    assert used() == str(other)
    assert used("--model", rgb) == str(rgb)


def test_quiet_says_nothing_but_the_result(cm, rgb, tmp_path):
    told = cm("sample", "-m", rgb, "-n", "1", "-o", tmp_path / "s", "--quiet")
    assert (told.code, told.out, told.err) == (0, f"{tmp_path / 's'}\n", "")


@pytest.mark.parametrize(
    ("words", "nfe"),
    [
        (["ddim", "--set", "solver.eta=0.5"], 4),
        (["heun", "--set", "solver.churn=2"], 7),
        (["midpoint", "--set", "solver.mean=log"], 7),
        (["rk4"], 13),
        (["dpmpp-3s"], 10),
        (["dpmpp-3m", "--set", "solver.corrected=false"], 4),
        (["unipc", "--set", "solver.order=2"], 4),
    ],
)
def test_every_solver_says_how_often_it_asks(cm, trained, tmp_path, words, nfe):
    told = cm("sample", "-m", trained["teacher"], "-n", "2", "-k", "4", "--solver", *words, "-o", tmp_path, "--json")
    assert told.code == 0, told.err
    assert json.loads(told.out)["nfe"] == nfe
    assert f"{nfe} NFE each" in told.err


def test_a_solver_that_chooses_its_steps_is_counted(cm, trained, tmp_path):
    told = cm("sample", "-m", trained["teacher"], "--seeds", "5", "--solver", "rk45", "-o", tmp_path / "s", "--json")
    assert told.code == 0, told.err
    document, model = json.loads(told.out), CountNFE(cmtool.load(trained["teacher"] / "model.safetensors"))
    levels = torch.tensor([80.0, 0.002, 0.0], dtype=torch.float64)
    x = last(probability_flow(model, 80 * Noise([5]).normal((1, 8, 8), START), levels, rk45(), torch.tensor([5])))
    assert document["sigmas"] == levels.tolist()
    assert document["nfe"] == pytest.approx(model.calls, abs=12)  # a step more or less, by a rounding
    assert f"{document['nfe']} NFE each" in told.err
    assert level(tmp_path / "s" / "00000005.png", to_pixels(x)[0, 0]) <= 1


def test_noise_on_the_way_belongs_to_the_seed(sampled, trained):
    words = ["-k", "4", "--solver", "heun", "--set", "solver.churn=2"]
    some, alone = sampled(trained["teacher"], "-n", "5", *words), sampled(trained["teacher"], "--seeds", "3", *words)
    assert some["00000003.png"] == alone["00000003.png"]
    assert some["00000003.png"] != sampled(trained["teacher"], "--seeds", "3", "-k", "4")["00000003.png"]
