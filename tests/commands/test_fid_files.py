"""The files that fid reads and writes: sizes and colours side by side, kinds that are not read, places that refuse."""

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image
from tiny import pixels

SMALL = ["--ref", "shapes[:70]", "--features", "small"]
RNG = np.random.default_rng(5)


def mixed(n=12):
    """Grey and coloured pictures of several sizes."""
    for i in range(n):
        size = (16 + 3 * (i % 3), 20 - i % 2)
        yield RNG.integers(0, 256, size if i % 4 == 0 else (*size, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a").mkdir()
    for i, image in enumerate(mixed()):
        Image.fromarray(image).save(tmp_path / "a" / f"{i:02}.png")
    return tmp_path / "a"


def value(well, *argv):
    return json.loads(well("fid", *argv, *SMALL, "--json"))["value"]


def test_sizes_and_colours_side_by_side_in_any_order_and_batch(well, folder, tmp_path):
    wanted = value(well, folder)
    for batch in ("1", "5"):
        assert value(well, folder, "--batch", batch) == pytest.approx(wanted, rel=1e-6)
    (tmp_path / "b").mkdir()
    for i, path in enumerate(sorted(folder.iterdir(), reverse=True)):
        shutil.copy(path, tmp_path / "b" / f"{i:02}.png")
    assert value(well, tmp_path / "b") == pytest.approx(wanted, rel=1e-6)
    for path in folder.iterdir():  # grey is the same in three channels
        Image.open(path).convert("RGB").save(path)
    assert value(well, folder) == pytest.approx(wanted, rel=1e-6)


def test_the_sheet_of_pictures_of_several_sizes(well, folder, tmp_path):
    sheet = tmp_path / "sheet.png"
    well("fid", folder, "--ref", folder, "--features", "small", "--metrics", "memorization", "--sheet", sheet)
    assert pixels(sheet).ndim == 3


def test_kinds_that_are_not_read_are_told(cm, folder):
    for name in ("x.tiff", "y.gif", "z.gif", "notes.txt"):
        (folder / name).touch()
    told = cm("fid", folder, *SMALL, "--json", "-q")
    assert json.loads(told.out)["source"]["left_out"] == {".gif": 2, ".tiff": 1}
    assert json.loads(told.out)["source"]["images"] == 12
    assert "3 pictures were left out" in told.err and "2 .gif, 1 .tiff" in told.err


def test_places_are_looked_at_before_the_work(cm, folder, tmp_path):
    mine = tmp_path / "mine.npz"
    mine.write_bytes(b"of the user")
    make = ["fid", "--make-ref", folder, "--features", "small", "-o"]
    for place, code in ((mine, 2), ("/proc/x.npz", 74), (mine / "x.npz", 74)):
        told = cm(*make, place)
        assert told.code == code and "images" not in told.err
        assert mine.read_bytes() == b"of the user"
    ref = tmp_path / "ref.npz"
    assert cm(*make, ref).code == cm(*make, ref).code == 0
    assert cm("fid", "--make-ref", ref, "--features", "small", "-o", ref).code == 2
    assert cm(*make, mine, "--overwrite").code == 0
    photo = folder / "00.png"
    before = photo.read_bytes()
    for words in (["--metrics", "memorization", "--sheet", photo], ["--chart", photo], ["--chart", "/proc/x.png"]):
        assert cm("fid", folder, *SMALL, *words).code == (74 if "/proc/x.png" in words else 2)
        assert photo.read_bytes() == before


def test_a_number_is_told_although_its_sheet_cannot_be_written(cm, folder, tmp_path, monkeypatch):
    from cmtool.commands import fid
    from cmtool.errors import WriteFailed

    def refuse(*_):
        raise WriteFailed("cannot write sheet.png: No space left on device")

    monkeypatch.setattr(fid, "write_picture", refuse)
    told = cm("fid", folder, *SMALL, "--metrics", "fid,memorization", "--sheet", tmp_path / "sheet.png")
    assert told.code == 74 and "No space left" in told.error[0]
    assert told.out.startswith("FD-small  ")


def test_a_named_pipe_is_not_waited_for(cm, folder, tmp_path):
    os.mkfifo(tmp_path / "x.npz")
    for words in ([tmp_path / "x.npz", *SMALL], [folder, "--ref", tmp_path / "x.npz", "--features", "small"]):
        told = cm("fid", *words)
        assert told.code == 65 and "a pipe or a device" in told.error[0]
