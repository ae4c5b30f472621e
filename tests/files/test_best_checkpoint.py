"""The best checkpoint of a run that goes forth and back."""

import random

import pytest
import torch

from cmtool.core.denoiser import Denoiser, Preconditioning
from cmtool.files.best_checkpoint import prune_best, read_best, rewind_best, set_aside_best
from cmtool.files.checkpoint import load, save
from cmtool.files.header import Header
from cmtool.options import registry


@pytest.fixture
def keep(tmp_path):
    """Make a model of ``images`` the best one; its one telling weight is that number."""
    spec = {"name": "mlp", "hidden_dim": 4}
    net = registry.build("backbones", spec, (2,), 0)
    data = {"name": "none", "shape": [2], "classes": [], "notice": ""}

    def call(images, value):
        set_aside_best(tmp_path)
        with torch.no_grad():
            next(net.parameters()).fill_(images)
        evaluation = {"metric": "FD-small", "value": value, "n": 100}
        header = Header("score", spec, {}, data, 0, 0.002, 80.0, images=images, evaluation=evaluation)
        save(tmp_path / "best.safetensors", Denoiser(net, Preconditioning(0.5, 0.0)), header)

    return call


def kept(folder):
    """The images of the best checkpoint, as its header and its weights say, and of those set aside."""
    header = read_best(folder)
    if header:
        assert next(load(folder / "best.safetensors").model.parameters()).unique().tolist() == [header.images]
    return header and header.images, sorted(int(path.stem) for path in (folder / "best").glob("*"))


def test_what_was_the_best_then_comes_back(keep, tmp_path):
    assert kept(tmp_path) == (None, [])
    for images in (100, 200, 300, 400):
        keep(images, 1 / images)
    assert kept(tmp_path) == (400, [100, 200, 300])
    prune_best(tmp_path, [250, 399])  # a state at 250 would have 200 as its best
    assert kept(tmp_path) == (400, [200, 300])
    prune_best(tmp_path, [250])
    assert kept(tmp_path) == (400, [200])
    rewind_best(tmp_path, 350)
    assert kept(tmp_path) == (200, [])
    rewind_best(tmp_path, 350)
    assert kept(tmp_path) == (200, [])
    keep(500, 0.0)
    prune_best(tmp_path, [500])
    assert kept(tmp_path) == (500, [])
    rewind_best(tmp_path, 499)
    assert kept(tmp_path) == (None, [])


@pytest.mark.parametrize("seed", range(20))
def test_any_history_leaves_the_best_of_what_is_past(keep, tmp_path, seed):
    """Against a list of all evaluations that are not taken back; states are kept at random."""
    rng, now, history, states = random.Random(seed), 0, [], [0]
    for _ in range(12):
        now += 10
        value = rng.random()
        if not history or value < min(v for v, _ in history):
            keep(now, value)
        history.append((value, now))
        if rng.random() < 0.5:
            states = [*states, now][-2:]
            prune_best(tmp_path, states)
        if rng.random() < 0.3:
            now = rng.choice(states)
            states = [state for state in states if state <= now]
            history = [(v, i) for v, i in history if i <= now]
            rewind_best(tmp_path, now)
        assert kept(tmp_path)[0] == (min(history)[1] if history else None)


def test_a_kill_between_setting_aside_and_saving_loses_nothing(keep, tmp_path):
    keep(100, 0.5)
    set_aside_best(tmp_path)
    assert kept(tmp_path) == (None, [100])
    rewind_best(tmp_path, 150)
    assert kept(tmp_path) == (100, [])


def test_a_damaged_one_is_none(keep, tmp_path):
    keep(100, 0.5)
    keep(200, 0.4)
    (tmp_path / "best.safetensors").write_bytes(b"no checkpoint")
    assert read_best(tmp_path) is None
    rewind_best(tmp_path, 300)
    assert kept(tmp_path) == (100, [])
