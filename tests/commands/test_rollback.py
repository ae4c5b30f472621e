"""Gradients that are not finite: left out, one rollback with other draws, then a capsule that reproduces the step."""

import json
import os
import shutil
import signal

import pytest
import torch
from safetensors.torch import load_file
from tiny import TINY, listing

from cmtool.datasets.digits import digits
from cmtool.files.runs import read_status
from cmtool.files.sealed import load_state, save_state
from cmtool.objectives.consistency import Consistency
from cmtool.training.batches import BatchConfig, Batches

WORDS = ["train-ct", "-d", "digits", *TINY, "--images", "512", "--save-every", "64img"]
BAD = 128  # images that were seen when the gradients break


@pytest.fixture
def poison(monkeypatch):
    """Make the loss NaN from BAD images on, ``times`` times."""
    loss = Consistency.loss

    def arrange(times):
        left = [times]

        def poisoned(self, model, batch, progress):
            value = loss(self, model, batch, progress)
            if progress < BAD / 512 or not left[0]:
                return value
            left[0] -= 1
            return value * float("nan")

        monkeypatch.setattr(Consistency, "loss", poisoned)

    return arrange


def weights(path):
    return torch.cat([t.flatten() for t in load_file(path).values()])


def test_other_draws_have_other_noise_and_the_same_images():
    batches = Batches(digits(None), BatchConfig(16, seed=3))
    first = batches.at(1790)  # over the end of an epoch
    batches.draws = 1
    second = batches.at(1790)
    assert torch.equal(first.x, second.x)
    assert first.labels is not None
    assert torch.equal(first.labels, second.labels)
    assert not (first.u == second.u).any()
    assert not (first.z == second.z).any()
    for seed in (0, 2**63 - 2):
        batches = Batches(digits(None), BatchConfig(1, seed=seed))
        kinds = []
        for batches.draws in (0, 1):
            kinds.append(float(batches.at(0).u))
        assert len(set(kinds)) == 2


