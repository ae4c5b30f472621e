"""Flow maps from the command line: trained, sampled by any gamma, and refused where they cannot be."""

import numpy as np
import pytest
import torch
from tiny import NETWORK, TINY, pixels, random_model

from cmtool.files.checkpoint import load
from cmtool.files.header import read_header
from cmtool.options import registry
from cmtool.options.types import Spec
from cmtool.pipelines.training_job import build_training
from cmtool.settings import DistillOptions, TrainCtOptions

LENGTH = TINY[len(NETWORK) :]
CPU = torch.device("cpu")


@pytest.fixture
def teacher(trained):
    return trained["teacher"] / "model.safetensors"


@pytest.fixture
def student(well, teacher, tmp_path):
    well("distill", "-t", teacher, "-d", "digits", "--method", "ctm", *LENGTH, "--run-dir", tmp_path / "student")
    return tmp_path / "student" / "model.safetensors"


@pytest.fixture
def images(well, tmp_path):
    def call(model, *words):
        well(
            "sample",
            "-m",
            model,
            "-n",
            "9",
            "--steps",
            "3",
            "-o",
            tmp_path / "out.npz",
            "--grid",
            tmp_path / "grid.png",
            *words,
        )
        return pixels(tmp_path / "grid.png").astype(int)

    return call


def test_a_distilled_flow_map_is_a_consistency_model_with_jumps(student, images, teacher):
    header = read_header(student)
    assert (header.kind, header.preconditioning["jumps"], header.backbone["target_dim"]) == ("consistency", True, 8)
    assert not read_header(teacher).preconditioning["jumps"]
    usual = images(student)
    assert np.abs(usual - images(student, "--gamma", "1")).max() <= 1
    assert np.abs(usual - images(student, "--gamma", "0")).max() > 1


def test_it_starts_as_its_teacher_whatever_it_is_told(teacher):
    options = DistillOptions(teacher=teacher, data=Spec(name="digits"), method=Spec(name="ctm"))
    job, origin = build_training(options, CPU), load(teacher)
    x, sigma, labels = torch.randn(3, 1, 8, 8), torch.tensor([80.0, 3.0, 0.1]), torch.tensor([1, 2, 3])
    there = job.state.model(x, sigma, labels, target_sigma=sigma * torch.rand(3))
    assert torch.equal(there, origin(x, sigma, labels))


def test_augment_labels_are_not_mistaken_for_a_target(well, tmp_path):
    well("train-score", "-d", "digits", *TINY, "--augment", "0.5", "--run-dir", tmp_path / "teacher")
    origin = load(tmp_path / "teacher" / "model.safetensors")
    options = DistillOptions(teacher=tmp_path / "teacher", data=Spec(name="digits"), method=Spec(name="ctm"))
    job = build_training(options, CPU)
    assert origin.header.backbone["augment_dim"] == job.header.backbone["augment_dim"] == 9
    assert "target_dim" not in origin.header.backbone and job.header.backbone["target_dim"] == 8
    assert not job.state.model.net.embedding.map_target.weight.any()
    assert torch.equal(job.state.model.net.enter.weight, origin.model.net.enter.weight)


def test_training_goes_on_with_what_a_flow_map_has_learnt(student):
    options = TrainCtOptions(init=student, data=Spec(name="digits"), method=Spec(name="meanflow"))
    job, origin = build_training(options, CPU), load(student)
    assert origin.model.net.embedding.map_target.weight.any()
    assert torch.equal(job.state.model.net.embedding.map_target.weight, origin.model.net.embedding.map_target.weight)
    assert job.state.model.preconditioning == origin.model.preconditioning


def test_a_method_without_jumps_makes_a_plain_consistency_model_of_it(student):
    job = build_training(TrainCtOptions(init=student, data=Spec(name="digits"), method=Spec(name="ect")), CPU)
    assert not job.state.model.preconditioning.jumps


def test_meanflow_trains_from_random_weights(well, tmp_path):
    well("train-ct", "-d", "digits", "--method", "meanflow", *TINY, "--run-dir", tmp_path / "run")
    header = read_header(tmp_path / "run" / "model.safetensors")
    assert header.preconditioning["form"] == "velocity" and header.preconditioning["jumps"]


@pytest.mark.parametrize(
    ("kind", "reason"), [("consistency", "this one steps to images alone"), ("score", "this one is a score model")]
)
def test_gamma_is_refused_by_other_models(cm, tmp_path, kind, reason):
    told = cm("sample", "-m", random_model(tmp_path / "m.safetensors", kind=kind), "--gamma", "0.5")
    assert told.code == 2
    assert reason in told.error[0] and "--method ctm" in told.error[1]


def test_gamma_and_another_convention_are_one_too_many(cm, student):
    told = cm("sample", "-m", student, "--gamma", "0.5", "--convention", "ect")
    assert told.code == 2
    assert "goes with no --convention" in told.error[0]


def test_a_network_that_takes_no_target_is_refused(cm, monkeypatch):
    monkeypatch.setattr(registry, "options", lambda factory: {})
    told = cm("train-ct", "-d", "digits", "--method", "meanflow")
    assert told.code == 2
    assert "does not take the noise level that a step leads to" in told.error[0]


def test_flow_maps_are_trained_on_augmented_images(well, tmp_path):
    """A teacher, its student and a model from data alone learn both conditions, each by a layer of its own."""
    augmented = ["-d", "digits", "--augment", "0.5"]
    well("train-score", *augmented, *TINY, "--run-dir", tmp_path / "teacher")
    teacher = tmp_path / "teacher" / "model.safetensors"
    well("distill", "-t", teacher, *augmented, "--method", "ctm", *LENGTH, "--run-dir", tmp_path / "ctm")
    well("train-ct", *augmented, "--method", "meanflow", *TINY, "--run-dir", tmp_path / "meanflow")
    for run in ("ctm", "meanflow"):
        loaded = load(tmp_path / run / "model.safetensors")
        assert (loaded.header.backbone["augment_dim"], loaded.header.backbone["target_dim"]) == (9, 8)
        embedding = loaded.model.net.embedding
        assert embedding.map_augment.weight.any() and embedding.map_target.weight.any()


def test_a_consistency_model_goes_on_with_augmentation_that_it_did_not_know(trained):
    options = TrainCtOptions(init=trained["tuned"], data=Spec(name="digits"), method=Spec(name="ect"), augment=0.1)
    job, origin = build_training(options, CPU), load(trained["tuned"] / "model.safetensors")
    assert not job.state.model.net.embedding.map_augment.weight.any()
    assert torch.equal(job.state.model.net.enter.weight, origin.model.net.enter.weight)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["distill", "--method", "ctm", "-t"], "was trained without augmentation"),
        (["train-ct", "--init"], "compares each image with others of the run"),
    ],
)
def test_augmentation_that_would_teach_what_is_wrong_is_refused(cm, teacher, words, reason):
    told = cm(*words, teacher, "-d", "digits", "--augment", "0.1", *LENGTH)
    assert told.code == 2
    assert reason in told.error[0]
