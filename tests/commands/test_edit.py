import io
import json
import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import listing, pixels, random_model

import cmtool
from cmtool.core.editing.deblur import blur_image
from cmtool.core.pixels import to_model, to_pixels
from cmtool.evaluation import psnr_ssim

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
    assert (document["nfe"], document["known_error"]) == (16, 0.0)
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
    assert np.abs(image @ LUMA - pixels(photo) @ LUMA).max() < 0.3
    assert (image != pixels(photo)).mean() > 0.5
    assert document["known_error"] < 0.5
    grey = picture("grey.png", np.asarray(Image.open(photo).convert("L")))
    image, _ = edited("colorize", grey)
    assert np.array_equal(np.rint(image @ (LUMA / LUMA.sum())), pixels(grey))
    assert np.array_equal(np.asarray(Image.fromarray(image).convert("L")), pixels(grey))


@pytest.mark.parametrize("factor", [2, 4])
def test_superres_of_a_small_picture_averages_back_to_it(edited, photo, picture, factor):
    small = picture("small.png", np.ascontiguousarray(pixels(photo)[::factor, ::factor]))
    image, document = edited("superres", small)
    assert image.shape == (16, 16, 3)
    assert np.abs(means(image, factor) - pixels(small)).max() < 0.1
    assert image.reshape(16 // factor, factor, 16 // factor, factor, 3).std(axis=(1, 3)).max() > 1
    assert document["known_error"] < 0.1


def test_superres_of_a_picture_of_full_size_keeps_its_means(edited, photo):
    image, _ = edited("superres", photo, "--factor", "4")
    assert np.abs(means(image, 4) - means(pixels(photo), 4)).max() < 0.5


def test_denoise_is_one_jump_from_its_level(edited, photo, rgb):
    image, document = edited("denoise", photo, "--level", "0.4")
    x = to_model(torch.from_numpy(pixels(photo).copy()).permute(2, 0, 1))[None]
    expected = to_pixels(cmtool.load(rgb)(x, torch.tensor([0.4], dtype=torch.float64)).detach())[0].permute(1, 2, 0)
    assert np.abs(image - expected.numpy().astype(int)).max() <= 1  # pieces of another size round elsewhere
    assert (document["sigmas"], document["nfe"]) == ([0.4], 1)


def test_stroke_starts_between_picture_and_noise(edited, photo):
    low, document = edited("stroke", photo, "--level", "0.01")
    assert document["sigmas"] == pytest.approx([0.01, 0.01 * 2.24 / 5.38])
    assert np.abs(low.astype(int) - pixels(photo)).mean() < 2
    assert edited("stroke", photo)[1]["sigmas"] == pytest.approx([5.38, 2.24])
    assert len(edited("stroke", photo, "--steps", "5")[1]["sigmas"]) == 5
    assert edited("stroke", photo, "--sigmas", "3,1")[1]["sigmas"] == [3.0, 1.0]


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
    assert "its middle was resized to the model's 16x16" in told.err


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


@pytest.mark.parametrize("white", ["fill", "keep"])
def test_white_in_the_mask_means_what_is_said(edited, photo, picture, white):
    mask = np.zeros((16, 16), np.uint8)
    mask[4:12, 3:9] = 255
    image, _ = edited("inpaint", photo, "--mask", picture("mask.png", mask), "--white", white)
    kept = (mask == 0) if white == "fill" else (mask > 0)
    assert np.array_equal(image[kept], pixels(photo)[kept])
    assert (image[~kept] != pixels(photo)[~kept]).mean() > 0.5


def test_a_box_and_a_share_of_the_pixels(edited, photo):
    image, _ = edited("inpaint", photo, "--box", "3,4,6,8")
    hole = np.zeros((16, 16), bool)
    hole[4:12, 3:9] = True
    assert np.array_equal(image[~hole], pixels(photo)[~hole])
    assert (image[hole] != pixels(photo)[hole]).any()
    thin, document = edited("inpaint", photo, "--random", "0.3")
    assert 0.15 < (thin != pixels(photo)).any(-1).mean() < 0.45
    assert document["known_error"] == 0


def test_a_feather_leaves_what_is_farther_away(edited, photo):
    image, document = edited("inpaint", photo, "--box", "6,6,4,4", "--feather", "2")
    near = np.zeros((16, 16), bool)
    near[4:12, 4:12] = True
    assert np.array_equal(image[~near], pixels(photo)[~near])
    assert document["known_error"] == 0


def test_outpaint_keeps_the_picture_in_the_middle(edited, photo, picture):
    small = picture("small.png", np.ascontiguousarray(pixels(photo)[:10, :12]))
    image, _ = edited("outpaint", small)
    assert np.array_equal(image[3:13, 2:14], pixels(small))
    shrunk, _ = edited("outpaint", photo, "--margin", "0,4,4,0")
    expected = np.asarray(Image.open(photo).resize((12, 12), Image.Resampling.LANCZOS))
    assert np.array_equal(shrunk[:12, 4:], expected)


def test_deblur_gives_back_the_blurred_picture_when_blurred(edited, picture):
    sharp = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1)).double() - 0.5
    soft = to_pixels(blur_image(sharp, 1.0))[0].permute(1, 2, 0).numpy()
    image, document = edited("deblur", picture("soft.png", np.ascontiguousarray(soft)), "--blur", "1")
    again = blur_image(to_model(torch.from_numpy(image.copy()).permute(2, 0, 1))[None].double(), 1.0)
    off = np.abs((again[0].permute(1, 2, 0).numpy() + 1) * 127.5 - soft)
    assert off.mean() < 2  # less than a tenth of what is invented passes the blur
    assert np.abs(image.astype(int) - soft).mean() > 5
    assert document["known_error"] < 2