def test_five_in_a_row_go_back_once_with_other_draws(cm, poison, at, tmp_path):
    run, seen = tmp_path / "run", []
    poison(5)
    at(BAD + 5 * 32, lambda walk: seen.append((listing(run), weights(run / "model.safetensors"))))
    told = cm(*WORDS, "--run-dir", run)
    assert told.code == 0
    assert f"the last 5 gradients before 288 images were not finite; going on from {BAD} images with other" in told.err
    status = read_status(run)
    assert (status["draws"], status["skipped"], status["state"]) == (1, 0, "finished")
    (files, before), lines = seen[0], [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert sorted(name for name in files if name.startswith("states/")) == [
        "states/00000064.safetensors",
        f"states/{BAD:08d}.safetensors",
    ]
    assert [line["images"] for line in lines] == list(range(32, 513, 32))
    assert all(line["loss"] is not None for line in lines)
    assert torch.isfinite(before).all()
    assert all(torch.isfinite(t).all() for t in load_file(run / "states/00000512.safetensors").values())


@pytest.mark.parametrize("stop", [BAD + 64, BAD + 5 * 32, 352])
def test_a_run_that_went_back_is_resumed_to_the_same_bits(cm, poison, at, tmp_path, stop):
    """Stopped amid the steps that are left out, at the last of them, and after the rollback."""
    poison(5)
    assert cm(*WORDS, "--run-dir", tmp_path / "whole").code == 0
    poison(5)
    at(stop, lambda walk: os.kill(os.getpid(), signal.SIGINT))
    assert cm(*WORDS, "--run-dir", tmp_path / "run").code in (0, 130)
    poison(5 - (stop - BAD) // 32 if stop == BAD + 64 else 0)
    assert cm(*WORDS, "--run-dir", tmp_path / "run").code == 0
    ours, theirs = listing(tmp_path / "run"), listing(tmp_path / "whole")
    for name in ("model.safetensors", "states/00000512.safetensors", "metrics.jsonl"):
        assert ours[name] == theirs[name], name


def test_without_a_save_it_goes_back_to_the_beginning(cm, poison, tmp_path):
    poison(5)
    told = cm(*WORDS[:-2], "--run-dir", tmp_path / "run")
    assert (told.code, "going on from 0 images" in told.err) == (0, True)
    assert read_status(tmp_path / "run")["draws"] == 1


def test_the_second_time_the_weights_are_kept_and_the_run_ends(cm, stopped, poison, at, tmp_path):
    at(BAD, lambda walk: os.kill(os.getpid(), signal.SIGINT))
    assert cm(*WORDS, "--run-dir", tmp_path / "good").code == 130
    poison(10)
    run = tmp_path / "bad"
    told = cm(*WORDS, "--run-dir", run)
    assert told.code == 70
    sentence = f"the last 5 gradients were not finite, also after a rollback; the weights before them are in {run}"
    advice = "start again with a lower learning rate, --lr 0.001, or with --grad-clip 1; see where it breaks: "
    assert told.error == (sentence, f"{advice}cmtool train-ct --reproduce {run / 'capsule'}")
    status = read_status(run)
    assert (status["state"], status["images"], status["skipped"]) == ("failed", BAD + 5 * 32, 5)
    assert (status["draws"], status["exit_code"], status["capsule"]) == (1, 70, "capsule")
    assert torch.equal(weights(run / "model.safetensors"), weights(tmp_path / "good/model.safetensors"))
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["loss"] is None


def test_a_capsule_reproduces_the_step_with_one_command(cm, tmp_path):
    """A learning rate without measure: after the first step nothing is finite, with whatever draws."""
    words = ["train-score", "-d", "digits", *TINY, "--lr", "1e18", "--grad-clip", "0", "--images", "512"]
    run = tmp_path / "run"
    told = cm(*words, "--run-dir", run)
    assert told.code == 70
    capsule = tmp_path / "elsewhere"
    shutil.move(run / "capsule", capsule)
    shutil.rmtree(run)
    told = cm("train-score", "--reproduce", capsule, "--json")
    assert told.code == 70
    document = json.loads(told.out)
    # the first step leaves weights that break every other; the run goes back to its beginning, and does so again
    assert (document["images"], document["draws"], document["finite"]) == (32 + 4 * 32, 1, False)
    assert document["parameter"].startswith("net.")
    assert document["layer"] is None  # the numbers are so large that their squares alone overflow
    sentence = "the gradient of the step after 160 images is not finite: all outputs of the network are finite"
    assert told.error[0] == sentence
    assert sorted(listing(capsule)) == ["config.yaml", "state.safetensors"]
    assert not [name for name in load_file(capsule / "state.safetensors") if "average" in name or "optim" in name]


def test_the_first_layer_that_breaks_is_named(cm, poison, tmp_path):
    poison(10)
    assert cm(*WORDS, "--run-dir", tmp_path / "run").code == 70
    capsule = tmp_path / "run/capsule"
    tensors, scalars = load_state(capsule / "state.safetensors")
    name = [name for name in tensors if name.startswith("model.net.") and name.endswith(".weight")][3]
    tensors[name].view(-1)[5] = float("inf")
    save_state(capsule / "state.safetensors", tensors, scalars)
    told = cm("train-ct", "--reproduce", capsule, "--json")
    layer = name.removeprefix("model.").removesuffix(".weight")
    assert (told.code, json.loads(told.out)["layer"]) == (70, layer)
    assert told.error[0].endswith(f"the output of {layer} is the first")


def test_a_capsule_whose_step_is_finite_here(cm, poison, tmp_path):
    poison(10)
    assert cm(*WORDS, "--run-dir", tmp_path / "run").code == 70
    told = cm("train-ct", "--reproduce", tmp_path / "run/capsule", "--json")
    assert (told.code, json.loads(told.out)["finite"]) == (0, True)
    assert "the gradient is finite here" in told.err


def test_what_is_no_capsule(cm, poison, trained, tmp_path):
    told = cm("train-ct", "--reproduce", tmp_path / "nothing")
    assert (told.code, told.error[0]) == (66, f"there is no capsule {tmp_path / 'nothing'}")
    shutil.copytree(trained["tuned"], tmp_path / "run")
    assert cm("train-ct", "--reproduce", tmp_path / "run").code == 66
    poison(10)
    assert cm(*WORDS, "--run-dir", tmp_path / "bad").code == 70
    path = tmp_path / "bad/capsule/state.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    assert cm("train-ct", "--reproduce", tmp_path / "bad/capsule").code == 65
    told = cm("train-score", "--reproduce", tmp_path / "bad/capsule")
    assert (told.code, told.error[0]) == (2, f"{tmp_path / 'bad/capsule'} is a run of train-ct")
