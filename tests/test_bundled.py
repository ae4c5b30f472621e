"""The bundled models: small, pinned, found by name, and worth shipping."""

import json

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cmtool import bundled as shipped
from cmtool import load
from cmtool.bundled import SHA256, bundled
from cmtool.cli import run
from cmtool.datasets.shapes import shapes
from cmtool.errors import BadFile, MissingInput
from cmtool.features.small import small
from cmtool.files.header import read_header
from cmtool.pipelines.image_sets import is_model
from cmtool.pipelines.inputs import checkpoint_path


def test_they_are_small_and_what_they_say():
    paths = {kind: bundled(kind) for kind in SHA256}
    assert sum(path.stat().st_size for path in paths.values()) < 6_000_000
    for kind, path in paths.items():
        header = read_header(path, whole=True)
        assert (header.kind, header.shape, header.num_classes) == (kind, (3, 32, 32), 10)
        assert checkpoint_path(shipped.Path(f"shapes-{kind}")) == path
        assert all(not parent["path"].startswith("/") for parent in header.parents)


def test_info_knows_them_by_name(capsys):
    assert run(["info", "shapes-score", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["header"]["kind"] == "score"


@pytest.mark.parametrize("name", ["shape-score", "shapes_score", "shapes-scores", "shapes-score.safetensors"])
def test_nearly_their_names_are_told(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingInput) as caught:
        checkpoint_path(shipped.Path(name))
    assert caught.value.hint == "did you mean shapes-score, which comes with cmtool?"


def test_every_command_and_load_know_their_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_model("shapes-score")
    assert load("shapes-consistency").header.kind == "consistency"
    (tmp_path / "shapes-score").write_bytes(b"a file of this name comes first")
    assert checkpoint_path(shipped.Path("shapes-score")) == shipped.Path("shapes-score")


def test_another_file_in_their_place_is_refused(tmp_path, monkeypatch):
    (tmp_path / "shapes-score.safetensors").write_bytes(bundled("consistency").read_bytes())
    monkeypatch.setattr(shipped, "files", lambda package: tmp_path)
    with pytest.raises(BadFile, match="is not the model that came with cmtool"):
        bundled("score")


def described(images: torch.Tensor) -> np.ndarray:
    return np.concatenate([np.asarray(small()(part)) for part in images.split(500)])


@pytest.mark.parametrize("steps", [1, 2])
def test_samples_are_recognised_as_their_class(tmp_path, monkeypatch, steps):
    """By a logistic regression on the features of 1,000 real shapes, right about others; 95 of 100 are asked for."""
    monkeypatch.chdir(tmp_path)
    taught, asked = (shapes(seed=1).batch(range(start, start + 1000)) for start in (0, 1000))
    judge = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(described(taught[0]), taught[1])
    assert judge.score(described(asked[0]), asked[1]) > 0.99
    assert run(["sample", "-n", "200", "--steps", str(steps), "-o", "drawn.npz", "--quiet"]) == 0
    stored = np.load("drawn.npz")
    assert judge.score(described(torch.from_numpy(stored["arr_0"]).permute(0, 3, 1, 2)), stored["arr_1"]) > 0.95


def test_distill_begins_with_the_bundled_teacher(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["--images", "16", "--batch", "8", "--snapshots", "0", "--run-dir", "run", "--json", "--quiet"]
    assert run(["distill", *words]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "consistency"
    assert read_header(tmp_path / "run" / "model.safetensors").parents[0]["sha256"] == SHA256["score"]
