import dataclasses
import hashlib
import json
import shutil
import sys

import numpy as np
import pytest
import torch
from tiny import pixels, random_model

from cmtool.commands.fid import _label
from cmtool.core.pixels import to_pixels, truncate_to_pixels
from cmtool.evaluation.fid_infinity import extrapolate
from cmtool.evaluation.kid import kernel_distance
from cmtool.evaluation.metric import Score
from cmtool.evaluation.precision_recall import prdc
from cmtool.evaluation.reference_statistics import write_statistics
from cmtool.evaluation.statistics import Normal, Statistics
from cmtool.files.checkpoint import save
from cmtool.files.model_files import open_any
from cmtool.options import registry

SMALL = ["--features", "small"]


@pytest.fixture
def fd(well):
    """The document of ``cmtool fid --features small``."""

    def call(*argv):
        return json.loads(well("fid", *argv, *SMALL, "--json"))

    return call


@pytest.fixture(scope="module")
def samples(trained, tmp_path_factory):
    """The same 200 samples as folder, npz and tar."""
    from cmtool.cli import run

    root = tmp_path_factory.mktemp("samples")
    paths = [root / "folder", root / "x.npz", root / "x.tar"]
    for path in paths:
        assert run(["sample", "-m", str(trained["student"]), "-n", "200", "-o", str(path), "--threads", "1", "-q"]) == 0
    return paths


def features_of(images):
    """float64 [N, D] of uint8 [N, C, H, W]."""
    return registry.build("features", "small")(torch.as_tensor(images)).double().numpy()


def frechet(a, b):
    """By numpy: |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)), the trace of the root by eigenvalues."""
    s_a, s_b = np.cov(a.T), np.cov(b.T)
    roots = np.linalg.eigvals(s_a @ s_b).real.clip(0)
    return ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(s_a + s_b) - 2 * np.sqrt(roots).sum()


def test_the_number_is_the_frechet_distance_of_the_features(fd, samples):
    digits = registry.build("datasets", "digits", None)
    real = np.stack([digits[i][0] for i in range(len(digits))])
    with np.load(samples[1]) as archive:
        made = archive["arr_0"].transpose(0, 3, 1, 2)
    document = fd(samples[0], "--ref", "digits")
    assert document["value"] == pytest.approx(frechet(features_of(made), features_of(real)), rel=1e-6)
    assert (document["metric"], document["features"]["name"]) == ("FD-small", "small")
    assert (document["source"]["data"], document["source"]["images"]) == (str(samples[0]), 200)
    assert document["source"]["sha256"] == hashlib.sha256(made.tobytes()).hexdigest()
    assert document["reference"] == {
        "data": "digits",
        "images": 1797,
        "sha256": hashlib.sha256(real.tobytes()).hexdigest(),
    }


def test_folder_npz_tar_pipe_and_model_give_the_same_digits(fd, samples, trained, monkeypatch):
    values = [fd(path, "--ref", "digits")["value"] for path in samples]
    with samples[2].open() as piped:
        monkeypatch.setattr(sys, "stdin", piped)
        values.append(fd("-", "--ref", "digits")["value"])
    assert len(set(values)) == 1
    some = [fd(source, "--ref", "digits", "-n", "150")["value"] for source in (samples[0], trained["student"])]
    assert some[0] == some[1] != values[0]


def test_a_set_has_no_distance_to_itself(fd, samples):
    assert abs(fd(samples[0], "--ref", samples[1])["value"]) < 1e-6
    assert abs(fd("digits", "--ref", "digits")["value"]) < 1e-6
    assert fd("digits[0::2]", "--ref", "digits[1::2]")["value"] > 1e-3


def test_it_is_symmetric(fd, samples):
    there, back = fd(samples[0], "--ref", "digits")["value"], fd("digits", "--ref", samples[0])["value"]
    assert there == pytest.approx(back, rel=1e-9)


