"""Ranks count where a launcher has set them, and a part of a file is never told as the whole."""

import json

import pytest
from tiny import random_model

from cmtool.pipelines.distributed import World, find_world, has_stray_rank, shard_of

RANKS = {"RANK": "1", "WORLD_SIZE": "4"}
LAUNCHERS = [{"TORCHELASTIC_RUN_ID": "none"}, {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"}]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return random_model(tmp_path_factory.mktemp("grey") / "model.safetensors", (1, 8, 8))


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_ranks_of_a_launcher_count(launcher):
    assert shard_of("2/3", RANKS | launcher) == (6, 12)
    assert find_world(RANKS | launcher) == World(1, 4, 0, "torchrun")
    assert has_stray_rank(RANKS | launcher) is None


@pytest.mark.parametrize("other", [{}, {"LOCAL_RANK": "1"}, {"MASTER_ADDR": "10.0.0.1"}])
def test_ranks_that_were_left_over_do_not_count_and_are_told(other):
    assert shard_of("2/3", RANKS | other) == (2, 3)
    assert has_stray_rank(RANKS | other).startswith("RANK=1 and WORLD_SIZE=4 are set, and no launcher")
    assert has_stray_rank(other) is None
    assert has_stray_rank({"RANK": "0", "WORLD_SIZE": "1"}) is None
    assert shard_of(None, {"RANK": "x", "WORLD_SIZE": "0"}) == (1, 1)


def test_all_images_are_made_where_ranks_were_left_over(cm, model, tmp_path, monkeypatch):
    for name, value in RANKS.items():
        monkeypatch.setenv(name, value)
    told = cm("sample", "-m", model, "-n", 4, "-o", tmp_path / "x.npz", "--json")
    assert (json.loads(told.out)["made"], (tmp_path / "x.npz").exists()) == (4, True)
    assert "cmtool: warning: RANK=1 and WORLD_SIZE=4 are set" in told.err


@pytest.mark.parametrize("name", ["x.npz", "x.tar"])
def test_the_name_of_a_part_is_told_until_all_are_there(cm, model, tmp_path, monkeypatch, name):
    for key, value in {"RANK": "0", "WORLD_SIZE": "2", **LAUNCHERS[0]}.items():
        monkeypatch.setenv(key, value)
    words = ("sample", "-m", model, "-n", 4, "-o", tmp_path / name)
    first = cm(*words)
    assert first.out == f"{tmp_path / name}.1-of-2\n"
    assert (tmp_path / f"{name}.1-of-2").exists()
    assert ", part 1/2 (rank 0 of 2)," in first.err
    assert f"the process that ends last makes {tmp_path / name}" in first.err
    monkeypatch.setenv("RANK", "1")
    assert cm(*words).out == f"{tmp_path / name}\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == [name, f"{name}.manifest.jsonl"]


def test_arguments_that_other_programs_take(cm):
    assert cm("fid", "a", "b c").error[1] == "the images to compare with are named by a flag: --ref 'b c'"
    assert cm("train-score", "data=x").error[1] == "options are written with a flag: --data x"
    assert cm("sample", "micro_batch=3").error[1] == "cmtool sample --help"
    assert cm("train-ct", "micro_batch=3 4").error[1] == "options are written with a flag: --micro-batch 3"
