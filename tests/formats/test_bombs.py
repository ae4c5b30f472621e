"""Small files that would fill the memory or take hours, and tensors that are none, in every file with a pickle."""

import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch
from adm_nets import weights

import cmtool
from cmtool.errors import BadFile
from cmtool.files.safe_pickle import outline, sandbox
from cmtool.files.safe_pickle.torch_files import Other, find_pickle, mentions, read_arrays, read_torch_file
from cmtool.files.safe_pickle.zip_reader import TABLE

TOLD = {"format": {"kind": "consistency", "side": 16}, "backbone": {"head_width": 16}}
FIRST = "time_embed.0.weight"


def text(word):
    return b"X" + struct.pack("<I", len(word)) + word.encode()


def number(n):
    return b"\x8a\x08" + struct.pack("<q", n)


def called(name, *args):
    return f"c{name.replace(':', chr(10))}\n".encode() + b"(" + b"".join(args) + b"tR"


def of_a_dictionary(value):
    return b"\x80\x02}" + text(FIRST) + value + b"s."


def deep(opcode, depth=3000):
    return b")" + opcode * depth


BOMBS = {
    "bytearray": called("builtins:bytearray", number(1 << 40)),
    "bytearray of python 2": called("__builtin__:bytearray", number(1 << 40)),
    "a size": called("torch:Size", called("builtins:bytearray", number(1 << 40))),
    "a set": called("builtins:set", called("builtins:bytearray", number(1 << 40))),
    "a counter": called("collections:Counter", called("builtins:bytearray", number(1 << 40))),
    "hexadecimal": called("_codecs:encode", text("a" * 100), text("hex_codec")),
    "a text as bytes again": called("_codecs:encode", called("_codecs:encode", text("a"), text("latin1")), text("hex")),
    "deep tuples": deep(b"\x85"),
    "deep lists": b"]" * 3000 + b"a" * 2999,
    "tuples of themselves": b")" + b"2\x86" * 60,
    "a text again and again": text("x" * 100_000) + b"q\1" + b"h\1" * 50 + b"t",
}


def zipped(path, value):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", of_a_dictionary(value))
    return path


def old(path, value):
    """The layout before the zip."""
    magic = pickle.dumps(0x1950A86A20F9469CFC6C, 2)
    path.write_bytes(magic + pickle.dumps(1001, 2) + pickle.dumps({}, 2) + of_a_dictionary(value) + pickle.dumps([], 2))
    return path


def plain(path, value):
    path.write_bytes(of_a_dictionary(value))
    return path


@pytest.mark.parametrize("write", [zipped, old, plain])
@pytest.mark.parametrize("name", BOMBS)
def test_no_bomb_goes_off(name, write, tmp_path):
    path = write(tmp_path / "net.pt", BOMBS[name])
    try:
        found = read_torch_file(path)
    except BadFile as error:
        assert "\n" not in error.message
    else:
        assert isinstance(found[FIRST], Other)
    with pytest.raises(BadFile):
        cmtool.load(path, format={"name": "openai", **TOLD["format"]}, backbone=TOLD["backbone"])


def test_the_reader_has_little_memory_and_time():
    assert (sandbox.MEMORY, sandbox.SECONDS) == (1 << 30, 8)


