import io
import json
import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import pixels, random_model

import cmtool
from cmtool.core.pixels import to_model, to_pixels

LUMA = np.array([0.2989, 0.5870, 0.1140])
RNG = np.random.default_rng(0)


@pytest.fixture(params=["smooth", "harsh"])
def photo(request, picture):
    """16x16 in colour: a gradient, or noise that reaches both ends of the scale."""
    y, x = np.mgrid[:16, :16]
    smooth = np.stack([60 + 8 * y, 60 + 8 * x, 200 - 6 * y], -1).astype(np.uint8)
    return picture("photo.png", smooth if request.param == "smooth" else RNG.integers(0, 256, (16, 16, 3), np.uint8))


@pytest.fixture
def edited(well, rgb, tmp_path):
    """The pixels and the document of an edit."""

    def call(*argv, model=rgb):
        document = json.loads(well("edit", *argv, "-m", model, "-o", tmp_path / "edited.png", "--json"))
        return pixels(tmp_path / "edited.png"), document

    return call


def means(image, factor):
    """The mean of each patch."""
    high, wide, channels = image.shape
    return image.reshape(high // factor, factor, wide // factor, factor, channels).mean((1, 3))


def test_inpaint_keeps_every_known_pixel(edited, photo, picture):
    mask = np.zeros((16, 16), np.uint8)
    mask[4:12, 3:9] = 255
    image, document = edited("inpaint", photo, "--mask", picture("mask.png", mask))
    assert np.array_equal(image[mask == 0], pixels(photo)[mask == 0])
    assert (image[mask > 0] != pixels(photo)[mask > 0]).any()
    assert (document["evaluations"], document["known_error"]) == (16, 0.0)
    again, _ = edited("inpaint", photo, "--mask", picture("mask.png", mask), "--seed", "1")
    assert np.array_equal(again[mask == 0], image[mask == 0])
    assert (again[mask > 0] != image[mask > 0]).any()


def test_an_empty_mask_changes_nothing_and_a_full_one_everything(edited, photo, picture):
    image, _ = edited("inpaint", photo, "--mask", picture("none.png", np.zeros((16, 16), np.uint8)))
    assert np.array_equal(image, pixels(photo))
    full = picture("full.png", np.full((16, 16), 255, np.uint8))
    assert (edited("inpaint", photo, "--mask", full)[0] != pixels(photo)).mean() > 0.5


def test_colorize_keeps_the_grey_value_of_every_pixel(edited, photo, picture):
    image, document = edited("colorize", photo)
    assert np.abs(image @ LUMA - pixels(photo) @ LUMA).max() < 0.51  # each channel rounds by half a level at most
    assert (image != pixels(photo)).mean() > 0.5
    assert document["known_error"] < 0.01
    grey = picture("grey.png", np.asarray(Image.open(photo).convert("L")))
    image, _ = edited("colorize", grey)
    assert np.abs(image @ LUMA - pixels(grey)).max() < 0.51


@pytest.mark.parametrize("factor", [2, 4])
def test_superres_of_a_small_picture_averages_back_to_it(edited, photo, picture, factor):
    small = picture("small.png", np.ascontiguousarray(pixels(photo)[::factor, ::factor]))
    image, document = edited("superres", small)
    assert image.shape == (16, 16, 3)
    assert np.array_equal(np.rint(means(image, factor)), pixels(small))
    assert image.reshape(16 // factor, factor, 16 // factor, factor, 3).std(axis=(1, 3)).max() > 1
    assert document["known_error"] < 1e-3


def test_superres_of_a_picture_of_full_size_keeps_its_means(edited, photo):
    image, _ = edited("superres", photo, "--factor", "4")
    assert np.abs(means(image, 4) - means(pixels(photo), 4)).max() < 0.5


def test_denoise_is_one_jump_from_its_level(edited, photo, rgb):
    image, document = edited("denoise", photo, "--level", "0.4")
    x = to_model(torch.from_numpy(pixels(photo).copy()).permute(2, 0, 1))[None]
    expected = to_pixels(cmtool.load(rgb)(x, torch.tensor([0.4], dtype=torch.float64)).detach())[0].permute(1, 2, 0)
    assert np.array_equal(image, expected.numpy())
    assert (document["levels"], document["evaluations"]) == ([0.4], 1)


def test_stroke_starts_between_picture_and_noise(edited, photo):
    low, document = edited("stroke", photo, "--level", "0.01")
    assert document["levels"] == pytest.approx([0.01, 0.01 * 2.24 / 5.38])
    assert np.abs(low.astype(int) - pixels(photo)).mean() < 2
    assert edited("stroke", photo)[1]["levels"] == pytest.approx([5.38, 2.24])
    assert len(edited("stroke", photo, "--steps", "5")[1]["levels"]) == 5
    assert edited("stroke", photo, "--levels", "3,1")[1]["levels"] == [3.0, 1.0]


def test_a_pipe_in_and_a_pipe_out(well, rgb, photo, tmp_path, monkeypatch):
    well("edit", "colorize", photo, "-m", rgb, "-o", tmp_path / "file.png")
    stdin = types.SimpleNamespace(buffer=io.BytesIO(photo.read_bytes()), isatty=lambda: False)
    stdout = types.SimpleNamespace(buffer=io.BytesIO(), isatty=lambda: False, flush=lambda: None)
    monkeypatch.setattr(sys, "stdin", stdin)
    monkeypatch.setattr(sys, "stdout", stdout)
    well("edit", "colorize", "-", "-m", rgb, "-o", "-")
    assert stdout.buffer.getvalue() == (tmp_path / "file.png").read_bytes()


def test_a_picture_of_another_size_is_cropped_and_resized(cm, edited, rgb, picture):
    wide = np.zeros((32, 48, 3), np.uint8)
    wide[:, 8:40] = RNG.integers(0, 256, (8, 8, 3), np.uint8).repeat(4, 0).repeat(4, 1)
    image, _ = edited("inpaint", picture("wide.png", wide), "--mask", picture("none.png", wide[..., 0] * 0))
    assert image.shape == (16, 16, 3)
    expected = Image.fromarray(wide[:, 8:40]).resize((16, 16), Image.Resampling.LANCZOS)
    assert np.array_equal(image, np.asarray(expected))
    told = cm("edit", "colorize", picture("wide.png", wide), "-m", rgb)
    assert "its middle square was resized to the model's 16x16" in told.err


def test_grey_models_edit_coloured_pictures(edited, photo, picture, tmp_path):
    grey = random_model(tmp_path / "grey.safetensors", (1, 16, 16))
    mask = picture("mask.png", np.eye(16, dtype=np.uint8) * 255)
    image, _ = edited("inpaint", photo, "--mask", mask, model=grey)
    assert image.shape == (16, 16)
    kept = ~np.eye(16, dtype=bool)
    assert np.array_equal(image[kept], np.rint(pixels(photo) @ (0.299, 0.587, 0.114))[kept])


def test_a_class_is_asked_for_by_name(edited, photo, tmp_path):
    model = random_model(tmp_path / "classes.safetensors", classes=3)
    images = [edited("colorize", photo, "--class", name, model=model)[0] for name in ("0", "class 0", "2")]
    assert np.array_equal(images[0], images[1])
    assert not np.array_equal(images[0], images[2])
