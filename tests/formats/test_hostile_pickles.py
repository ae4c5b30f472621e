"""Hostile pickles in every format that has pickles: one sentence, and nothing of theirs runs."""

import os
import pickle
import subprocess
import sys
import zipfile

import pytest
from adm_nets import write as write_adm
from hostile import SIZES, hostile

import cmtool
from cmtool.errors import BadFile
from cmtool.files.safe_pickle.sandbox import MEMORY

NAMES = sorted(hostile("/trace"))


@pytest.fixture
def trace(tmp_path):
    """A place where something stands as soon as anything runs."""
    yield str(tmp_path / "trace")
    assert not os.path.lexists(tmp_path / "trace")


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return write_adm(tmp_path_factory.mktemp("sound") / "net.pt", channel_mult=(1,), attention=())


def as_pkl(text, path, sound):
    path.write_bytes(text)
    return {"name": "edm"}


def as_pt(text, path, sound):
    """The pickle of a file of ``torch.save``, with everything else in order."""
    with zipfile.ZipFile(sound) as old, zipfile.ZipFile(path, "w") as new:
        for entry in old.infolist():
            new.writestr(entry.filename, text if entry.filename.endswith("data.pkl") else old.read(entry))
    return {"name": "openai", "kind": "consistency", "side": 16}


READERS = {"edm": as_pkl, "openai": as_pt}


def test_there_are_enough_of_them():
    assert len(NAMES) > 100
    assert len({text.replace(b"/trace", b"") for text in hostile("/trace").values()}) == len(NAMES)


def test_they_do_what_they_say(tmp_path):
    """Python's own reader runs them; if it did not, that ours does not would prove nothing."""
    trace = tmp_path / "trace"
    for name in (
        "os.mkdir, protocol 1",
        "eval, protocol 4",
        "exec, protocol 5",
        "getattr chain, protocol 4",
        "INST",
        "OBJ",
    ):
        pickle.loads(hostile(str(trace))[name])
        trace.rmdir()


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", NAMES)
def test_nothing_in_a_pickle_runs(reader, name, trace, tmp_path, sound):
    path = tmp_path / "net.file"
    said = READERS[reader](hostile(trace)[name], path, sound)
    with pytest.raises(BadFile) as caught:
        cmtool.load(path, format=said)
    assert "\n" not in caught.value.message
    with pytest.raises(BadFile):  # nor when nobody says what it is
        cmtool.load(path)


def test_a_text_larger_than_the_memory_is_refused(tmp_path):
    """The process that reads has a limit of its own; the file is mostly a hole."""
    path = tmp_path / "net.pkl"
    with path.open("wb") as file:
        file.write(b"\x80\x04\x8d" + (3 * MEMORY).to_bytes(8, "little"))
        file.truncate(3 * MEMORY + 20)
    with pytest.raises(BadFile, match="reading it takes more than 1024 MiB of memory"):
        cmtool.load(path, format={"name": "edm"})


READ_ALL = """
import resource, sys
from pathlib import Path
from cmtool.errors import BadFile
from cmtool.files.safe_pickle.sandbox import describe_network as described
for path in sys.argv[1:]:
    try:
        described(Path(path))
    except BadFile:
        continue
    sys.exit("a file of extreme sizes was accepted: " + path)
assert "torch" not in sys.modules  # whose memory a child may be charged with
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def test_memory_stays_small(tmp_path):
    """Of the processes that read the files of extreme sizes, none had more than Python itself and some megabytes."""
    paths = [tmp_path / f"{i}.pkl" for i in range(len(SIZES))]
    for path, make in zip(paths, SIZES.values(), strict=True):
        path.write_bytes(make("x"))
    done = subprocess.run([sys.executable, "-c", READ_ALL, *map(str, paths)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(done.stdout) * unit < 128 << 20
