"""Weights inside what wrappers and trainers put around them: which are taken, and what is said of it."""

import pytest
import torch
from adm_nets import weights

import cmtool
from cmtool.errors import BadFile, UsageError
from cmtool.files.model_files import format_of
from cmtool.options.hint_words import word_hint

ABOUT = {"format": {"kind": "consistency", "side": 16}, "backbone": {"head_width": 16}}
NET = weights()
OTHER = {name: value + 1 for name, value in NET.items()}
HEAD = "input_blocks.0.0.weight"


def before(prefix, tensors):
    return {f"{prefix}{name}": value for name, value in tensors.items()}


def written(tmp_path, content):
    torch.save(content, tmp_path / "net.pt")
    return tmp_path / "net.pt"


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (before("module.", NET), ""),
        (before("_orig_mod.module.", NET), ""),
        ({"n_averaged": torch.tensor(5), **before("module.", NET)}, ""),
        ({"model_state_dict": before("module.", NET), "optimizer_state_dict": {"state": {}}, "epoch": 3}, ""),
        ({"state_dict": {**before("net.", OTHER), **before("net_ema.", NET), "loss.w": torch.ones(1)}}, "net_ema"),
        ({"params": OTHER, "params_ema": NET}, "params_ema"),
        ({"model": OTHER, "ema": before("ema_model.", NET), "step": 9}, "ema.ema_model"),
        (
            {"model": before("module.", OTHER), "ema": {"shadow_params": [*NET.values()], "decay": 0.999}},
            "shadow_params",
        ),
        ({"train": {"nets": {"generator": NET}}}, ""),
    ],
)
def test_the_network_is_found_and_its_average_taken(tmp_path, content, place):
    path = written(tmp_path, content)
    assert format_of(path) == "openai"
    model = cmtool.load(path, **ABOUT)
    assert all(torch.equal(value, NET[name]) for name, value in model.model.net.state_dict().items())
    track = model.header.average.get("track", "")
    assert track.endswith(place) and bool(track) == bool(place)


def test_the_average_of_lightning_modules_has_names_without_dots(tmp_path):
    dotless = {f"model_ema.{f'unet.{name}'.replace('.', '')}": value for name, value in NET.items()}
    path = written(tmp_path, {"state_dict": {**before("model.unet.", OTHER), **dotless}})
    model = cmtool.load(path, **ABOUT)
    assert torch.equal(model.model.net.state_dict()[HEAD], NET[HEAD])
    assert model.header.average == {"track": "model_ema"}


def test_the_network_itself_is_taken_where_it_is_wanted(tmp_path):
    path = written(tmp_path, {"model": OTHER, "ema": NET})
    found = cmtool.load(path, **{**ABOUT, "format": {**ABOUT["format"], "ema": False}})
    assert torch.equal(found.model.net.state_dict()[HEAD], OTHER[HEAD]) and not found.header.average
    with pytest.raises(UsageError, match="holds an average and nothing else"):
        cmtool.load(written(tmp_path, {"ema": NET}), **{**ABOUT, "format": {**ABOUT["format"], "ema": False}})


def test_of_several_it_must_be_said_which(tmp_path):
    path = written(tmp_path, {"ema_0.99": NET, "ema_0.9999": OTHER})
    with pytest.raises(UsageError, match=r"holds 2 networks: 'ema_0.99', 'ema_0.9999'") as told:
        cmtool.load(path, **ABOUT)
    assert word_hint(told.value.hint) == "say which: --set format.weights=ema_0.99"
    chosen = cmtool.load(path, **{**ABOUT, "format": {**ABOUT["format"], "weights": "ema_0.9999"}})
    assert torch.equal(chosen.model.net.state_dict()[HEAD], OTHER[HEAD])
    with pytest.raises(UsageError, match=r"has no weights at 'ema_0.9'"):
        cmtool.load(path, **{**ABOUT, "format": {**ABOUT["format"], "weights": "ema_0.9"}})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": {**NET, "time_embed.0.bias": [1.0]}}, "more than named tensors"),
        ({"model": {name: value for name, value in NET.items() if name != "out.2.bias"}}, "lacks tensor 'out.2.bias'"),
        ({"model": {**NET, HEAD: NET[HEAD][:1]}}, "does not fit its own network"),
    ],
)
def test_what_is_inside_must_be_a_network_all_the_same(tmp_path, content, message):
    with pytest.raises(BadFile, match=message):
        cmtool.load(written(tmp_path, content), **ABOUT)


def test_places_are_printable(tmp_path):
    path = written(tmp_path, {"ema\x1b[31m": NET, "ema": OTHER})
    with pytest.raises(UsageError) as told:
        cmtool.load(path, **ABOUT)
    assert told.value.message.isprintable()
