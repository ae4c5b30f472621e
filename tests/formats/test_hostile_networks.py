"""Files of a network in which something is not as it should be, put there or by chance: one sentence, nothing runs."""

import json
import os
import pickle
import random

import pytest
import torch
from edm_nets import TRAP, Persistent, magnitudes, narrow_adm, song, text
from hostile import OPCODES, Call, nested

import cmtool
from cmtool.cli import run
from cmtool.errors import BadFile
from cmtool.files.safe_pickle import persistence
from cmtool.files.safe_pickle.sandbox import describe_to_json, parse_answer
from cmtool.formats import edm


@pytest.fixture
def trace(tmp_path):
    """A place where something stands as soon as anything runs."""
    yield str(tmp_path / "trace")
    assert not os.path.lexists(tmp_path / "trace")


FOUR = (4).to_bytes(8, "little")
VALUES = torch.zeros(4).__reduce_ex__(4)[1][0].__reduce__()[1][0]  # four zeros as torch stores them


class Stored:
    """A tensor of these bytes, of whatever shape."""

    def __init__(self, data=VALUES, offset=0, shape=(4,), strides=(1,)):
        self.data, self.rest = data, (offset, shape, strides, False, {})

    def __reduce__(self):
        return torch._utils._rebuild_tensor_v2, (nested(self.data), *self.rest)


WEIGHTS = {
    "of no tensor": 1.0,
    "with fewer values than its shape": Stored(shape=(5,)),
    "that one value fills": Stored(shape=(1 << 40,), strides=(0,)),
    "that begins behind its values": Stored(offset=4),
    "that begins before its values": Stored(offset=-1, shape=(1,)),
    "that goes backwards": Stored(strides=(-1,)),
    "of half a number": Stored(shape=(0.5,)),
    "of one stride too few": Stored(strides=()),
    "of values that were cut off": Stored(VALUES[:-1]),
    "of no values at all": Stored(b""),
    "of a negative number of values": Stored(VALUES.replace(FOUR, (-4).to_bytes(8, "little", signed=True))),
    "of far too many values": Stored(VALUES.replace(FOUR, (1 << 60).to_bytes(8, "little"))),
    "of another type": Stored(VALUES.replace(b"FloatStorage", b"WeirdStorage")),
    "of complex numbers": Stored(VALUES.replace(b"FloatStorage", b"CFloatStorage")),
    "of bytes that are none": Stored(7),
    "that is a folder of nothing": Stored(pickle.dumps(())),
}


def changed(**more):
    """A sound file, but for some of what its outer object remembers."""

    def make(trap, trace):
        net = song(trap)
        net.meta["state"].update({key: value(trace) if callable(value) else value for key, value in more.items()})
        return net

    return make


def harm(trace):
    return Call(os.mkdir, trace)


def doubled(pair):
    """Sixty times itself beside itself: 2^60 leaves in a few bytes."""
    found = ()
    for _ in range(60):
        found = pair(found)
    return found


TOWER = doubled(lambda x: (x, x))


def named_by(name):
    return lambda trap, trace: Persistent(name(trace) if callable(name) else name, song(trap).meta["state"], trap)


def endless(trap, trace):
    loop = Persistent("Loop", {"_modules": {}}, trap)
    loop.meta["state"]["_modules"]["again"] = loop
    return loop


def many(trap, trace):
    part = {"_parameters": {str(i): None for i in range(100)}}
    return Persistent("Many", {"_modules": {str(i): Persistent("One", part, trap) for i in range(300)}}, trap)


SHARED = torch.nn.Parameter(torch.zeros(2000), requires_grad=False)

