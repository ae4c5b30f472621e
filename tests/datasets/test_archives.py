"""Archives as training data: the same images and labels as the folder that was packed, nothing unpacked."""

import io
import json
import struct
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from cmtool.datasets.folder import folder
from cmtool.errors import BadFile, MissingInput
from cmtool.testing import check_dataset

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
LABELS = [2, 0, 1, 0, 2, 1]


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def packed_zip(path, names, labels=None, compression=zipfile.ZIP_STORED, top=""):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, pixels in zip(names, IMAGES, strict=False):
            archive.writestr(top + name, png(pixels))
        if labels is not None:
            pairs = [list(pair) for pair in zip(names, labels, strict=False)]
            archive.writestr(f"{top}dataset.json", json.dumps({"labels": pairs}))
    return path


def packed_tar(path, members, format=tarfile.PAX_FORMAT):
    with tarfile.open(path, "w", format=format) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def values(data):
    check_dataset(data)
    return [(data[i][0].permute(1, 2, 0).numpy().tolist(), data[i][1]) for i in range(len(data))]


EXPECTED = [(image.tolist(), label) for image, label in zip(IMAGES, LABELS, strict=True)]
NAMES = [f"0000{k // 3}/img{k:08d}.png" for k in range(6)]


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("top", ["", "photos/", "a/b/"])
def test_a_zip_as_edm_packs_it(tmp_path, compression, top):
    data = folder(packed_zip(tmp_path / "x.zip", NAMES, LABELS, compression, top))
    assert values(data) == EXPECTED
    assert data.classes == ("0", "1", "2")
    assert "archive 'x.zip'" in data.notice


def test_a_zip_of_folders_of_classes(tmp_path):
    names = ["p/Katze \u200d\U0001f408/1.png", "p/Katze \u200d\U0001f408/2.png", "p/chien\u00a0/1.png"]
    data = folder(packed_zip(tmp_path / "x.zip", names))
    assert data.classes == ("Katze \u200d\U0001f408", "chien\u00a0")
    assert [data[k][1] for k in range(3)] == [0, 0, 1]


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_a_tar_as_webdataset_keeps_it(tmp_path, format):
    members = []
    for k, (pixels, label) in enumerate(zip(IMAGES, LABELS, strict=True)):
        members += [(f"./{k:04d}.cls", str(label).encode()), (f"./{k:04d}.rgb.png", png(pixels))]
    assert values(folder(packed_tar(tmp_path / "x.tar", members, format))) == EXPECTED


def test_long_names_of_a_tar(tmp_path):
    folders = "\u00e9" * 120
    for format in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        long = [*(f"{folders}/{'x' * 150}{k}.png" for k in range(2)), "dog/1.png"]
        data = folder(packed_tar(tmp_path / "x.tar", [(n, png(IMAGES[k])) for k, n in enumerate(long)], format))
        assert data.classes == ("dog", folders)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_npz_as_openai_writes_it(tmp_path, save, order):
    save(tmp_path / "x.npz", np.asarray(IMAGES, order=order), np.array(LABELS))
    assert values(folder(tmp_path / "x.npz")) == EXPECTED
    save(tmp_path / "y.npz", IMAGES[..., 0])
    assert folder(tmp_path / "y.npz").shape == (1, 8, 8)


def test_an_npy(tmp_path):
    np.save(tmp_path / "x.npy", IMAGES)
    assert values(folder(tmp_path / "x.npy", size=4, channels=1))[0][1] is None
    assert [one for one, _ in values(folder(tmp_path / "x.npy"))] == IMAGES.tolist()


def bomb(path):
    packed_zip(path, NAMES[:2], compression=zipfile.ZIP_DEFLATED)
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\1\2")
    data[at + 24 : at + 28] = struct.pack("<I", 300_000_000)
    path.write_bytes(data)


def flipped(path):
    packed_zip(path, NAMES)
    data = bytearray(path.read_bytes())
    data[200] ^= 255
    path.write_bytes(data)


WRONG = {
    "text.zip": (lambda path: path.write_text("no zip"), "not a .zip file, or is damaged"),
    "bomb.zip": (bomb, "is larger than 256 MB"),
    "flipped.zip": (flipped, "CRC"),
    "bzip.zip": (lambda path: packed_zip(path, NAMES, compression=zipfile.ZIP_BZIP2), "packed in a way"),
    "none.zip": (lambda path: packed_zip(path, []), "there are no images in"),
    "other.zip": (lambda path: packed_zip(path, NAMES, LABELS[:3]), "has no label in dataset.json"),
    "text.tar": (lambda path: path.write_bytes(b"x" * 2048), "not a tar archive"),
    "short.tar": (lambda path: path.write_bytes(packed_tar(path, [("a.png", b"x" * 9999)]).read_bytes()[:5000]), "cut"),
    "gzip.tar": (lambda path: path.write_bytes(b"\x1f\x8b" + bytes(600)), "is a gzip file and no tar"),
    "twice.tar": (lambda path: packed_tar(path, [("a.png", png(IMAGES[0]))] * 2), "holds a.png twice"),
    "label.tar": (lambda path: packed_tar(path, [("a.png", png(IMAGES[0])), ("a.cls", b"cat")]), "is not a label"),
    "float.npy": (lambda path: np.save(path, IMAGES / 255), "holds float64 .* no images"),
    "pickle.npy": (lambda path: np.save(path, np.array([{}]), allow_pickle=True), "holds no array of numbers"),
    "flat.npz": (lambda path: np.savez(path, IMAGES.reshape(6, -1)), "no images"),
    "names.npz": (lambda path: np.savez(path, mu=np.zeros(3)), "holds no images, but mu"),
    "labels.npz": (lambda path: np.savez(path, IMAGES, np.arange(5)), "arr_1 is not their labels"),
    "data.gz": (lambda path: path.write_bytes(b"\x1f\x8b" + bytes(600)), "is a gzip file, not a folder"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_with_an_archive_is_said(tmp_path, name):
    make, said = WRONG[name]
    make(tmp_path / name)
    with pytest.raises(BadFile, match=said) as caught:
        values(folder(tmp_path / name))
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("suffix", ["zip", "tar", "npz", "npy"])
def test_no_damage_is_a_fault_of_ours(tmp_path, suffix):
    path = tmp_path / f"x.{suffix}"
    {
        "zip": lambda: packed_zip(path, NAMES, LABELS, zipfile.ZIP_DEFLATED),
        "tar": lambda: packed_tar(path, [("a/1.png", png(IMAGES[0])), ("a/1.cls", b"1"), ("b/2.png", png(IMAGES[1]))]),
        "npz": lambda: np.savez(path, IMAGES, np.array(LABELS)),
        "npy": lambda: np.save(path, IMAGES),
    }[suffix]()
    whole, rng = path.read_bytes(), np.random.default_rng(7)
    for _ in range(150):
        changed = bytearray(whole)
        for at in rng.integers(0, len(whole), rng.integers(1, 4)):
            changed[at] = rng.integers(256)
        path.write_bytes(changed[: rng.integers(1, len(whole) + 1)] if rng.random() < 0.3 else changed)
        try:
            data = folder(path, size=8, channels=3)
            [data[i] for i in range(len(data))]
        except BadFile as error:
            assert "\n" not in error.message


def test_an_archive_that_is_not_there(tmp_path):
    packed_zip(tmp_path / "photos.zip", NAMES)
    with pytest.raises(MissingInput, match=r"no folder or file .*photo.zip") as caught:
        folder(tmp_path / "photo.zip")
    assert "photos.zip" in caught.value.hint
