"""Streams that were made to hurt: every one ends with a sentence, soon and in little memory."""

import io
import json
import os
import re
import struct
import tarfile
import time
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest

from cmtool.errors import BadFile, CmtoolError
from cmtool.files.images import images_of
from cmtool.files.streams.item import decode_items
from cmtool.files.streams.reader import items_of
from cmtool.pictures import encode

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (6, 3, 8, 8)).astype(np.uint8)
ROWS = IMAGES.transpose(0, 2, 3, 1)


def packed(path, kind=zipfile.ZIP_STORED, **more):
    with zipfile.ZipFile(path, "w", kind) as archive:
        for i, image in enumerate(IMAGES):
            archive.writestr(f"{i}.png", encode(image))
        for name, data in more.items():
            archive.writestr(name.replace("_", "."), data)
    return path


def header(text, version=(1, 0)):
    data = text.encode()
    return b"\x93NUMPY" + bytes(version) + len(data).to_bytes(2 if version == (1, 0) else 4, "little") + data


@pytest.mark.parametrize("kind", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_zips_of_every_way_to_pack_are_read_and_their_damage_is_found(tmp_path, kind):
    path = packed(tmp_path / "x.zip", kind)
    whole = path.read_bytes()
    assert np.array_equal(next(images_of(path)).images, IMAGES)
    for place in RNG.integers(0, len(whole), 120).tolist():
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x5A]) + whole[place + 1 :])
        try:
            list(images_of(path))
        except CmtoolError as error:
            assert error.code == 65 and "\n" not in error.message


def fields(whole, local, central, change):
    data = bytearray(whole)
    for sign, place in ((b"PK\3\4", local), (b"PK\1\2", central)):
        at = data.find(sign)
        while at >= 0:
            change(data, at + place)
            at = data.find(sign, at + 4)
    return bytes(data)


def test_zips_of_other_programs_and_times(tmp_path):
    path = packed(tmp_path / "x.zip")
    whole = path.read_bytes()

    def version(data, at):
        data[at : at + 2] = struct.pack("<H", 255)

    def flag(bits):
        def change(data, at):
            data[at : at + 2] = struct.pack("<H", bits)

        return change

    def method(data, at):
        data[at : at + 2] = struct.pack("<H", 97)

    for changed in (
        fields(whole, 4, 6, version),
        fields(whole, 6, 8, flag(0x800)).replace(b"3.png", b"\xff.png"),
        fields(whole, 6, 8, flag(1)),  # encrypted
        fields(whole, 8, 10, method),
    ):
        path.write_bytes(changed)
        with pytest.raises(BadFile, match=r"is not a \.zip file, or is damaged"):
            list(images_of(path))


def test_a_member_that_unpacks_to_more_than_it_says(tmp_path):
    """The list says a thousand bytes, and the data are fifty million."""
    path = tmp_path / "x.zip"
    for kind, most in ((zipfile.ZIP_DEFLATED, 2_000_000), (zipfile.ZIP_BZIP2, 200_000_000)):
        with zipfile.ZipFile(path, "w", kind) as archive:
            archive.writestr("0.png", bytes(50_000_000))
        small = struct.pack("<L", 1000)
        path.write_bytes(path.read_bytes().replace(struct.pack("<L", 50_000_000), small))
        tracemalloc.start()
        try:
            with pytest.raises(BadFile):
                list(images_of(path))
            assert tracemalloc.get_traced_memory()[1] < most
        finally:
            tracemalloc.stop()


def test_large_pictures_are_decoded_one_by_one_and_fill_small_batches(tmp_path):
    large = encode(np.zeros((1, 6000, 6000), np.uint8))
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for i in range(12):
            archive.writestr(f"{i:02}.png", large)
    sizes = [len(some) for some in decode_items(items_of(tmp_path / "x.zip"), 256)]
    assert sum(sizes) == 12 and max(sizes) < 8