CASES = {
    "another entry": lambda trap, trace: {"ema": song(trap), "loss_fn": harm(trace)},
    "an entry before": lambda trap, trace: {"augment_pipe": harm(trace), "ema": song(trap)},
    "an argument": changed(_init_kwargs=lambda trace: {"img_resolution": harm(trace)}),
    "a weight": changed(_parameters=lambda trace: {"a": harm(trace)}),
    "a part": changed(_modules=lambda trace: {"model": harm(trace)}),
    "a class name": named_by(harm),
    "a class name of towers": named_by(TOWER),
    "an argument of towers": changed(_init_kwargs={"img_resolution": TOWER}),
    "arguments in arguments": changed(_init_kwargs=doubled(lambda x: {"a": x, "b": x})),
    "endless parts": endless,
    "too many parts": many,
    "a part of no module": changed(_modules={"model": [1]}),
    "a state of no dictionary": lambda trap, trace: Persistent("EDMPrecond", [1], trap),
    "a name of a thousand letters": changed(_parameters={"a" * 1000: torch.zeros(1)}),
    "an argument of a thousand letters": changed(_init_kwargs={"model_type": "a" * 1000}),
    "arguments without names": changed(_init_args=(1, 2)),
    "a number of five thousand digits": changed(_init_kwargs={"img_resolution": 10**5000}),
    "an attribute of five thousand digits": changed(sigma_data=10**5000),
    "no spread of the data": changed(sigma_data=0.0),
    "one weight under many names": changed(_parameters={str(i): SHARED for i in range(5000)}),
    **{f"a weight {name}": changed(_parameters={"a": weight}) for name, weight in WEIGHTS.items()},
    **{
        f"a weight of {name}": changed(_parameters=lambda trace, make=make: {"a": Stored(make(trace))})
        for name, make in OPCODES.items()
    },
}


@pytest.mark.parametrize("name", CASES)
def test_harm_in_a_sound_file(name, trace, tmp_path, monkeypatch):
    """Read in this process, which is what the other one does, without its limits."""
    monkeypatch.setattr(edm, "describe_network", here)
    (tmp_path / "net.pkl").write_bytes(text(CASES[name](TRAP.format(trace), trace)))
    with pytest.raises(BadFile) as caught:
        cmtool.load(tmp_path / "net.pkl")
    assert "\n" not in caught.value.message


def here(path):
    return parse_answer(path, describe_to_json(path, persistence.describe))


def test_the_program_in_a_file_would_leave_a_trace(tmp_path):
    trap = TRAP.format(str(tmp_path / "trace"))
    exec(song(trap).meta["module_src"])
    assert (tmp_path / "trace").is_dir()


def test_from_the_shell_it_is_one_sentence_and_a_code(tmp_path, trace, capsys):
    (tmp_path / "net.pkl").write_bytes(text({"ema": song(TRAP.format(trace)), "loss_fn": Call(os.mkdir, trace)}))
    assert run(["info", str(tmp_path / "net.pkl")]) == 65
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith("cmtool: error: ")
    assert told[0].endswith("net.pkl cannot be read: it asks for 'posix.mkdir', which is no part of a network")
    assert len(told) == 2


@pytest.mark.parametrize("kept", [0, 1, 2, 100, 1000, -2000, -100, -1])
def test_a_file_that_is_cut_short(tmp_path, trace, kept):
    whole = text(song(TRAP.format(trace)))
    (tmp_path / "net.pkl").write_bytes(whole[:kept])
    with pytest.raises(BadFile):
        cmtool.load(tmp_path / "net.pkl")
    with pytest.raises(BadFile, match="damaged or cut short"):
        cmtool.load(tmp_path / "net.pkl", format={"name": "edm"})


SOUND = [song, narrow_adm, magnitudes]


def mutated(whole, dice):
    """A few bytes changed, a piece cut out or doubled, or an end cut off; mostly where no weights are."""
    data = bytearray(whole)
    match dice.randrange(6):
        case 0:
            at = dice.randrange(len(data))
            del data[at : at + dice.randrange(1, 40)]
        case 1:
            at = dice.randrange(len(data))
            data[at:at] = data[at : at + dice.randrange(1, 40)]
        case 2:
            del data[dice.randrange(len(data)) :]
        case _:
            for _ in range(dice.randrange(1, 6)):
                data[dice.randrange(len(data))] = dice.randrange(256)
    return bytes(data)


def attempt(n, tmp_path, monkeypatch, trace):
    monkeypatch.setattr(edm, "describe_network", here)
    files, refused = [text(make(TRAP.format(trace))) for make in SOUND], 0
    for i in range(n):
        dice = random.Random(i)
        (tmp_path / "net.pkl").write_bytes(mutated(files[i % len(files)], dice))
        try:
            model = cmtool.load(tmp_path / "net.pkl", format={"name": "edm"})
            assert json.dumps(model.header.document())
        except BadFile:
            refused += 1
    assert n // 5 < refused < n


def test_mutations(tmp_path, monkeypatch, trace):
    attempt(200, tmp_path, monkeypatch, trace)


@pytest.mark.slow
def test_many_mutations(tmp_path, monkeypatch, trace):
    attempt(5000, tmp_path, monkeypatch, trace)
