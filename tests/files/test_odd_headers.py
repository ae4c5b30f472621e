"""Headers that are honestly sealed and make no sense, and files that describe more than they hold."""

import json

import pytest
import torch
from torch import nn

from cmtool.backbones.mlp import mlp
from cmtool.cli import run
from cmtool.core.denoiser import Denoiser, Preconditioning
from cmtool.errors import BadFile
from cmtool.files import checkpoint, container
from cmtool.files.checkpoint import load, save, without_memory
from cmtool.files.header import KEY, Header, read_header
from cmtool.files.sealed import read_sealed, write_sealed

SPEC = {"name": "mlp", "hidden_dim": 4, "depth": 1}


@pytest.fixture
def path(tmp_path):
    model = Denoiser(mlp((2,), 3, hidden_dim=4, depth=1), Preconditioning())
    header = Header(
        kind="score",
        backbone=SPEC,
        preconditioning={},
        data={"name": "points", "shape": [2], "classes": ["a", "b", "c"], "notice": ""},
        num_classes=3,
        sigma_min=0.002,
        sigma_max=80.0,
    )
    save(tmp_path / "net.safetensors", model, header)
    return tmp_path / "net.safetensors"


def change(path, field, value):
    tensors, document = read_sealed(path, KEY)
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    *folders, last = field.split(".")
    inside = document
    for name in folders:
        inside = inside[name]
    inside[last] = value
    del document["sha256"]
    write_sealed(path, tensors, KEY, document)


ODD = [
    *(("sigma_max", value) for value in (1e999, -1, 0.001, 10**400, True, "80")),
    *(("sigma_min", value) for value in (float("nan"), 0, -1)),
    *(("sigmas", value) for value in (["x"], [0.0], [float("inf")], [[1.0]], [True])),
    *(("num_classes", value) for value in (-1, 2, 1 << 70)),
    *(("data.classes", value) for value in ("abc", [1, 2, 3], {"a": 1}, ["a"])),
    *(("data.shape", value) for value in ([2.0], "2", [1 << 20, 1 << 20, 3], [], [1, 2])),
    *(("parents", value) for value in (["x"], [{"path": 1}], [None])),
    *(("backbone.name", value) for value in (["mlp"], 3, {})),
    *(("preconditioning.sigma_data", value) for value in (0, -1, "1", float("inf"), 1e300, None)),
    *(("preconditioning.jumps", value) for value in (1, "yes")),
    *(("preconditioning.form", value) for value in (["edm"], None)),
    *(("backbone.hidden_dim", value) for value in (0, -4, 1e999, 1 << 62, [4], None)),
    *(("backbone.depth", value) for value in (-1, 10**9)),
    *(("images", -1), ("versions", {"torch": 2}), ("average", {"ema": []}), ("data.name", 3)),
]


@pytest.mark.parametrize(("field", "value"), ODD, ids=lambda value: str(value)[:20])
def test_a_header_that_cannot_be(path, field, value, capsys):
    change(path, field, value)
    with pytest.raises(BadFile) as caught:
        load(path)
    assert "\n" not in caught.value.message
    assert run(["sample", "-m", str(path), "-n", "1", "-o", "made.npz"]) == 65
    assert capsys.readouterr().err.count("cmtool: error:") == 1


def test_a_nest_of_options_is_not_walked_forever(path):
    nest = []
    for _ in range(50):
        nest = [nest]
    change(path, "options", {"a": nest})
    with pytest.raises(BadFile, match="'options'"):
        read_header(path)


def test_a_network_that_is_larger_than_its_tensors_is_never_made(path, monkeypatch):
    made = []
    monkeypatch.setattr(nn.Linear, "reset_parameters", lambda layer: made.append(layer.weight.is_meta))
    change(path, "backbone.hidden_dim", 1 << 20)
    with pytest.raises(BadFile, match="does not fit its own network"):
        load(path)
    assert made and all(made)


def test_a_network_of_a_million_parts_is_not_made_to_its_end(monkeypatch):
    monkeypatch.setattr(checkpoint, "PARTS", 100)
    with pytest.raises(ValueError, match="more parts than a network"), without_memory():
        nn.Sequential(*(nn.Linear(2, 2) for _ in range(10**6)))
    with without_memory():
        assert nn.Linear(2, 2).weight.is_meta
    assert not torch.empty(1).is_meta


@pytest.mark.parametrize("table", [b"[" * 200_000, b"{}," * 200_000, b'{"a": ' + b"9" * 5000 + b"}"])
def test_a_table_that_is_none(tmp_path, table):
    (tmp_path / "a.safetensors").write_bytes(len(table).to_bytes(8, "little") + table)
    with pytest.raises(BadFile):
        load(tmp_path / "a.safetensors")


def test_a_table_is_not_longer_than_that_of_a_network(tmp_path):
    table = json.dumps({"__metadata__": {"x": "a" * container.LIMIT}}).encode()
    (tmp_path / "a.safetensors").write_bytes(len(table).to_bytes(8, "little") + table)
    with pytest.raises(BadFile, match="is not a safetensors file"):
        load(tmp_path / "a.safetensors")