def test_reference_statistics_stand_for_their_data(fd, cm, samples, tmp_path):
    digits = registry.build("datasets", "digits", None)
    extractor = registry.build("features", "small")
    rows = features_of(np.stack([digits[i][0] for i in range(len(digits))]))
    mean, covariance = torch.from_numpy(rows.mean(0)), torch.from_numpy(np.cov(rows.T))
    with (tmp_path / "ref.npz").open("wb") as file:
        write_statistics(file, Statistics(mean, covariance, len(rows), "small", extractor.fingerprint, "digits"))
    document = fd(samples[0], "--ref", tmp_path / "ref.npz")
    assert document["value"] == pytest.approx(fd(samples[0], "--ref", "digits")["value"], rel=1e-6)
    sha256 = hashlib.sha256((tmp_path / "ref.npz").read_bytes()).hexdigest()
    assert document["reference"] == {"data": "digits", "images": 1797, "sha256": sha256}

    with (tmp_path / "other.npz").open("wb") as file:
        write_statistics(file, Statistics(mean, covariance, 1797, "inception", "inception f58cb9b6", "digits"))
    told = cm("fid", samples[0], "--ref", tmp_path / "other.npz", *SMALL)
    assert (told.code, told.error[1]) == (2, "measure both with the same --features")
    assert "inception f58cb9b6" in told.error[0]
    with (tmp_path / "bare.npz").open("wb") as file:
        np.savez(file, mu=np.zeros(3), sigma=np.eye(3))
    told = cm("fid", samples[0], "--ref", tmp_path / "bare.npz", *SMALL)
    assert (told.code, told.error[0]) == (2, "these statistics have different numbers of features: 3 and 64")


def test_a_run_directory_is_its_model_and_not_its_pictures(fd, trained):
    document = fd(trained["tuned"], "--ref", "digits", "-n", "80")
    assert document["source"]["images"] == 80
    assert document["source"]["nfe"] == 1
    assert document["value"] == fd(trained["tuned"] / "model.safetensors", "--ref", "digits", "-n", "80")["value"]


