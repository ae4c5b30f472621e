"""Weights and images that are NaN or infinite are an error, never a black picture and never a number."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import SHORT, random_model

import cmtool
from cmtool.core.denoiser import Denoiser
from cmtool.core.pixels import check_outputs
from cmtool.errors import Diverged
from cmtool.files.checkpoint import save

ENDLESS = [float("nan"), float("inf"), -float("inf")]


@pytest.fixture
def broken(tmp_path):
    """A checkpoint with one weight that is not finite."""

    def make(value, kind="consistency"):
        path = random_model(tmp_path / f"broken-{kind}.safetensors", (1, 8, 8), kind=kind)
        model = cmtool.load(path)
        *_, last = model.model.net.parameters()
        with torch.no_grad():
            last.flatten()[-1] = value
        save(path, model.model, model.header)
        return path

    return make


@pytest.fixture
def sick(monkeypatch):
    """Make every model answer with ``value`` where ``when(sigma)`` holds, in the rows that it says."""

    def install(value, when=lambda x, sigma: torch.ones(len(x), dtype=torch.bool)):
        real = Denoiser.forward

        def forward(self, x, sigma, labels=None, target_sigma=None, augment_labels=None):
            out, sick = real(self, x, sigma, labels, target_sigma, augment_labels), when(x, sigma.expand(len(x)))
            return torch.where(sick.reshape(-1, *[1] * (x.ndim - 1)), value, out)

        monkeypatch.setattr(Denoiser, "forward", forward)

    return install


@pytest.mark.parametrize("value", ENDLESS)
def test_weights_are_looked_at_when_a_file_is_opened(cm, broken, tmp_path, value):
    jumps, walks = broken(value), broken(value, "score")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "x.png")
    before = sorted(path.name for path in tmp_path.iterdir())
    for words in (
        ["sample", "-m", jumps, "-n", "2", "-o", tmp_path / "s"],
        ["sample", "-m", walks, "-n", "2", "-o", tmp_path / "s.tar"],
        ["interp", "1", "2", "-m", jumps, "-o", tmp_path / "i.png"],
        ["edit", "denoise", tmp_path / "x.png", "-m", jumps, "-o", tmp_path / "e.png"],
        ["search-sigmas", jumps, "--ref", "digits", "-o", tmp_path / "t.safetensors", "--features", "small"],
        ["likelihood", "-m", walks, "--data", "digits", "-n", "2"],
        ["convert", jumps, tmp_path / "c.safetensors"],
        ["distill", "-t", walks, "-d", "digits", *SHORT],
        ["fid", jumps, "--ref", "digits", "--features", "small", "-n", "4"],
    ):
        told = cm(*words)
        assert (told.code, "weights that are not finite (NaN or infinite)" in told.error[0]) == (65, True), words
        assert told.out == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.parametrize("value", ENDLESS)
def test_images_that_are_not_finite_are_an_error(cm, sick, tmp_path, value):
    jumps = random_model(tmp_path / "j.safetensors", (1, 8, 8))
    walks = random_model(tmp_path / "w.safetensors", (1, 8, 8), kind="score")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "x.png")
    sick(value)
    for words in (
        ["sample", "-m", jumps, "-n", "2", "-o", tmp_path / "s"],
        ["sample", "-m", walks, "-n", "2", "-o", tmp_path / "s.npz"],
        ["sample", "-m", walks, "-n", "2", "--sampler", "predictor-corrector", "-o", tmp_path / "s.zip"],
        ["interp", "1", "2", "-m", jumps, "-o", tmp_path / "i.png"],
        ["interp", "1", tmp_path / "x.png", "-m", jumps, "-o", tmp_path / "i.png"],
        ["edit", "denoise", tmp_path / "x.png", "-m", jumps, "-o", tmp_path / "e.png"],
        ["edit", "inpaint", tmp_path / "x.png", "-m", walks, "--box", "1,1,3,3", "-o", tmp_path / "e.png"],
        ["likelihood", "-m", walks, "--data", "digits", "-n", "2", "-k", "2"],
        ["fid", jumps, "--ref", "digits", "--features", "small", "-n", "4"],
    ):
        told = cm(*words)
        assert (told.code, "not finite (NaN or infinite)" in told.error[0]) == (70, True), (words, told)
        assert told.out == ""
    assert not [path for path in tmp_path.rglob("*.png") if path.name != "x.png"]


def test_one_level_or_one_seed_is_enough(cm, sick, tmp_path):
    model = random_model(tmp_path / "j.safetensors", (1, 8, 8))
    sick(float("nan"), lambda x, sigma: sigma < 1)
    assert cm("sample", "-m", model, "-n", "2", "-o", tmp_path / "s", "--sigmas", "80,2").code == 0
    told = cm("sample", "-m", model, "-n", "2", "-o", tmp_path / "s2", "--sigmas", "80,0.5")
    assert (told.code, "at noise level 0.5" in told.error[0]) == (70, True)


def test_images_that_were_written_stay(cm, sick, tmp_path):
    model = random_model(tmp_path / "j.safetensors", (1, 8, 8))
    seen = []

    def later(x, sigma):
        seen.append(len(x))
        return torch.full([len(x)], sum(seen) > 128)

    sick(float("inf"), later)
    told = cm("sample", "-m", model, "-n", "300", "-b", "64", "--threads", "1", "-o", tmp_path / "s")
    assert told.code == 70
    lines = [json.loads(line) for line in (tmp_path / "s" / "manifest.jsonl").read_text().splitlines()]
    assert [line["seed"] for line in lines] == list(range(len(list((tmp_path / "s").glob("*.png")))))
    assert 64 <= len(lines) <= 192


def test_what_is_finite_passes():
    model = check_outputs(lambda x, sigma, labels=None: x / sigma)
    assert model(torch.ones(2), torch.ones(2)).tolist() == [1, 1]
    with pytest.raises(Diverged, match="at noise level 0"):
        model(torch.ones(2), torch.zeros(2))
