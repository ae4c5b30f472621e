"""Score models of other parameterisations, trained and distilled from the command line."""

from tiny import NETWORK, TINY

from cmtool.files.header import read_header
from cmtool.files.sealed import load_state
from cmtool.options import registry

DIGITS = ["-d", "digits", *TINY]


def test_a_teacher_of_another_process_is_augmented_and_distilled(well, tmp_path):
    teacher, student = tmp_path / "teacher", tmp_path / "student"
    process = ["--method", "dsm", "--set", "method.process=subvp", "--augment", "0.5"]
    well("train-score", *DIGITS, *process, "--run-dir", teacher)
    well("distill", "-t", teacher, "-d", "digits", *TINY[len(NETWORK) :], "--run-dir", student)
    theirs, ours = (read_header(run / "model.safetensors") for run in (teacher, student))
    assert (theirs.preconditioning["form"], theirs.backbone["augment_dim"]) == ("noise-subvp", 9)
    assert ours.preconditioning == {**theirs.preconditioning, "sigma_min": 0.002}
    assert ours.backbone == theirs.backbone


def test_what_an_objective_learns_is_trained_and_kept(well, tmp_path):
    well("train-score", *DIGITS, "--method", "edm2", "--run-dir", tmp_path / "run")
    (state,) = (tmp_path / "run/states").iterdir()
    tensors, _ = load_state(state)
    assert tensors["objective.head.linear.weight"].any()


def test_a_network_that_cannot_be_told_is_not_trained_on_augmented_images(cm, monkeypatch):
    monkeypatch.setattr(registry, "options", lambda factory: {})
    told = cm("train-score", "-d", "digits", "--augment", "0.1")
    assert told.code == 2
    assert "would leak into its samples" in told.error[0]


def test_points_are_not_augmented(cm):
    told = cm("train-score", "-d", "gaussians", "--backbone", "mlp", "--augment", "0.1")
    assert told.code == 2
    assert "points" in told.error[0]