def test_the_name_of_a_data_set_is_no_folder_beside_it(fd, trained, tmp_path, monkeypatch):
    """A run called ``digits`` lay in the working directory, and its model was compared with itself."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").symlink_to(trained["tuned"])
    assert fd("digits", "--ref", "digits[:]")["value"] == pytest.approx(0, abs=1e-6)
    assert fd("./digits", "--ref", "digits")["value"] > 1


def test_few_images_are_named_as_such(cm, samples):
    told = cm("fid", samples[0], "--ref", "digits", "-n", "50", *SMALL)
    assert "50 images are too few for 64 features" in told.err
    assert told.out.startswith("FD-small  ")


def test_sampling_options_reach_the_model(fd, rgb, tmp_path):
    words = [rgb, "--ref", "shapes[:70]", "-n", "70"]
    one, two = fd(*words)["value"], fd(*words, "--steps", "2")["value"]
    assert one != two
    assert fd(*words, "--sigmas", "80")["value"] == one
    conditional = random_model(tmp_path / "c.safetensors", classes=3)
    assert fd(conditional, *words[1:], "--class", "1")["value"] != fd(conditional, *words[1:], "--class", "2")["value"]


def test_several_metrics_are_those_of_the_features_and_take_one_pass(fd, samples, tmp_path):
    digits = registry.build("datasets", "digits", None)
    real = features_of(np.stack([digits[i][0] for i in range(0, len(digits), 4)]))
    with np.load(samples[1]) as archive:
        made = features_of(archive["arr_0"].transpose(0, 3, 1, 2))
    names = "prdc,kid,fid,fid-infinity,memorization"
    document = fd(samples[1], "--ref", "digits[0::4]", "--metrics", names, "--sheet", tmp_path / "sheet.png")
    values = {row["metric"]: row["value"] for row in document["metrics"]}
    real, made = (torch.from_numpy(rows).float() for rows in (real, made))
    reference = Normal(real.double().mean(0), real.double().T.cov())
    wanted = prdc(real, made) | {
        "KD-small": kernel_distance(made, real),
        "FD-small": frechet(made.numpy(), real.numpy()),
        "FD-small-infinity": extrapolate(made, reference).value,
    }
    share = values.pop("memorization")
    assert values == pytest.approx(wanted, rel=1e-6) and 0 <= share <= 1
    assert document["metric"] == "precision" and document["value"] == values["precision"]
    assert len(document["metrics"][-1]["nearest"]) == 16
    assert pixels(tmp_path / "sheet.png").shape[:2] == (4 * 66 + 2, 8 * 66 + 2)


def test_copies_are_found_and_shown_above_what_they_copy(fd, tmp_path):
    document = fd("digits[0:40]", "--ref", "digits", "--metrics", "memorization", "--sheet", tmp_path / "sheet.png")
    assert document["value"] == 1
    assert all(pair["image"] == pair["training"] for pair in document["metrics"][0]["nearest"])
    sheet = pixels(tmp_path / "sheet.png")
    assert np.array_equal(sheet[2:66], sheet[68:132])


def test_a_reference_is_made_for_ours_and_for_other_tools(fd, well, samples, tmp_path):
    told = json.loads(well("fid", "--make-ref", "digits", "-o", tmp_path / "ref.npz", *SMALL, "--json"))
    assert told["source"]["images"] == 1797
    with np.load(tmp_path / "ref.npz", allow_pickle=False) as archive:  # as EDM's and clean-fid's tools do
        mu, sigma = archive["mu"], archive["sigma"]
    rows = features_of(registry.build("datasets", "digits", None).batch(range(1797))[0])
    np.testing.assert_allclose(mu, rows.mean(0), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(sigma, np.cov(rows.T), rtol=1e-9, atol=1e-12)
    value = fd(samples[0], "--ref", tmp_path / "ref.npz")["value"]
    assert value == pytest.approx(fd(samples[0], "--ref", "digits")["value"], rel=1e-9)


def test_a_reference_batch_has_moments_and_images(fd, cm, samples, tmp_path):
    with np.load(samples[1]) as archive:
        images = archive["arr_0"]
    np.savez(tmp_path / "batch.npz", arr_0=images, mu=np.ones(64), sigma=np.eye(64))
    words = [samples[0], "--ref", tmp_path / "batch.npz", "--metrics", "fid,prdc"]
    values = {row["metric"]: row["value"] for row in fd(*words)["metrics"]}
    rows = features_of(images.transpose(0, 3, 1, 2))
    root = np.sqrt(np.linalg.eigvalsh(np.cov(rows.T)).clip(0)).sum()
    wanted = ((rows.mean(0) - 1) ** 2).sum() + np.trace(np.cov(rows.T)) + 64 - 2 * root
    assert values["FD-small"] == pytest.approx(wanted, rel=1e-6)
    assert values["precision"] == values["coverage"] == 1
    np.savez(tmp_path / "bare.npz", mu=np.ones(64), sigma=np.eye(64))
    told = cm("fid", samples[0], "--ref", tmp_path / "bare.npz", "--metrics", "kid", *SMALL)
    assert told.code == 2 and "these metrics need its images" in told.error[0]


def test_a_run_scores_every_checkpoint_and_average_and_draws_the_curve(fd, well, trained, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained["tuned"], run)
    model = open_any(run / "model.safetensors")
    kept = {"power-0.05-00000064": ("power:0.05", 64), "power-0.05-00000128": ("power:0.05", 128)}
    for name, (track, images) in kept.items():
        header = dataclasses.replace(model.header, images=images, average={"ema": track})
        save(run / "ema" / f"{name}.safetensors", model.model, header)
    words = [f"{run}/", "--ref", "digits[:300]", "-n", "64"]
    document = fd(*words)
    rows = document["checkpoints"]
    assert [(row["track"], row["images"]) for row in rows[1:]] == list(kept.values())
    assert len({row["FD-small"] for row in rows}) == 1  # the same weights
    assert document["value"] == rows[0]["FD-small"] == fd(*words, "--every", "0")["value"]
    assert pixels(run / "fid.png").shape[2] == 3 and document["chart"] == str(run / "fid.png")
    assert [row["images"] for row in fd(*words, "--every", "2")["checkpoints"]][1:] == [128]
    assert "power:0.05" in well("fid", *words, *SMALL)


def test_without_a_reference_a_model_is_compared_with_what_it_learned_from(fd, cm, trained, monkeypatch, tmp_path):
    asked, told = fd(trained["tuned"], "--ref", "digits", "-n", "70"), fd(trained["tuned"], "-n", "70")
    assert asked["value"] == told["value"] and told["reference"]["data"] == "digits"
    assert told["source"]["seeds"] == "0-69" and told["source"]["model"]["images"] == 128
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CMTOOL_ASSETS", str(tmp_path))
    shutil.copytree(trained["tuned"], tmp_path / "runs" / "train-ct" / "mine")
    alone = cm("fid", "-n", "70")
    assert alone.code == 0 and alone.out.startswith("FD-small  ")
    assert "FID's network is not here" in alone.err


def test_options_of_drawing_do_nothing_to_images_and_are_refused(cm, samples):
    for words in (["--steps", "2"], ["--guidance", "2"], ["--class", "1"], ["--sigmas", "80,1"]):
        told = cm("fid", samples[0], "--ref", "digits", *words, *SMALL)
        assert told.code == 2
        assert told.error == (
            f"{words[0]} is about how a model draws images, and '{samples[0]}' is no model",
            "leave it out",
        )


def test_a_protocol_means_a_network_a_resizing_and_a_rounding(cm, samples, monkeypatch, tmp_path):
    monkeypatch.setenv("CMTOOL_ASSETS", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    files = {"edm": "inception-2015-12-05.pt", "clean": "inception-2015-12-05.pt"}
    files |= dict.fromkeys(("adm", "pytorch-fid"), "pt_inception-2015-12-05-6726825d.pth")
    for protocol, file in files.items():
        told = cm("fid", samples[0], "--ref", "digits", "--protocol", protocol)
        assert told.code == 69 and told.error[0].startswith(file)
        assert "cmtool fetch inception" in told.error[1]
    for words in (["--features", "small"], ["--set", "features.mode=clean"]):
        told = cm("fid", samples[0], "--ref", "digits", "--protocol", "edm", *words)
        assert told.code == 2 and "--protocol edm" in told.error[0]
    x = torch.tensor([-2.0, -1, -0.999, 0, 0.999, 1, 2])
    assert truncate_to_pixels(x).tolist() == [0, 0, 0, 127, 254, 255, 255]  # int((x + 1) * 127.5)
    assert to_pixels(x).tolist() == [0, 0, 0, 128, 255, 255, 255]


def test_a_number_is_called_by_how_many_images_it_is_of():
    names = [_label(Score("FID", 2.0), n)["name"] for n in (50_000, 10_000, 49_999, 200, None)]
    assert names == ["FID-50k", "FID-10k", "FID-49999", "FID-200", "FID"]
    assert _label(Score("FD-small", 2.0), 50_000)["name"] == "FD-small"


def test_metrics_that_features_cannot_tell_are_refused_at_once(cm, samples):
    for metric, name in (("sfid", "sFID"), ("is", "IS")):
        told = cm("fid", samples[0], "--ref", "digits", "--metrics", metric, *SMALL)
        assert told.code == 2 and told.error[0].startswith(f"{name} looks at more of the network")
    told = cm("fid", samples[0], "--ref", "digits", "--metrics", "fid,nope", *SMALL)
    assert told.code == 2 and told.error[0] == "unknown metric 'nope'"
    told = cm("fid", samples[0], "--ref", "digits", "--metrics", "fid,kid,fid", *SMALL)
    assert told.code == 2 and told.error[0].startswith("--metrics must name each metric once")
    told = cm("fid", samples[0], "--ref", "digits", "--sheet", "a.png", *SMALL)
    assert told.error == ("--sheet shows what the metric memorization found", "add --metrics memorization")


def test_a_metric_has_options_of_its_own(fd, cm, samples):
    rows, real = (torch.from_numpy(features_of(read(path))).float() for path in (samples[1], None))
    words = [samples[1], "--ref", "digits[0::4]", "--set", "metrics=[{name: kid, subsets: 3, size: 50}]"]
    (row,) = fd(*words)["metrics"]
    assert row["subsets"] == 3
    assert row["value"] == pytest.approx(kernel_distance(rows, real, subsets=3, size=50), rel=1e-6)
    told = cm("fid", *words[:-1], "metrics=[{name: kid, subsets: 0}]", *SMALL)
    assert told.code == 2 and told.error[0] == "option 'subsets' of metric 'kid' must be at least 1, not 0"


def read(path):
    """uint8 [N, C, H, W] of an npz, or every fourth of the digits."""
    if path is None:
        digits = registry.build("datasets", "digits", None)
        return np.stack([digits[i][0] for i in range(0, len(digits), 4)])
    with np.load(path) as archive:
        return archive["arr_0"].transpose(0, 3, 1, 2)
