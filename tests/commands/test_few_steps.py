"""Models distilled to a walk of a few steps, and methods that need a certain kind of model to go on from."""

import pytest
import torch
from safetensors.torch import load_file
from tiny import NETWORK, SHORT

from cmtool.errors import UsageError
from cmtool.files.header import Header, read_header
from cmtool.pipelines.sampler_setup import set_up_sampler
from cmtool.settings.sampling import GenerationOptions

STAGED = [*SHORT, "--set", "method.first=4", "--micro-batch", "8"]


def header(**fields) -> Header:
    known = {"kind": "score", "backbone": {}, "preconditioning": {}, "data": {"shape": [1]}, "num_classes": 0}
    return Header(**{**known, "sigma_min": 0.002, "sigma_max": 80.0, **fields})


def test_a_model_that_was_distilled_to_a_walk_takes_it():
    few = header(sigmas=[80.0, 2.5])
    for options in (None, GenerationOptions(steps=2)):
        made = set_up_sampler(few, options)
        assert made.sigmas.tolist() == [80.0, 2.5, 0.0]
        assert (made.sampler.solver.order, made.nfe) == (1, 2)
    with pytest.raises(UsageError, match="takes the 2 steps that it was distilled to, not 3"):
        set_up_sampler(few, GenerationOptions(steps=3))
    tried = set_up_sampler(few, GenerationOptions(solver={"name": "heun"}))
    assert (tried.sampler.solver.order, len(tried.sigmas)) == (2, 19)
    assert set_up_sampler(few, GenerationOptions(sigmas=[80.0, 3.0, 0.5])).sigmas.tolist() == [80.0, 3.0, 0.5, 0.0]


def test_progressive_distillation_goes_on_to_the_bit(cm, stopped, trained, tmp_path):
    """Stopped in the stage of 2 steps: its teacher, a student once, is in the snapshot."""
    begin = ["distill", "-t", trained["teacher"], "-d", "digits", "--method", "pd", *STAGED]
    assert cm(*begin, "--run-dir", tmp_path / "whole").code == 0
    assert stopped(*begin).code == 130
    assert read_header(tmp_path / "run" / "model.safetensors").sigmas == pytest.approx([80.0, 2.5152], rel=1e-4)
    assert cm("distill", "--resume", tmp_path / "run").code == 0
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("run", "whole"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    end = read_header(tmp_path / "run" / "model.safetensors")
    assert (end.kind, end.sigmas, end.method) == ("score", [80.0], "distill pd")


def test_segments_are_walked_by_default(cm, well, trained, tmp_path):
    well("distill", "-t", trained["teacher"], "-d", "digits", "--method", "mcd", *SHORT, "--run-dir", tmp_path / "mcd")
    told = cm("sample", "--model", tmp_path / "mcd", "-n", "4", "-o", tmp_path / "out")
    assert told.code == 0
    assert "80, 2.515, 0" in told.err


def test_truncated_training_goes_on_from_a_consistency_model(cm, well, trained, tmp_path):
    told = cm("train-ct", "-d", "digits", "--method", "tcm", *NETWORK, *SHORT)
    sentence = "'tcm' goes on from a consistency model, and there is no --init"
    hint = "train one first, with 'cmtool train-ct --method ect', then: --method tcm --init RUN"
    assert (told.code, told.error) == (2, (sentence, hint))
    told = cm("train-ct", "-d", "digits", "--method", "tcm", "--init", trained["teacher"], *SHORT)
    path = trained["teacher"] / "model.safetensors"
    assert told.error[0] == f"'tcm' goes on from a consistency model, and {path} is a score model"
    well(
        "train-ct", "-d", "digits", "--method", "tcm", "--init", trained["tuned"], *SHORT, "--run-dir", tmp_path / "tcm"
    )
    found = read_header(tmp_path / "tcm" / "model.safetensors")
    assert (found.kind, found.sigma_min, found.sigmas) == ("consistency", 1.0, [1.0])
    assert set_up_sampler(found).sigmas.tolist() == [80.0, 1.0]  # it takes the second step that its file recommends
    assert set_up_sampler(found, GenerationOptions(steps=2)).sigmas.tolist() == [80.0, 1.0]
    with pytest.raises(UsageError, match=r"the model knows noise levels from 1 to 80, not 80, 0\.5"):
        set_up_sampler(found, GenerationOptions(sigmas=[80.0, 0.5]))


@pytest.mark.parametrize("method", ["stable", "cmt"])
def test_neither_threads_nor_pieces_change_what_is_learnt(well, trained, tmp_path, monkeypatch, method):
    """Posterior means see the whole batch, and walks are shared, wherever it is cut; threads change no bit."""
    begin = {
        "stable": ["train-ct", "-d", "digits", "--method", "stable", *NETWORK],
        "cmt": ["distill", "-t", trained["teacher"], "-d", "digits", "--method", "cmt"],
    }[method]
    kept = {}
    for name, threads, piece in (("a", "1", "8"), ("b", "2", "8"), ("c", "1", "12")):
        monkeypatch.setenv("CMTOOL_THREADS", threads)
        well(*begin, *SHORT, "--micro-batch", piece, "--run-dir", tmp_path / name)
        kept[name] = load_file(tmp_path / name / "model.safetensors")
    assert all(torch.equal(kept["a"][key], kept["b"][key]) for key in kept["a"])
    assert all(torch.allclose(kept["a"][key], kept["c"][key], rtol=0, atol=2e-4) for key in kept["a"])
