import json
import sys
import tomllib
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import pytest

from cmtool import plugin_usage, presets
from cmtool.cli import run
from cmtool.errors import BadFile
from cmtool.files.container import add_seal, pack
from cmtool.files.header import KEY, Header
from cmtool.options import registry
from cmtool.options.yaml_files import parse_yaml

PROJECT = Path(__file__).parents[2] / "pyproject.toml"


@pytest.fixture
def told(capsys):
    """The JSON document and the text of ``cmtool info WHAT``."""

    def call(*what):
        assert run(["info", *what, "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert document.pop("schema") == "cmtool.info/1"
        assert run(["info", *what]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        return document, out

    return call


@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint without tensors, made without torch."""
    data = {"name": "digits", "shape": [1, 8, 8], "classes": ["0", "1"], "notice": "UCI"}
    spec = {"name": "unet", "model_channels": 32}
    header = Header("consistency", spec, {"sigma_data": 0.5}, data, 2, 0.002, 80.0, [0.8], "cd", 1234, {"lr": 1e-4})
    document = header.document()
    del document["sha256"]
    path = tmp_path / "model.safetensors"
    path.write_bytes(add_seal(pack({}, KEY, document), [])[0])
    return path


def test_every_plugin_of_ours_with_its_package(told):
    document, text = told()
    listed = {(p["group"], p["name"]): (p["distribution"], p["version"], p["target"]) for p in document["plugins"]}
    declared = tomllib.loads(PROJECT.read_text())["project"]["entry-points"]
    for group, entries in declared.items():
        for name, target in entries.items():
            assert listed[group.removeprefix("cmtool."), name] == ("cmtool", version("cmtool"), target)
            assert f"  {name} " in text


def test_presets_with_their_facts(told):
    document, text = told("presets")
    assert list(document["presets"]) == presets.names()
    lines = text.splitlines()
    for name, found in document["presets"].items():
        figures, words = next(pair for pair in pairwise(lines) if pair[0].startswith(f"{name} "))
        assert words.strip().startswith(found["about"])
        assert figures.split()[1 : 1 + len(found["command"])] == ", ".join(found["command"]).split()
        assert f" {found['cost']['images']:,}" in figures
        assert all(f"{fid:.2f}" in figures and f"({n})" in figures for n, fid in found.get("fid", {}).items())
        assert all(plugin in words for plugin in found["missing"])
    assert document["presets"]["cifar10-ect-1h"]["cost"]["pflop"] == 173.6  # 8,000 steps of 128 at 169.5 GFLOP
    assert "8.70* (1), 5.83* (2)" in text


def test_a_checkpoint_says_what_it_is(told, checkpoint):
    document, text = told(str(checkpoint))
    header = document["header"]
    assert (header["kind"], header["backbone"]) == ("consistency", {"name": "unet", "model_channels": 32})
    assert {key: entry.value for key, entry in parse_yaml(text, "header").items()} == header
    assert told(str(checkpoint.parent))[0]["header"] == header


def test_what_is_not_there(capsys):
    assert run(["info", "plugin"]) == 66
    assert capsys.readouterr().err == "cmtool: error: there is no file plugin\n  hint: did you mean 'plugins'?\n"


def test_a_file_of_another_name(checkpoint, capsys):
    assert run(["info", str(checkpoint.with_name("modle.safetensors"))]) == 66
    assert capsys.readouterr().err.endswith(f"hint: did you mean '{checkpoint}'?\n")


def test_what_is_no_checkpoint(tmp_path, capsys):
    (tmp_path / "a.safetensors").write_text("hello")
    assert run(["info", str(tmp_path / "a.safetensors")]) == BadFile.code
    assert capsys.readouterr().err.startswith("cmtool: error: ")


def test_a_group_is_a_list_with_a_sentence_each(told):
    document, text = told("features")
    assert text.startswith("Features (features)\n")
    listed = {p["name"]: p for p in document["plugins"]}
    assert {"small", "inception", "points"} <= set(listed)
    assert (
        listed["points"]["summary"]
        == "The coordinates of points as they are: the distance compares their mean and covariance."
    )
    assert f"  points     {listed['points']['summary']}\n" in text


def test_methods_are_three_groups(told):
    document, text = told("methods")
    assert {p["group"] for p in document["plugins"]} == {"train_score", "train_ct", "distill"}
    assert [line for line in text.splitlines() if line.endswith(")") and not line.startswith(" ")] == [
        *("Training of score models (train_score)", "Consistency training (train_ct)", "Distillation (distill)")
    ]
    assert told("train-ct")[0]["plugins"] == [p for p in document["plugins"] if p["group"] == "train_ct"]


def test_a_plugin_with_all_that_it_says_of_itself(told):
    document, text = told("points")
    (plugin,) = document["plugins"]
    assert plugin == {
        "group": "features",
        "name": "points",
        "distribution": "cmtool",
        "version": version("cmtool"),
        "target": "cmtool.features.points:points",
        "summary": "The coordinates of points as they are: the distance compares their mean and covariance.",
        "formula": "``phi(x) = x``",
        "paper": "",
        "use": "for the data sets gaussians, ring and checkerboard, and other points.",
        "text": "",
        "options": [
            {
                "name": "dim",
                "type": "integer",
                "required": False,
                "default": 2,
                "help": "coordinates of a point",
                "limits": "at least 1",
                "choices": [],
                "flag": None,
            }
        ],
        "example": "cmtool fid points.npz --ref gaussians --features points --set features.dim=4",
    }
    assert (
        text
        == f"""points: feature extractor of cmtool {version("cmtool")}

The coordinates of points as they are: the distance compares their mean and covariance.

Formula: phi(x) = x
Use:     for the data sets gaussians, ring and checkerboard, and other points.

Options, set with --set features.OPTION=VALUE:
  option  type     default
  dim     integer  2        coordinates of a point; at least 1

Code: cmtool.features.points:points

Example:
  cmtool fid points.npz --ref gaussians --features points --set features.dim=4
"""
    )


def test_an_option_is_shown_with_the_plugins_that_have_it(told):
    document, text = told("P_mean")
    found = {(use["group"], use["plugin"]): use for use in document["of"]}
    assert found["train_ct", "ect"] == {
        "group": "train_ct",
        "plugin": "ect",
        "default": "-1.1",
        "help": "mean of ln sigma",
    }
    assert found["train_score", "edm"]["default"] == "-1.2"
    assert "  train_ct ect          -1.1  mean of ln sigma" in text


def test_a_name_in_several_groups_is_shown_in_each(told):
    document, text = told("edm")
    groups = [p["group"] for p in document["plugins"]]
    assert groups == [group for group in plugin_usage.groups() if "edm" in registry.names(group)]
    assert {"train_score", "formats", "processes"} <= set(groups)
    assert all(f"edm: {registry.GROUPS[group]} of cmtool" in text for group in groups)


def test_options_that_a_flag_fills_name_it(told):
    document, text = told("small")
    assert document["plugins"][0]["options"][0]["flag"] == "--device"
    assert "  device  text  --device" in text


def test_a_preset_by_its_name(told):
    document, text = told("digits-ect")
    assert list(document["presets"]) == ["digits-ect"]
    assert presets.read("digits-ect").rstrip() in text


def test_a_file_wins_over_a_name(told, checkpoint, monkeypatch):
    monkeypatch.chdir(checkpoint.parent)
    checkpoint.rename("heun")
    assert told("heun")[0]["header"]["kind"] == "consistency"


def test_pages_fit_the_terminal(monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    for what in ("inception", "features"):
        assert run(["info", what]) == 0
        page = capsys.readouterr().out
        assert 70 < max(len(line) for line in page.splitlines() if "cmtool fid" not in line) <= 80


@pytest.mark.parametrize(
    ("word", "meant"),
    [("huen", "heun"), ("solver", "solvers"), ("digits-cpuu", "digits-cpu"), ("shapes-scor", "shapes-score")],
)
def test_a_word_that_is_nearly_a_name(word, meant, capsys):
    assert run(["info", word]) == 66
    assert capsys.readouterr().err.endswith(f"hint: did you mean '{meant}'?\n")
