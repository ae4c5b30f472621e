"""The hint of an error names the variable or the file that a wrong value came from."""

import pytest

from cmtool.errors import MissingInput, UsageError, WriteFailed
from cmtool.options.load import gather
from cmtool.options.sources import name_sources
from cmtool.settings import SampleOptions


def hint(error, flags=None, sets=(), configs=(), environment=None):
    given = gather(SampleOptions, flags or {}, sets, configs, environment=environment or {})
    with pytest.raises(type(error)) as caught, name_sources(SampleOptions, given):
        raise error
    return caught.value.hint


def test_the_variable_of_a_flag_that_is_spoken_of():
    batch = {"CMTOOL_BATCH": "9", "CMTOOL_SEED": "3"}
    assert hint(UsageError("too much", "less --batch"), environment=batch) == (
        "less --batch; --batch was set by CMTOOL_BATCH"
    )
    assert hint(UsageError("too much", "less --batch"), {"batch": "8"}, environment=batch) == "less --batch"
    assert hint(UsageError("too much", "less --batch-size"), environment=batch) == "less --batch-size"
    assert hint(UsageError("--batch is much"), sets=["batch=9"]) == "--batch was set by --set batch"


def test_the_place_of_a_value_that_the_message_names(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/ann")
    (tmp_path / "c.yaml").write_text("n: 3\nmodel: ~/gone.pt\nsolver:\n  name: huen\n")
    configs = [tmp_path / "c.yaml"]
    gone = MissingInput("there is no file /home/ann/gone.pt")
    assert hint(gone, configs=configs) == f"--model was set by 'model' in {tmp_path / 'c.yaml'}, line 2"
    assert hint(UsageError("no 'huen'"), configs=configs) == f"--solver was set by 'solver' in {configs[0]}, line 3"
    assert hint(UsageError("no huen"), configs=configs) is None
    assert hint(WriteFailed("cannot write /home/ann/gone.pt", "free some space"), configs=configs) == "free some space"


def test_a_message_that_names_its_place_is_left_alone():
    error = UsageError("CMTOOL_BATCH must be at least 1, not 0, as --batch must")
    assert hint(error, environment={"CMTOOL_BATCH": "0"}) is None
