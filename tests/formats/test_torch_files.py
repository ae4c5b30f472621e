"""Hostile, cut and changed files of ``torch.save``: one sentence, and nothing of theirs runs."""

import io
import os
import pickle
import random
import struct
import zipfile

import pytest
import torch
from adm_nets import weights, write

import cmtool
from cmtool.errors import BadFile, CmtoolError
from cmtool.files.model_files import format_of
from cmtool.files.safe_pickle import torch_files
from cmtool.files.safe_pickle.torch_files import find_pickle, mentions, read_torch_file, state_dict
from cmtool.formats.openai_networks import NAMES

CM = {"format": {"kind": "consistency", "side": 16}, "backbone": {"head_width": 16}}


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return write(tmp_path_factory.mktemp("sound") / "net.pt", channel_mult=(1,), attention=())


def with_pickle(sound, path, text, compression=zipfile.ZIP_STORED):
    """The file with another pickle inside."""
    with zipfile.ZipFile(sound) as old, zipfile.ZipFile(path, "w", compression) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, text if entry.filename.endswith("data.pkl") else old.read(entry))
    return path


class Call:
    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


CALLS = [
    (os.system, "touch {}"),
    (os.mkdir, "{}"),
    (open, "{}", "w"),
    (exec, "open('{}', 'w')"),
    (eval, "open('{}', 'w')"),
    (os.makedirs, "{}"),
    (torch.save, 1, "{}"),
    (torch.load, "{}"),
    (torch.hub.load, "{}", "x"),
    (io.open, "{}", "w"),
    (__import__, "antigravity"),
]


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("at", range(len(CALLS)))
@pytest.mark.parametrize("among", [True, False])
def test_no_call_in_a_pickle_is_made(sound, tmp_path, at, protocol, among):
    """As the whole object, and as one more value among the names of a network."""
    function, *args = CALLS[at]
    canary = tmp_path / "canary"
    call = Call(function, *(arg.format(canary) if isinstance(arg, str) else arg for arg in args))
    text = pickle.dumps({**dict.fromkeys(NAMES, 0), "x": call} if among else call, protocol)
    path = with_pickle(sound, tmp_path / "net.pt", text)
    with pytest.raises(BadFile):
        cmtool.load(path, format={"name": "openai", **CM["format"]}, backbone=CM["backbone"])
    with pytest.raises(BadFile):
        cmtool.load(path, **CM)
    assert not canary.exists()


def test_a_compressed_file_is_refused_before_it_grows(sound, tmp_path):
    path = with_pickle(sound, tmp_path / "net.pt", find_pickle(sound), zipfile.ZIP_DEFLATED)
    assert format_of(path) is None
    with pytest.raises(BadFile, match=r"is compressed, which torch.save does not do"):
        cmtool.load(path, format={"name": "openai", **CM["format"]}, backbone=CM["backbone"])


def test_a_cut_file_says_so(sound, tmp_path):
    whole = sound.read_bytes()
    for kept in (0, 1, 3, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "net.pt").write_bytes(whole[:kept])
        with pytest.raises(BadFile, match=r"is cut short|is empty"):
            cmtool.load(tmp_path / "net.pt", **CM)


def test_a_changed_byte_is_found_or_without_effect(sound, tmp_path):
    whole, dice, found = sound.read_bytes(), random.Random(0), 0
    reference = cmtool.load(sound, **CM).model.net.state_dict()
    for _ in range(120):
        data = bytearray(whole)
        near_the_end = dice.random() < 0.5  # where the directory of the zip stands
        at = dice.randrange(len(data) - 12_000, len(data)) if near_the_end else dice.randrange(len(data))
        data[at] ^= dice.randrange(1, 256)
        (tmp_path / "net.pt").write_bytes(data)
        try:
            state = cmtool.load(tmp_path / "net.pt", **CM).model.net.state_dict()
            assert all(torch.equal(value, reference[name]) for name, value in state.items())
        except CmtoolError as error:
            assert isinstance(error, BadFile), error.message
            found += 1
    assert found > 90


def test_changed_pickles_with_right_checksums(sound, tmp_path):
    """The reader itself meets the damage: it may find another network, but raises nothing of its own."""
    text, dice = find_pickle(sound), random.Random(1)
    for _ in range(60):
        data = bytearray(text)
        for _ in range(dice.randrange(1, 4)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        path = with_pickle(sound, tmp_path / "net.pt", bytes(data))
        try:
            cmtool.load(path, format={"name": "openai", **CM["format"]}, backbone=CM["backbone"])
        except CmtoolError as error:
            assert error.code in (2, 65)


def test_a_storage_that_claims_more_than_its_bytes(sound, tmp_path):
    with torch.random.fork_rng(devices=[]):
        torch.save({"a": torch.arange(4.0), **weights(channel_mult=(1,), attention=())}, tmp_path / "more.pt")
    four = b"K\x04tq"
    assert four in find_pickle(tmp_path / "more.pt")
    huge = b"J" + struct.pack("<i", 1 << 30) + b"tq"
    path = with_pickle(
        tmp_path / "more.pt", tmp_path / "net.pt", find_pickle(tmp_path / "more.pt").replace(four, huge, 1)
    )
    with pytest.raises(BadFile):
        cmtool.load(path, **CM)


def test_names_count_only_as_whole_strings():
    for protocol in (2, 4):
        text = pickle.dumps({"time_embed.0.weight": 0}, protocol)
        assert mentions(text, "time_embed.0.weight")
        assert not mentions(text, "embed.0.weight")
        assert not mentions(text, "time_embed.0.weight", "out.2.bias")


@pytest.mark.parametrize("old", [False, True])
def test_weights_that_share_memory_are_read_within_a_bound(tmp_path, monkeypatch, old):
    values = torch.arange(12.0)
    tied = {"a": values.view(3, 4), "b": values.view(4, 3).T, "c": values[2:8], "d": values.view(3, 4), "e": values[:1]}
    path = tmp_path / "tied.pt"
    torch.save(tied, path, _use_new_zipfile_serialization=not old)
    found = state_dict(path, read_torch_file(path))
    assert all(torch.equal(found[name], value) for name, value in tied.items())
    assert len({value.untyped_storage().data_ptr() for value in found.values()}) == 5
    monkeypatch.setattr(torch_files, "SMALL", 0)
    values = torch.zeros(1 << 16)
    torch.save({f"{k}": values for k in range(40)}, path, _use_new_zipfile_serialization=not old)
    with pytest.raises(BadFile, match="share memory, and apart they would take 10 MB, 39 times as much"):
        state_dict(path, read_torch_file(path))