def test_a_table_of_contents_is_not_longer_than_that_of_a_network(tmp_path):
    with zipfile.ZipFile(tmp_path / "net.pt", "w") as file:
        file.writestr("archive/data.pkl", of_a_dictionary(b"N"))
        for n in range(TABLE // 100):
            file.writestr(f"archive/{n:060}", b"")
    assert find_pickle(tmp_path / "net.pt") == b""
    with pytest.raises(BadFile):
        read_torch_file(tmp_path / "net.pt")


def state(**more):
    return {**weights(channel_mult=(1,), attention=()), **more}


def attribute(name):
    parameter = torch.nn.Parameter(torch.ones(32))
    setattr(parameter, name, 5)
    return parameter


NONE = {
    "meta": lambda: torch.empty(32, device="meta"),
    "sparse": lambda: torch.ones(32).to_sparse(),
    "compressed": lambda: torch.eye(32).to_sparse_csr(),
    "quantized": lambda: torch.quantize_per_tensor(torch.ones(32), 0.1, 0, torch.qint8),
    "complex": lambda: torch.ones(32, dtype=torch.complex64),
    "negated": lambda: torch.ones(32, dtype=torch.complex64).conj().imag,
    "whole numbers": lambda: torch.ones(32, dtype=torch.int64),
    "with a method hidden": lambda: attribute("detach"),
    "with another method hidden": lambda: attribute("dtype2"),
    "a number": lambda: 1.0,
    "a list": lambda: [1.0] * 32,
    "spread out": lambda: torch.ones(1).expand(1 << 40),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("zip", [True, False])
@pytest.mark.parametrize("name", NONE)
def test_tensors_that_are_none(name, zip, tmp_path):
    path = tmp_path / "net.pt"
    torch.save(state(**{"out.0.bias": NONE[name]()}), path, _use_new_zipfile_serialization=zip)
    with pytest.raises(BadFile, match=r"out\.0\.bias|cannot be read"):
        cmtool.load(path, **TOLD)


def test_both_layouts_give_the_same_network(tmp_path):
    torch.save(state(), tmp_path / "new.pt")
    torch.save(state(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert mentions(find_pickle(tmp_path / "old.pt"), FIRST)
    new, before = (cmtool.load(tmp_path / name, **TOLD).model.net.state_dict() for name in ("new.pt", "old.pt"))
    assert new.keys() == before.keys()
    assert all(torch.equal(new[name], before[name]) for name in new)


@pytest.mark.parametrize("zip", [True, False])
def test_types_views_and_shared_values(zip, tmp_path):
    base = torch.randn(6, 4)
    given = {
        "rows": base[2:4], "turned": base.t(), "half": base.half(), "brain": base.bfloat16(), "none": torch.empty(0, 3),
        "one": torch.tensor(2.5), "bits": base > 0, "short": torch.arange(3, dtype=torch.int16), "shared": base,
    }  # fmt: skip
    torch.save(
        {"state": given, "epoch": 3, "name": "x", "lr": [1e-3, None]},
        tmp_path / "a",
        _use_new_zipfile_serialization=zip,
    )
    found = read_torch_file(tmp_path / "a")
    assert {key: value for key, value in found.items() if key != "state"} == {
        "epoch": 3,
        "name": "x",
        "lr": [1e-3, None],
    }
    assert all(torch.equal(found["state"][key], value) for key, value in given.items())
    assert all(found["state"][key].dtype == value.dtype for key, value in given.items())


def test_an_old_file_that_is_cut_short(tmp_path):
    torch.save(state(), tmp_path / "whole", _use_new_zipfile_serialization=False)
    whole = (tmp_path / "whole").read_bytes()
    for kept in (40, 200, len(whole) // 2, len(whole) - 1):
        (tmp_path / "net.pt").write_bytes(whole[:kept])
        with pytest.raises(BadFile):
            cmtool.load(tmp_path / "net.pt", format={"name": "openai", **TOLD["format"]}, backbone=TOLD["backbone"])


@pytest.mark.parametrize("protocol", range(2, 6))
def test_arrays_of_every_protocol(protocol, tmp_path):
    given = {"mu": np.arange(3.0), "sigma": np.asfortranarray(np.arange(9.0).reshape(3, 3)), "n": np.int64(7), "k": 0.5}
    given |= {"one": np.array(1.5), "big": np.arange(3.0, dtype=">f8"), "empty": np.zeros((0, 2))}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({**given, "text": "left out"}, protocol))
    torch.save(given, tmp_path / "a.pt", pickle_protocol=protocol)
    for name in ("a.pkl", "a.pt"):
        found = read_arrays(tmp_path / name)
        assert found.keys() == given.keys()
        assert all(np.array_equal(found[key], value) for key, value in given.items())


def test_an_outline_is_bounded(monkeypatch, tmp_path):
    monkeypatch.setattr(outline, "NODES", 100)
    (tmp_path / "a").write_bytes(pickle.dumps([list(range(200))]))
    assert "more parts than a network" in sandbox.describe_to_json(tmp_path / "a", outline.describe)
