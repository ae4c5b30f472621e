import json

import pytest
import torch
import yaml
from safetensors.torch import load_file
from tiny import NETWORK, TINY, listing, pixels

from cmtool.files.header import read_header
from cmtool.files.runs import read_status
from cmtool.objectives.consistency import Consistency


def test_a_run_directory_holds_what_was_done(trained):
    run = trained["tuned"]
    names = {
        "config.yaml",
        "data.json",
        "metrics.jsonl",
        "timing.jsonl",
        "model.safetensors",
        "states/00000128.safetensors",
        "status.json",
        ".lock",
    }
    assert set(listing(run)) == names | {"samples/00000128.png"}
    assert pixels(run / "samples" / "00000128.png").shape == (4 * 66 + 2, 10 * 66 + 2)

    config = yaml.safe_load((run / "config.yaml").read_text())
    assert (config["data"], config["batch"], config["lr"]) == ("digits", 32, 0.003)
    assert config["method"]["name"] == "stable"
    assert config["backbone"] == {"name": "unet", "model_channels": 16, "channel_mult": [1], "num_blocks": 1}

    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["images"] for line in lines] == [32, 64, 96, 128]
    assert all(line["loss"] > 0 and line["gradient"] > 0 and line["skipped"] == 0 for line in lines)
    assert lines[0]["lr"] == 0.003
    assert read_status(run)["state"] == "finished"


def test_a_checkpoint_says_where_it_comes_from(trained):
    teacher, student = (read_header(trained[name] / "model.safetensors", whole=True) for name in ("teacher", "student"))
    assert (teacher.kind, teacher.method, teacher.images) == ("score", "train-score edm", 128)
    assert (student.kind, student.method, student.num_classes) == ("consistency", "distill ecd", 10)
    assert (student.preconditioning["form"], student.preconditioning["time"]) == ("edm", "log")
    assert student.preconditioning == {**teacher.preconditioning, "sigma_min": 0.002}
    assert teacher.preconditioning["sigma_min"] == 0.0
    (parent,) = student.parents
    assert parent["path"] == str(trained["teacher"] / "model.safetensors")
    assert student.backbone == teacher.backbone
    assert "UCI" in student.data["notice"]


def test_the_config_of_a_run_makes_the_same_run(well, trained, tmp_path):
    well("train-ct", "-c", trained["tuned"] / "config.yaml", "--run-dir", tmp_path / "again")
    for name in ("model.safetensors", "states/00000128.safetensors", "config.yaml", "samples/00000128.png"):
        assert (tmp_path / "again" / name).read_bytes() == (trained["tuned"] / name).read_bytes()


def test_a_dry_run_writes_nothing(well, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    document = json.loads(well("train-ct", "-d", "digits", *TINY, "--dry-run", "--json"))
    assert listing(tmp_path) == {}
    assert (document["images"], document["steps"], document["data"]["shape"]) == (128, 4, [1, 8, 8])
    net = document["parameters"]
    well("train-ct", "-d", "digits", *TINY, "--run-dir", "run")
    tensors = load_file("run/model.safetensors")
    buffers = sum(t.numel() for name, t in tensors.items() if name.endswith("frequencies"))
    assert net == sum(t.numel() for t in tensors.values()) - buffers
    assert (tmp_path / "run" / "states/00000128.safetensors").stat().st_size == pytest.approx(
        document["state_bytes"], rel=0.2
    )
    assert (tmp_path / "run" / "model.safetensors").stat().st_size == pytest.approx(
        document["checkpoint_bytes"], rel=0.2
    )


def test_what_is_no_run_is_left_alone(cm, trained, tmp_path):
    """A picture, a folder of options alone, and a run whose options somebody has taken away."""
    for place, names in {"a": ["photo.png"], "b": ["config.yaml"], "c": ["status.json", "model.safetensors"]}.items():
        (tmp_path / place).mkdir()
        for name in names:
            source = trained["tuned"] / name
            (tmp_path / place / name).write_bytes(source.read_bytes() if source.is_file() else b"mine")
        before = listing(tmp_path / place)
        told = cm("train-ct", "-d", "digits", *TINY, "--run-dir", tmp_path / place)
        assert (told.code, told.error[0]) == (2, f"{tmp_path / place} is not empty")
        assert listing(tmp_path / place) == before


def test_a_few_steps_that_are_not_finite_are_left_out(cm, tmp_path, monkeypatch):
    loss = Consistency.loss

    def poisoned(self, model, batch, progress):
        return loss(self, model, batch, progress) * (float("inf") if progress == 0.25 else 1)

    monkeypatch.setattr(Consistency, "loss", poisoned)
    told = cm("train-ct", "-d", "digits", *TINY, "--run-dir", tmp_path / "run", "--json")
    assert told.code == 0
    assert json.loads(told.out)["skipped"] == 1
    assert all(torch.isfinite(t).all() for t in load_file(tmp_path / "run" / "states/00000128.safetensors").values())


def test_too_little_memory_is_said_in_one_sentence(cm, tmp_path, monkeypatch):
    def loss(*args):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Consistency, "loss", loss)
    told = cm("train-ct", "-d", "digits", *TINY, "--run-dir", tmp_path / "run")
    assert (told.code, told.error[0]) == (71, "there is not enough memory to train on one image at a time")
    assert read_status(tmp_path / "run")["state"] == "failed"


def test_a_run_says_that_it_is_running(cm, at, tmp_path):
    seen = []
    at(64, lambda walk: seen.append(read_status(walk.folder)["state"]))
    assert cm("train-ct", "-d", "digits", *TINY, "--run-dir", tmp_path / "run").code == 0
    assert seen == ["running"]


def test_smaller_pieces_take_the_same_steps(well, tmp_path):
    words = [
        "train-ct",
        "-d",
        "digits",
        *NETWORK,
        "--images",
        "96",
        "--batch",
        "32",
        "--lr",
        "1e-3",
        "--snapshots",
        "0",
    ]
    well(*words, "--run-dir", tmp_path / "whole")
    well(*words, "--micro-batch", "8", "--run-dir", tmp_path / "pieces")
    whole, pieces = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "pieces"))
    assert max(float((whole[name] - pieces[name]).abs().max()) for name in whole) < 1e-5


@pytest.mark.parametrize("init", ["teacher", "tuned"])
def test_training_starts_from_given_weights(well, trained, tmp_path, init):
    words = ["train-ct", "--init", trained[init], "-d", "digits", *TINY[len(NETWORK) :], "--lr", "1e-30"]
    well(*words, "--run-dir", tmp_path / "run")
    before, after = (load_file(run / "model.safetensors") for run in (trained[init], tmp_path / "run"))
    assert all(torch.equal(before[name], after[name]) for name in before)
    (parent,) = read_header(tmp_path / "run" / "model.safetensors").parents
    assert parent["path"] == str(trained[init] / "model.safetensors")


def test_a_run_without_a_name_gets_one(well, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = well("train-score", "-d", "digits", *TINY, "--images", "32").strip()
    assert path.startswith("runs/train-score/")
    assert "-digits-" in path
    assert (tmp_path / path).is_file()


def test_a_labelled_set_can_be_learned_without_its_labels(well, cm, tmp_path):
    well("train-ct", "-d", "digits", *TINY, "--images", "32", "--no-conditional", "--run-dir", tmp_path / "run")
    assert read_header(tmp_path / "run" / "model.safetensors").num_classes == 0
    told = cm("sample", "-m", tmp_path / "run", "--class", "3")
    assert (told.code, told.error[0]) == (2, "this model was trained without classes and takes no --class")
