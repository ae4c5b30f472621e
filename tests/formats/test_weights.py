"""Weights in several files: all of them are read from any one, and what is missing is named."""

import json

import pytest
import torch
from adm_nets import weights
from diffusers_nets import tiny
from safetensors.torch import load_file, save_file

import cmtool
from cmtool.errors import BadFile, MissingInput
from cmtool.files.model_files import format_of, parent_record
from cmtool.formats.diffusers_writer import write_diffusers

ABOUT = {"format": {"kind": "consistency", "side": 16}, "backbone": {"head_width": 16}}
NET = weights()


def split(folder, stem, end, tensors, n=3, save=save_file):
    """Shards of the tensors, the last of them in the first file, and their index."""
    names, table = [*tensors][::-1], {}
    for i in range(n):
        file = f"{stem}-{i + 1:05d}-of-{n:05d}{end}"
        save({name: tensors[name] for name in names[i::n]}, folder / file)
        table |= dict.fromkeys(names[i::n], file)
    index = folder / f"{stem}{end}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": table}))
    return index


@pytest.mark.parametrize(("end", "save"), [(".safetensors", save_file), (".bin", torch.save)])
def test_any_shard_stands_for_all_and_so_does_the_index(tmp_path, end, save):
    index = split(tmp_path, "model", end, NET, save=save)
    seals = set()
    for path in (index, tmp_path / f"model-00002-of-00003{end}"):
        assert format_of(path) == "openai"
        model = cmtool.load(path, **ABOUT)
        assert all(torch.equal(value, NET[name]) for name, value in model.model.net.state_dict().items())
        seals |= {model.header.sha256, parent_record(path)["sha256"]}
    assert len(seals) == 1


def test_the_seal_is_that_of_all_shards(tmp_path):
    index = split(tmp_path, "model", ".safetensors", NET)
    before = cmtool.load(index, **ABOUT).header.sha256
    split(tmp_path, "model", ".safetensors", {**NET, "out.2.bias": NET["out.2.bias"] + 1})
    assert cmtool.load(index, **ABOUT).header.sha256 != before


def test_a_network_of_openai_in_safetensors(tmp_path):
    save_file({f"module.{name}": value.half() for name, value in NET.items()}, tmp_path / "net.safetensors")
    model = cmtool.load(tmp_path / "net.safetensors", **ABOUT)
    assert all(torch.equal(value, NET[name].half().float()) for name, value in model.model.net.state_dict().items())


@pytest.fixture
def folder(tmp_path):
    model = tiny(classes=3)
    write_diffusers(tmp_path / "pipe", model.model, model.header)
    return tmp_path / "pipe"


def test_shards_of_diffusers_with_and_without_their_index(folder):
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    expected, state = cmtool.load(folder), load_file(file)
    file.unlink()
    index = split(folder / "unet", file.stem, file.suffix, state, 2)
    for _ in range(2):
        found = cmtool.load(folder, backbone={"dropout": 0.0})
        assert all(
            torch.equal(a, b) for a, b in zip(found.model.parameters(), expected.model.parameters(), strict=True)
        )
        index.unlink(missing_ok=True)
    (folder / "unet" / "diffusion_pytorch_model-00001-of-00002.safetensors").unlink()
    with pytest.raises(MissingInput, match=r"there is no file .*00001-of-00002.safetensors, which"):
        cmtool.load(folder)


def test_the_largest_variant_is_read_where_there_is_nothing_else(folder):
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    expected, state = cmtool.load(folder), load_file(file)
    file.unlink()
    save_file({name: value.half() for name, value in state.items()}, file.with_suffix(".fp16.safetensors"))
    half = cmtool.load(folder).model.net.state_dict()
    assert all(torch.equal(value.half().float(), half[name]) for name, value in expected.model.net.state_dict().items())
    save_file(state, file.with_suffix(".non_ema.safetensors"))
    whole = cmtool.load(folder)
    assert all(torch.equal(a, b) for a, b in zip(whole.model.parameters(), expected.model.parameters(), strict=True))


def test_documents_that_windows_saved(folder):
    for name in ("model_index.json", "unet/config.json", "scheduler/scheduler_config.json"):
        text = (folder / name).read_text().replace("\n", "\r\n")
        (folder / name).write_bytes(text.encode("utf-16" if name.startswith("unet") else "utf-8-sig"))
    assert cmtool.load(folder).header.num_classes == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"weight_map": {"time_embed.0.weight": "../net.pt"}}', "names files that are not beside it"),
        ('{"weight_map": []}', "does not say which file holds which weights"),
        ('{"weight_map": 1', "cannot be read as JSON"),
        ("[1]", "holds no names and values"),
    ],
)
def test_an_index_that_is_none(tmp_path, text, message):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(text)
    assert format_of(index) is None
    with pytest.raises(BadFile, match=message):
        cmtool.load(index, **{**ABOUT, "format": {**ABOUT["format"], "name": "openai"}})
