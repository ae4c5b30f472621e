"""Flow maps from the command line: trained, sampled by any gamma, and refused where they cannot be."""

import numpy as np
import pytest
import torch
from tiny import NETWORK, TINY, pixels, random_model

from cmtool.commands.training.build import build_training
from cmtool.files.checkpoint import load
from cmtool.files.header import read_header
from cmtool.options import registry
from cmtool.options.types import Spec
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
    assert (header.kind, header.preconditioning["jumps"], header.backbone["augment"]) == ("consistency", True, 8)
    assert not read_header(teacher).preconditioning["jumps"]
    usual = images(student)
    assert np.abs(usual - images(student, "--gamma", "1")).max() <= 1
    assert np.abs(usual - images(student, "--gamma", "0")).max() > 1


def test_it_starts_as_its_teacher_whatever_it_is_told(teacher):
    options = DistillOptions(teacher=teacher, data=Spec(name="digits"), method=Spec(name="ctm"))
    job, origin = build_training(options, CPU), load(teacher)
    x, sigma, labels = torch.randn(3, 1, 8, 8), torch.tensor([80.0, 3.0, 0.1]), torch.tensor([1, 2, 3])
    told = job.state.model(x, sigma, labels, torch.randn(3, 8))
    assert torch.equal(told, origin(x, sigma, labels))


def test_hints_of_augmentation_are_not_mistaken_for_those_of_a_jump(well, tmp_path):
    well("train-score", "-d", "digits", *TINY, "--augment", "0.5", "--run-dir", tmp_path / "teacher")
    origin = load(tmp_path / "teacher" / "model.safetensors")
    options = DistillOptions(teacher=tmp_path / "teacher", data=Spec(name="digits"), method=Spec(name="ctm"))
    job = build_training(options, CPU)
    assert (origin.header.backbone["augment"], job.header.backbone["augment"]) == (9, 8)
    assert not job.state.model.net.embedding.hints.weight.any()
    assert torch.equal(job.state.model.net.enter.weight, origin.model.net.enter.weight)


def test_training_goes_on_with_what_a_flow_map_has_learnt(student):
    options = TrainCtOptions(init=student, data=Spec(name="digits"), method=Spec(name="meanflow"))
    job, origin = build_training(options, CPU), load(student)
    assert origin.model.net.embedding.hints.weight.any()
    assert torch.equal(job.state.model.net.embedding.hints.weight, origin.model.net.embedding.hints.weight)
    assert job.state.model.preconditioning == origin.model.preconditioning


def test_a_method_without_jumps_makes_a_plain_consistency_model_of_it(student):
    job = build_training(TrainCtOptions(init=student, data=Spec(name="digits"), method=Spec(name="ect")), CPU)
    assert not job.state.model.preconditioning.jumps


def test_meanflow_trains_from_random_weights(well, tmp_path):
    well("train-ct", "-d", "digits", "--method", "meanflow", *TINY, "--run-dir", tmp_path / "run")
    header = read_header(tmp_path / "run" / "model.safetensors")
    assert header.preconditioning["form"] == "velocity" and header.preconditioning["jumps"]


@pytest.mark.parametrize(
    ("kind", "reason"), [("consistency", "this one jumps to images alone"), ("score", "this one is a score model")]
)
def test_gamma_is_refused_by_other_models(cm, tmp_path, kind, reason):
    told = cm("sample", "-m", random_model(tmp_path / "m.safetensors", kind=kind), "--gamma", "0.5")
    assert told.code == 2
    assert reason in told.error[0] and "--method ctm" in told.error[1]


def test_gamma_and_another_convention_are_one_too_many(cm, student):
    told = cm("sample", "-m", student, "--gamma", "0.5", "--convention", "ect")
    assert told.code == 2
    assert "goes with no --convention" in told.error[0]


def test_a_network_that_cannot_be_told_where_to_jump_is_refused(cm, monkeypatch):
    monkeypatch.setattr(registry, "options", lambda factory: {})
    told = cm("train-ct", "-d", "digits", "--method", "meanflow")
    assert told.code == 2
    assert "cannot be told where to jump" in told.error[0]
