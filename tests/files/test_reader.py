"""Streams that other programs wrote, through the one reader."""

import io
import json
import sys
import zipfile

import numpy as np
import pytest

from cmtool.errors import BadFile, UsageError
from cmtool.files.streams.item import pixels
from cmtool.files.streams.reader import images_of, items_of
from cmtool.pictures import encode

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (10, 3, 5, 7)).astype(np.uint8)


def read(target, size=3, **options):
    batches = list(images_of(target, size, **options))
    labels = [batch.labels for batch in batches]
    return np.concatenate([b.images for b in batches]), None if labels[0] is None else np.concatenate(labels)


@pytest.fixture
def piped(monkeypatch):
    """Standard input with some bytes in it, as a pipe."""

    def give(data):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    return give


def packed(path, names, labels=None, kind=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, image in zip(names, COLOUR, strict=True):
            archive.writestr(name, encode(image))
        if labels is not None:
            archive.writestr("dataset.json", json.dumps({"labels": labels}))


@pytest.mark.parametrize("kind", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_as_edm_packs_it(tmp_path, kind):
    names = [f"{i // 3:05d}/img{i:08d}.png" for i in range(10)]
    labels = [[name, i % 4] for i, name in enumerate(names)]
    packed(tmp_path / "x.zip", names, labels, kind)
    images, told = read(tmp_path / "x.zip")
    assert np.array_equal(images, COLOUR)
    assert told.tolist() == [i % 4 for i in range(10)]
    packed(tmp_path / "y.zip", names[::-1])
    images, told = read(tmp_path / "y.zip")
    assert np.array_equal(images, COLOUR[::-1])
    assert told is None


def test_zips_that_are_something_else(tmp_path):
    (tmp_path / "x.zip").write_bytes(b"no archive")
    with pytest.raises(BadFile, match=r"is not a \.zip file, or is damaged"):
        read(tmp_path / "x.zip")
    packed(tmp_path / "x.zip", [f"{i}.txt" for i in range(10)])
    with pytest.raises(BadFile, match="no pictures"):
        read(tmp_path / "x.zip")
    names = [f"{i}.png" for i in range(10)]
    packed(tmp_path / "x.zip", names, "none")
    with pytest.raises(BadFile, match=r"x\.zip:dataset\.json holds no labels"):
        read(tmp_path / "x.zip")
    packed(tmp_path / "x.zip", names)
    whole = (tmp_path / "x.zip").read_bytes()
    at = whole.index(b"IDAT") + 6
    (tmp_path / "x.zip").write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    with pytest.raises(BadFile, match="Bad CRC-32"):
        read(tmp_path / "x.zip")


def test_npy_from_a_file_and_through_a_pipe(tmp_path, piped):
    np.save(tmp_path / "x.npy", COLOUR.transpose(0, 2, 3, 1))
    assert np.array_equal(read(tmp_path / "x.npy")[0], COLOUR)
    piped((tmp_path / "x.npy").read_bytes())
    assert np.array_equal(read("-")[0], COLOUR)
    np.save(tmp_path / "p.npy", COLOUR[:, 0, 0] / 255)
    assert np.allclose(read(tmp_path / "p.npy")[0], COLOUR[:, 0, 0] / 255)
    whole = (tmp_path / "x.npy").read_bytes()
    for wrong, says in ((whole[:-1], "cut short"), (whole + b"x", "longer than"), (b"text", "npy file")):
        (tmp_path / "x.npy").write_bytes(wrong)
        with pytest.raises(BadFile, match=says):
            read(tmp_path / "x.npy")


def test_one_picture_through_a_pipe_and_a_zip_that_cannot(tmp_path, piped):
    piped(encode(COLOUR[0]))
    assert np.array_equal(read("-")[0], COLOUR[:1])
    packed(tmp_path / "x.zip", [f"{i}.png" for i in range(10)])
    piped((tmp_path / "x.zip").read_bytes())
    with pytest.raises(UsageError, match="a pipe cannot read it"):
        read("-")


def test_items_keep_their_own_size(tmp_path):
    sizes = [(3, 5, 7), (1, 8, 8), (3, 2, 9)]
    for i, size in enumerate(sizes):
        (tmp_path / f"{i}.png").write_bytes(encode(np.full(size, i, np.uint8)))
    assert [pixels(item).shape for item in items_of(tmp_path)] == sizes