def test_variants_are_those_of_their_seeds(well, rgb, photo, tmp_path):
    out = json.loads(well("edit", "colorize", photo, "-m", rgb, "--variants", "3", "-o", tmp_path / "v", "--json"))
    assert (out["images"], out["variants"], out["seed"]) == (3, 3, 0)
    variants = listing(tmp_path / "v")
    assert sorted(variants) == ["photo-0.png", "photo-1.png", "photo-2.png"]
    assert len(set(variants.values())) == 3
    for seed in range(3):
        well("edit", "colorize", photo, "-m", rgb, "--seed", seed, "-o", tmp_path / "one.png")
        assert (tmp_path / "one.png").read_bytes() == variants[f"photo-{seed}.png"]


def test_nothing_depends_on_batch_threads_or_company(well, rgb, photo, picture, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(5):
        Image.fromarray(RNG.integers(0, 256, (16, 16, 3), np.uint8)).save(folder / f"{i}.png")
    (folder / "photo.png").write_bytes(photo.read_bytes())
    for name, how in {"a": ["--batch", "1"], "b": ["--batch", "64", "--threads", "2"], "c": ["--batch", "4"]}.items():
        well("edit", "superres", folder, "--factor", "4", "-m", rgb, *how, "-o", tmp_path / name)
    assert listing(tmp_path / "a") == listing(tmp_path / "b") == listing(tmp_path / "c")
    well("edit", "superres", photo, "--factor", "4", "-m", rgb, "-o", tmp_path / "alone.png")
    assert (tmp_path / "alone.png").read_bytes() == listing(tmp_path / "a")["photo.png"]


def test_streams_in_and_out(well, rgb, tmp_path):
    images = RNG.integers(0, 256, (5, 16, 16, 3), np.uint8)
    np.save(tmp_path / "in.npy", images)
    well("edit", "denoise", tmp_path / "in.npy", "-m", rgb, "-o", tmp_path / "out.npz")
    well("edit", "denoise", tmp_path / "in.npy", "-m", rgb, "-o", tmp_path / "out")
    with np.load(tmp_path / "out.npz") as archive:
        assert archive["arr_0"].shape == images.shape
        for image, name in zip(archive["arr_0"], sorted(listing(tmp_path / "out")), strict=True):
            assert np.array_equal(image, pixels(tmp_path / "out" / name))
    Image.fromarray(images[0]).resize((20, 30)).save(tmp_path / "tall.png")
    well("edit", "denoise", tmp_path / "tall.png", "-m", rgb, "-o", tmp_path / "tall-out.png")
    assert pixels(tmp_path / "tall-out.png").shape == (16, 16, 3)


@pytest.mark.parametrize("task", ["colorize", "superres", "inpaint"])
def test_tiles_keep_the_size_and_what_is_known(edited, picture, task):
    large = RNG.integers(0, 256, (20, 44, 3), np.uint8)
    how = {"colorize": [], "superres": ["--factor", "2"], "inpaint": ["--box", "5,5,30,9"]}[task]
    image, document = edited(task, picture("large.png", large), "--fit", "tile", *how)
    if task == "superres":
        assert image.shape == (40, 88, 3)
        assert np.abs(means(image, 2) - large).max() < 0.1
    else:
        assert image.shape == large.shape
    if task == "inpaint":
        kept = np.ones((20, 44), bool)
        kept[5:14, 5:35] = False
        assert np.array_equal(image[kept], large[kept])
    if task == "colorize":
        assert np.abs(image @ LUMA - large @ LUMA).max() < 0.3
    assert document["known_error"] < 0.6


def test_truth_is_measured_and_shown(edited, photo, tmp_path, picture):
    noisy = np.clip(pixels(photo).astype(int) + RNG.integers(-9, 9, (16, 16, 3)), 0, 255).astype(np.uint8)
    report = tmp_path / "sheet.png"
    _, document = edited(
        "inpaint", picture("noisy.png", noisy), "--box", "0,0,1,1", "--truth", photo, "--report", report
    )
    image = torch.from_numpy(pixels(tmp_path / "edited.png").copy()).permute(2, 0, 1)
    truth = torch.from_numpy(pixels(photo).copy()).permute(2, 0, 1)
    assert document["psnr"] == pytest.approx(psnr_ssim.psnr(image, truth))
    assert document["ssim"] == pytest.approx(psnr_ssim.ssim(image, truth))
    assert pixels(report).shape[1] > 4 * 112


@pytest.mark.parametrize("how", [[], ["--solver", "heun", "--steps", "6"], ["--sampler", "sde-ancestral"]])
def test_a_score_model_edits_by_the_score_sde_way(edited, trained, picture, how):
    digit = np.kron(RNG.integers(0, 256, (4, 4), np.uint8), np.ones((2, 2), np.uint8))
    steps = how if "--steps" in how else [*how, "--steps", "5"]
    argv = ["superres", picture("digit.png", digit), "--factor", "2", *steps, "--class", "3"]
    image, document = edited(*argv, model=trained["teacher"])
    assert np.abs(image.reshape(4, 2, 4, 2).mean((1, 3)) - digit[::2, ::2]).max() < 0.3
    assert document["nfe"] == {0: 10, 4: 11, 2: 5}[len(how)]
    assert not np.array_equal(image, edited(*argv, "--seed", "1", model=trained["teacher"])[0])


def test_a_class_is_guessed_where_none_is_said(well, trained, tmp_path):
    well("sample", "-m", trained["student"], "-n", "4", "-o", tmp_path / "s")
    argv = ["edit", "superres", tmp_path / "s" / "00000001.png", "--factor", "2", "-m", trained["student"], "--json"]
    guessed = json.loads(well(*argv, "-o", tmp_path / "a.png"))["classes"]
    assert len(guessed) == 1
    assert guessed == json.loads(well(*argv, "-o", tmp_path / "b.png", "--threads", "2"))["classes"]
    named = json.loads(well(*argv, "-o", tmp_path / "c.png", "--class", guessed[0]))
    assert named["classes"] == guessed
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "c.png").read_bytes()
    labelled = json.loads(well("edit", "superres", tmp_path / "s", *argv[3:], "-o", tmp_path / "d"))
    assert labelled["classes"] == [0, 1, 2, 3]