def test_members_that_are_no_pictures_are_not_read_ahead(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(12):
            archive.writestr(f"{i:02}.png", bytes(60 << 20), compresslevel=1)
    tracemalloc.start()
    try:
        with pytest.raises(BadFile, match="not a picture"):
            list(decode_items(items_of(tmp_path / "x.zip"), 256))
        assert tracemalloc.get_traced_memory()[1] < 360 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "labels",
    [
        [["0.png", 10**30]],
        [["0.png", -1]],
        [["0.png", "three"]],
        [["0.png", 1.5]],
        [["0.png", True]],
        [[["0.png"], 1]],
        [["0.png"]],
        "none",
        5,
        {"a": 1},
    ],
)
def test_labels_that_are_none(tmp_path, labels):
    text = json.dumps({"labels": labels})
    with pytest.raises(BadFile, match=r"dataset\.json"):
        list(items_of(packed(tmp_path / "x.zip", dataset_json=text)))
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "0.png").write_bytes(encode(IMAGES[0]))
    (tmp_path / "f" / "dataset.json").write_text(text)
    with pytest.raises(BadFile, match=r"dataset\.json"):
        list(items_of(tmp_path / "f"))


def test_labels_that_are_larger_than_pictures_need(tmp_path):
    text = '{"labels": [' + "[]," * 1_000_000 + "[]]}"
    path = packed(tmp_path / "x.zip", zipfile.ZIP_DEFLATED, dataset_json=text)
    with pytest.raises(BadFile, match=r"dataset\.json, which is larger than"):
        list(items_of(path))


@pytest.mark.parametrize(
    "text",
    [
        f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({'-' * 8000}1,)}}",
        f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({'1+' * 3000}1j,)}}",
        f"{{'descr': '|u1', 'fortran_order': False, 'shape': {'(' * 3000}1,{')' * 3000}}}",
        f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({'9' * 500}, 8, 8)}}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 100000000000, 100000000000)}",
        "{'descr': '|u1', 'fortran_order': True, 'shape': (100000, 1000, 1000, 3)}",
        "{'descr': '|V9999999999', 'fortran_order': False, 'shape': (2, 8, 8)}",
        "{'descr': [('a', '|u1')], 'fortran_order': False, 'shape': (2, 8, 8)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000, 8, 8)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 0, 8)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': ()}",
        "{}",
        "",
    ],
)
def test_headers_of_arrays_that_are_none(tmp_path, text):
    (tmp_path / "x.npy").write_bytes(header(text) + bytes(999))
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("arr_0.npy", header(text) + bytes(999))
    for path in (tmp_path / "x.npy", tmp_path / "x.npz"):
        began = time.monotonic()
        with pytest.raises(BadFile):
            list(images_of(path))
        assert time.monotonic() - began < 2


def test_a_header_of_a_gigabyte_is_not_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("arr_0.npy", b"\x93NUMPY\2\0" + struct.pack("<L", 30_000_000) + b" " * 30_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(BadFile, match="a header of 30,000,000 bytes"):
            list(images_of(tmp_path / "x.npz"))
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_arrays_of_other_writers(tmp_path):
    np.savez_compressed(tmp_path / "f.npz", arr_0=np.asfortranarray(ROWS), arr_1=np.arange(6))
    batch = next(images_of(tmp_path / "f.npz"))
    assert np.array_equal(batch.images, IMAGES) and batch.labels.tolist() == [0, 1, 2, 3, 4, 5]
    np.save(tmp_path / "g.npy", np.asfortranarray(ROWS[..., 0]))
    assert np.array_equal(next(images_of(tmp_path / "g.npy")).images, IMAGES[:, :1])
    np.savez(tmp_path / "one.npz", arr_0=ROWS[0])
    assert np.array_equal(next(images_of(tmp_path / "one.npz")).images, IMAGES[:1])
    spaced = header('{"shape": (6L , 8L,8L, 3L), "fortran_order":False,"descr":"|u1"}\n', (2, 0))
    (tmp_path / "old.npy").write_bytes(spaced + ROWS.tobytes())
    assert np.array_equal(next(images_of(tmp_path / "old.npy")).images, IMAGES)


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (IMAGES, r"channels come last: array\.transpose"),
        (ROWS / 255, r"\(x \* 255\)\.round\(\)"),
        (ROWS.astype(np.uint16), "images are uint8"),
        (np.zeros((4, 4, 4), np.uint8), "images are uint8"),
    ],
)
def test_arrays_that_are_no_images_say_what_would_be(tmp_path, array, says):
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(BadFile, match="which are no images") as caught:
        list(images_of(tmp_path / "x.npy"))
    assert re.search(says, caught.value.hint)


