import hashlib
import json
import sys

import numpy as np
import pytest
import torch
from tiny import random_model

from cmtool import registry
from cmtool.evaluation.references import Statistics, write_statistics

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
    document = fd(trained["ect"], "--ref", "digits", "-n", "80")
    assert document["source"]["images"] == 80
    assert document["source"]["evaluations"] == 1
    assert document["value"] == fd(trained["ect"] / "model.safetensors", "--ref", "digits", "-n", "80")["value"]


def test_the_name_of_a_data_set_is_no_folder_beside_it(fd, trained, tmp_path, monkeypatch):
    """A run called ``digits`` lay in the working directory, and its model was compared with itself."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").symlink_to(trained["ect"])
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
    assert fd(*words, "--levels", "80")["value"] == one
    conditional = random_model(tmp_path / "c.safetensors", classes=3)
    assert fd(conditional, *words[1:], "--class", "1")["value"] != fd(conditional, *words[1:], "--class", "2")["value"]
