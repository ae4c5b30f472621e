"""There is asked for room before time is spent; what was saved stays when the disk is full."""

import errno
import json
import os
import resource
import signal
from collections import namedtuple

import pytest
from tiny import TINY, listing

from cmtool.commands.training import disk_space
from cmtool.files import sealed
from cmtool.files.runs import read_status

Usage = namedtuple("Usage", "total used free")
WORDS = ["train-ct", "-d", "digits", *TINY, "--save-every", "32img"]


@pytest.fixture
def free(monkeypatch):
    """Say how many bytes are free; a list of them is told one after the other, the last for ever."""

    def arrange(*sizes):
        left = list(sizes)
        monkeypatch.setattr(
            disk_space.shutil, "disk_usage", lambda place: Usage(1 << 40, 0, left.pop(0) if len(left) > 1 else left[0])
        )

    return arrange


def size(folder):
    return sum(len(data) for data in listing(folder).values())


def states(folder):
    return sorted(name for name in listing(folder) if name.startswith("states/"))


def test_nothing_is_begun_where_it_does_not_fit(cm, free, tmp_path):
    free(2_000_000)
    told = cm(*WORDS, "--run-dir", tmp_path / "run")
    assert told.code == 74
    assert told.error[0].startswith(f"there is not enough room for {tmp_path / 'run'}: it needs ")
    assert told.error[0].endswith(" MB, and 2.0 MB are free")
    assert "--keep" in told.error[1]
    assert states(tmp_path / "run") == []


def test_what_a_run_takes_is_foretold(cm, well, free, tmp_path):
    """A run of which everything is kept is no larger than what --dry-run says, and not much smaller."""
    more = ["--keep", "4", "--ema", "64,power:0.1,power:0.2", "--ema-snapshots", "4", "--ema-dtype", "fp16"]
    foretold = json.loads(well(*WORDS, *more, "--dry-run", "--json"))["run_bytes"]
    well(*WORDS, *more, "--run-dir", tmp_path / "run")
    state = (tmp_path / "run/states/00000128.safetensors").stat().st_size
    model = (tmp_path / "run/model.safetensors").stat().st_size
    most = size(tmp_path / "run") + state + model  # when a new one stands beside the old one
    assert 0.9 * foretold < most < 1.1 * foretold + disk_space.SLACK
    free(foretold)  # a run that goes on has what it wrote already
    told = cm(*WORDS, *more, "--run-dir", tmp_path / "new")
    assert told.code == 74
    free(foretold + disk_space.SLACK)
    assert cm(*WORDS, *more, "--run-dir", tmp_path / "new").code == 0
    free(state + model + 2 * disk_space.SLACK)
    assert cm(*WORDS, *more, "--run-dir", tmp_path / "new", "--images", "160").code == 0


def test_the_oldest_state_makes_room_once(cm, free, tmp_path):
    """Before the second save there is room for one state more, before the third none, and then again."""
    much, none = 1 << 40, 0
    free(much, much, much, none, much)
    told = cm(*WORDS, "--run-dir", tmp_path / "run")
    assert told.code == 0
    assert states(tmp_path / "run") == ["states/00000096.safetensors", "states/00000128.safetensors"]


def test_without_room_the_last_good_state_is_named(cm, free, tmp_path):
    free(1 << 40, 1 << 40, 1 << 40, 0)
    run = tmp_path / "run"
    told = cm(*WORDS, "--run-dir", run)
    assert told.code == 74
    assert told.error[0].endswith(f"0.0 MB are free; the last good state is {run / 'states/00000064.safetensors'}")
    assert told.error[1] == f"free some space, then go on with: cmtool train-ct --run-dir {run}"
    status = read_status(run)
    assert (status["state"], status["exit_code"], status["saved"]["images"]) == ("failed", 74, 64)
    assert states(run) == ["states/00000064.safetensors"]
    free(1 << 40)
    told = cm(*WORDS, "--run-dir", run)
    assert (told.code, f"going on with {run} at 64 images" in told.err) == (0, True)


@pytest.mark.parametrize("stop", [None, 64])
def test_the_last_save_may_fail_too(cm, at, free, tmp_path, stop):
    """That of the end, and that of a stop; the run is not said to be running."""
    free(1 << 40, 0)
    if stop:
        at(stop, lambda walk: os.kill(os.getpid(), signal.SIGTERM))
    told = cm(*WORDS[:-2], "--run-dir", tmp_path / "run")
    assert (told.code, told.error[0].endswith("0.0 MB are free; nothing was saved before")) == (74, True)
    status = read_status(tmp_path / "run")
    assert (status["state"], status["exit_code"], status["saved"]) == ("failed", 74, None)


def test_a_disk_that_fills_up_in_the_middle_of_a_file(cm, tmp_path, monkeypatch):
    """The temporary goes, and so does the oldest state; then the system refuses again."""
    assert cm(*WORDS, "--run-dir", tmp_path / "whole").code == 0
    size = (tmp_path / "whole/states/00000128.safetensors").stat().st_size
    run, before = tmp_path / "run", resource.getrlimit(resource.RLIMIT_FSIZE)
    write, refused = sealed.write_sealed, []

    def limited(path, tensors, key, document):
        full = key == sealed.KEY and document["scalars"]["images"] == 96
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2 if full else before[0], before[1]))
        try:
            return write(path, tensors, key, document)
        except Exception as error:
            refused.append(error.__cause__)
            raise
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    monkeypatch.setattr(sealed, "write_sealed", limited)
    told = cm(*WORDS, "--run-dir", run)
    assert (told.code, [error.errno for error in refused]) == (74, [errno.EFBIG] * 2)
    assert states(run) == ["states/00000064.safetensors"]
    assert not [name for name in listing(run) if ".tmp-" in name]
    monkeypatch.setattr(sealed, "write_sealed", write)
    assert cm(*WORDS, "--run-dir", run).code == 0
    ours, theirs = listing(run), listing(tmp_path / "whole")
    for name in ("model.safetensors", "states/00000128.safetensors", "metrics.jsonl"):
        assert ours[name] == theirs[name]


def test_what_is_not_for_want_of_room_drops_nothing(cm, tmp_path, monkeypatch):
    write = sealed.write_sealed

    def refused(path, tensors, key, document):
        if key == sealed.KEY and document["scalars"]["images"] == 96:
            with sealed.write_file(path):
                raise PermissionError(errno.EACCES, "Permission denied")
        return write(path, tensors, key, document)

    monkeypatch.setattr(sealed, "write_sealed", refused)
    told = cm(*WORDS, "--run-dir", tmp_path / "run")
    assert (told.code, "Permission denied; the last good state" in told.error[0]) == (74, True)
    assert states(tmp_path / "run") == ["states/00000032.safetensors", "states/00000064.safetensors"]