SOUND = {"n": 4, "columns": 2, "size": [14, 14], "gap": 1, "scale": 1, "labels": None}


def sheet(path, text):
    png = encode(RNG.integers(0, 256, (3, 32, 32)).astype(np.uint8))
    chunk = b"tEXtcmtool:sheet\0" + text.encode()
    path.write_bytes(
        png[:33] + struct.pack(">L", len(chunk) - 4) + chunk + struct.pack(">L", zlib.crc32(chunk)) + png[33:]
    )
    return path


@pytest.mark.parametrize(
    "change",
    [
        {"n": 10**12},
        {"n": 2**31, "columns": 2**31},
        {"n": True},
        {"n": 4.0},
        {"n": 0},
        {"n": 10**6, "size": [0, 0], "gap": 0},
        {"size": [14]},
        {"size": "ab"},
        {"columns": 0},
        {"columns": -1},
        {"columns": 4},
        {"gap": -15},
        {"scale": 0},
        {"scale": 10**9},
        {"labels": ["a"] * 4},
        {"labels": [10**30] * 4},
        {"labels": [1.5] * 4},
        {"labels": [1] * 3},
        {"labels": {"0": 1}},
        {"labels": 4},
        {"labels": [[]] * 100_000},
    ],
)
def test_sheets_that_are_not_laid_out_as_they_say(tmp_path, change):
    with pytest.raises(BadFile, match=r"x\.png"):
        list(items_of(sheet(tmp_path / "x.png", json.dumps({**SOUND, **change}))))


@pytest.mark.parametrize("text", ["", "[" * 3000, "9" * 5000, "[]", '"a"', "null", "{}"])
def test_sheets_whose_layout_is_none(tmp_path, text):
    with pytest.raises(BadFile, match=r"x\.png"):
        list(items_of(sheet(tmp_path / "x.png", text)))


def test_a_sound_sheet(tmp_path):
    items = list(items_of(sheet(tmp_path / "x.png", json.dumps(SOUND | {"labels": [3, None, 0, 1]}))))
    assert [item.label for item in items] == [3, None, 0, 1]
    assert all(item.source.shape == (3, 14, 14) for item in items)


@pytest.mark.parametrize("name", ["x.tar", "x.zip", "x.npz", "x.npy", "x.png"])
def test_a_named_pipe_is_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(BadFile, match="a pipe or a device"):
        items_of(tmp_path / name)
    if name == "x.png":
        with pytest.raises(BadFile, match="a pipe or a device"):
            items_of(tmp_path)


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"\x1f\x8b\x08", "gzip file"),
        (b"BZh9", "bzip2 file"),
        (b"\xfd7zXZ\0", "xz file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "HTML page"),
    ],
)
@pytest.mark.parametrize("name", ["x.tar", "x.zip", "x.npz", "x.npy"])
def test_what_a_file_is_instead_is_named(tmp_path, start, kind, name):
    (tmp_path / name).write_bytes(start + bytes(2000))
    with pytest.raises(BadFile, match=kind):
        list(items_of(tmp_path / name))


def test_a_long_name_in_a_tar_has_a_bound(tmp_path):
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size = tarfile.XHDTYPE, 2 << 20
    (tmp_path / "x.tar").write_bytes(info.tobuf() + bytes(2 << 20) + bytes(1024))
    with pytest.raises(BadFile, match="larger than 1 MB"):
        list(items_of(tmp_path / "x.tar"))
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("n\u00e9 = path=\u00e9 " * 20 + ".png")
        info.size = len(encode(IMAGES[0]))
        archive.addfile(info, io.BytesIO(encode(IMAGES[0])))
    (tmp_path / "x.tar").write_bytes(file.getvalue())
    assert [item.key for item in items_of(tmp_path / "x.tar")] == [info.name]
