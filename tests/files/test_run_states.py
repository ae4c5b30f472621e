"""The states of a run: the newest that is whole is taken, and what was written after it is taken back."""

import json

import pytest
import torch

from cmtool.errors import BadFile, MissingInput
from cmtool.files.rewind import rewind
from cmtool.files.run_states import drop_states_beyond, keep_newest, newest_state, state_path, stored_states
from cmtool.files.sealed import save_state


def keep(folder, *numbers, **scalars):
    for images in numbers:
        save_state(state_path(folder, images), {"a": torch.full((3,), float(images))}, {"images": images, **scalars})


def names(folder):
    return sorted(path.name for path in (folder / "states").iterdir())


def taken(folder, **how):
    heard = []
    found = newest_state(folder, heard.append, **how)
    return found and found.scalars["images"], heard


def test_they_are_named_by_images_and_the_newest_is_taken(tmp_path):
    assert taken(tmp_path) == (None, [])
    keep(tmp_path, 999, 12_000, 123_456_789)
    assert names(tmp_path) == ["00000999.safetensors", "00012000.safetensors", "123456789.safetensors"]
    assert [path.stem for path in stored_states(tmp_path)] == ["123456789", "00012000", "00000999"]
    (tmp_path / "states" / "notes.safetensors").touch()
    (tmp_path / "states" / ".tmp-1-ab").touch()
    assert taken(tmp_path) == (123_456_789, [])


def test_an_older_one_is_taken_for_a_damaged_one_which_is_put_aside(tmp_path):
    keep(tmp_path, 100, 200, 300)
    for images in (200, 300):
        path = state_path(tmp_path, images)
        path.write_bytes(path.read_bytes()[:-1])
    images, heard = taken(tmp_path)
    assert images == 100
    assert [line.partition(" is damaged")[0] for line in heard] == [str(state_path(tmp_path, n)) for n in (300, 200)]
    assert all(line.endswith("; an older state is used, 00000100.safetensors") for line in heard)
    assert names(tmp_path) == ["00000100.safetensors", "00000200.damaged", "00000300.damaged"]
    assert taken(tmp_path) == (100, [])


def test_none_that_is_whole(tmp_path):
    keep(tmp_path, 100, 200)
    for images in (100, 200):
        state_path(tmp_path, images).write_bytes(b"no state")
    with pytest.raises(BadFile, match="has no training state that is whole"):
        taken(tmp_path)
    assert names(tmp_path) == ["00000100.safetensors", "00000200.safetensors"]


def test_one_that_cannot_be_read_is_not_passed_over(tmp_path):
    """A disk that is away for a while is no damage."""
    keep(tmp_path, 100)
    state_path(tmp_path, 200).symlink_to(tmp_path / "away")
    with pytest.raises(MissingInput):
        taken(tmp_path)


def test_one_that_is_good(tmp_path):
    keep(tmp_path, 100, streak=0)
    keep(tmp_path, 200, 300, streak=2)
    good = {"good": lambda state: not state.scalars["streak"]}
    assert taken(tmp_path, **good) == (100, [])
    state_path(tmp_path, 100).unlink()
    assert taken(tmp_path, **good) == (None, [])
    assert names(tmp_path) == ["00000200.safetensors", "00000300.safetensors"]


def test_the_one_state_of_older_versions_becomes_the_first(tmp_path):
    save_state(tmp_path / "state.safetensors", {"a": torch.zeros(2)}, {"images": 64, "skipped": 0})
    before = (tmp_path / "state.safetensors").read_bytes()
    assert taken(tmp_path) == (64, [])
    assert state_path(tmp_path, 64).read_bytes() == before
    assert not (tmp_path / "state.safetensors").exists()
    save_state(tmp_path / "state.safetensors", {}, {"images": 96})
    assert taken(tmp_path) == (64, [])  # a run that has states has no use for it
    other = tmp_path / "other"
    save_state(other / "state.safetensors", {}, {"images": -3})
    with pytest.raises(BadFile, match="does not say how many images"):
        taken(other)


def test_old_ones_go(tmp_path):
    keep(tmp_path, 1, 2, 3, 4)
    keep_newest(tmp_path, 2)
    assert names(tmp_path) == ["00000003.safetensors", "00000004.safetensors"]
    drop_states_beyond(tmp_path, 3)
    assert names(tmp_path) == ["00000003.safetensors"]
    keep_newest(tmp_path, 2)
    keep_newest(tmp_path / "nowhere", 2)
    assert names(tmp_path) == ["00000003.safetensors"]


def test_what_is_beyond_a_state_is_taken_back(tmp_path):
    keep(tmp_path, 64, 96)
    for folder in ("ema", "samples"):
        (tmp_path / folder).mkdir()
    kept = ["ema/power-0.1-00000064.safetensors", "ema/power-0.1.safetensors", "samples/00000064.png", "samples/my.png"]
    gone = ["ema/power-0.1-00000096.safetensors", "samples/00000096.png", "samples/.tmp-2-cd", "ema/.tmp-1-ab"]
    gone += ["states/.tmp-3-ef"]
    for name in (*kept, *gone):
        (tmp_path / name).touch()
    for name in ("metrics.jsonl", "timing.jsonl"):
        (tmp_path / name).write_text("".join(f'{{"images": {n}}}\n' for n in (32, 64, 96)) + '{"imag')
    rewind(tmp_path, 64)
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {*kept, "states/00000064.safetensors", "metrics.jsonl", "timing.jsonl"}
    for name in ("metrics.jsonl", "timing.jsonl"):
        assert [json.loads(line)["images"] for line in (tmp_path / name).read_text().splitlines()] == [32, 64]
