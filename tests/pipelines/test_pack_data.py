"""Packed data, read by zipfile, tarfile, numpy and Pillow alone."""

import io
import json
import shutil
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from cmtool.datasets import Dataset
from cmtool.datasets.views import DatasetSlice
from cmtool.errors import BadFile, UsageError, WriteFailed
from cmtool.pipelines import pack_data as module
from cmtool.pipelines.data_report import measure_data
from cmtool.pipelines.inputs import open_dataset
from cmtool.pipelines.numbered_pictures import GeneratedPictures
from cmtool.pipelines.pack_data import check_room, estimate_bytes, pack_data

IMAGES = np.random.default_rng(1).integers(0, 256, (1100, 3, 4, 6), dtype=np.uint8)


class Pictures(Dataset):
    """Coloured noise of 4x6 in three classes."""

    def __init__(self, n=150, classes=("cat", "dog", "owl"), damaged=None):
        self.n, self.classes, self.shape, self.damaged = n, classes, (3, 4, 6), damaged

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        if index == self.damaged:
            raise BadFile(f"picture {index} is damaged")
        return torch.from_numpy(IMAGES[index]), index % 3 if self.classes else None


def pixels(data):
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)


def test_a_zip_as_edm_packs_it(tmp_path):
    packed = pack_data(Pictures(1100), tmp_path / "x.zip")
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        assert archive.testzip() is None
        members = archive.infolist()
        assert {info.compress_type for info in members} == {zipfile.ZIP_STORED}
        names = [f"{i // 1000:05d}/img{i:08d}.png" for i in range(1100)]
        assert [info.filename for info in members] == [*names, "dataset.json"]
        for i in (0, 1, 999, 1000, 1099):
            assert (pixels(archive.read(names[i])) == IMAGES[i].transpose(1, 2, 0)).all()
        document = json.loads(archive.read("dataset.json"))
    assert document == {
        "labels": [[name, i % 3] for i, name in enumerate(names)],
        "class_names": ["cat", "dog", "owl"],
    }
    assert packed.bytes == (tmp_path / "x.zip").stat().st_size


def test_a_zip_without_labels_says_null(tmp_path):
    pack_data(Pictures(classes=()), tmp_path / "x.zip")
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        assert json.loads(archive.read("dataset.json")) == {"labels": None}


def test_numbered_classes_have_no_names(tmp_path):
    pack_data(Pictures(classes=("0", "1", "2")), tmp_path / "x.zip")
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        assert list(json.loads(archive.read("dataset.json"))) == ["labels"]


def test_a_tar_as_webdataset_reads_it(tmp_path):
    pack_data(Pictures(), tmp_path / "x.tar")
    with tarfile.open(tmp_path / "x.tar") as archive:
        members = archive.getmembers()
        assert [m.name for m in members] == [f"{i:08d}.{end}" for i in range(150) for end in ("png", "cls")]
        contents = [archive.extractfile(m).read() for m in members]
    assert [int(text) for text in contents[1::2]] == [i % 3 for i in range(150)]
    assert all((pixels(data) == IMAGES[i].transpose(1, 2, 0)).all() for i, data in enumerate(contents[::2]))


def test_an_npz_as_openai_reads_it(tmp_path):
    pack_data(Pictures(), tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz", allow_pickle=False) as found:
        assert (found["arr_0"] == IMAGES[:150].transpose(0, 2, 3, 1)).all()
        assert found["arr_1"].dtype == np.int64
        assert found["arr_1"].tolist() == [i % 3 for i in range(150)]
    pack_data(Pictures(), tmp_path / "x.npy")
    assert (np.load(tmp_path / "x.npy", allow_pickle=False) == IMAGES[:150].transpose(0, 2, 3, 1)).all()


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.npz"])
def test_what_is_read_back_is_what_was_there(tmp_path, name):
    packed = pack_data(Pictures(), tmp_path / name)
    source = measure_data(GeneratedPictures("pictures", Pictures()))
    again = open_dataset({"name": "folder", "source": str(tmp_path / name), "crop": "none"})
    assert packed.fingerprint == source.fingerprint
    assert measure_data(GeneratedPictures("again", again)).fingerprint == source.fingerprint
    assert again.classes == (("cat", "dog", "owl") if name == "x.zip" else ("0", "1", "2"))


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.npz"])
def test_the_bytes_depend_on_the_items_alone(tmp_path, name, monkeypatch):
    places = [tmp_path / str(i) / name for i in range(3)]
    seen = []
    pack_data(Pictures(), places[0], threads=1, written=seen.append)
    pack_data(Pictures(), places[1], threads=5)
    monkeypatch.setattr(module, "CHUNK", 7)
    pack_data(Pictures(), places[2], threads=2)
    assert places[0].read_bytes() == places[1].read_bytes() == places[2].read_bytes()
    assert seen == [64, 128, 150]


def test_points_go_into_an_npz(tmp_path):
    points = DatasetSlice(open_dataset({"name": "gaussians"}), 0, 30)
    pack_data(points, tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz", allow_pickle=False) as found:
        assert (found["arr_0"] == points.batch(range(30))[0].numpy()).all()
    with pytest.raises(UsageError, match="points cannot be written"):
        pack_data(points, tmp_path / "x.zip")


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.npz"])
def test_a_damaged_item_leaves_nothing(tmp_path, name):
    (tmp_path / name).write_text("earlier")
    with pytest.raises(BadFile, match="picture 140"):
        pack_data(Pictures(damaged=140), tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "earlier"


def test_room_is_asked_for_before(tmp_path, monkeypatch):
    for name in ("x.zip", "x.tar", "x.npz"):
        size = pack_data(Pictures(1100), tmp_path / name).bytes
        assert estimate_bytes(Pictures(1100), tmp_path / name) == pytest.approx(size, rel=0.2)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 0, 2_000_000))
    check_room(tmp_path / "new" / "x.zip", 2_000_000)
    with pytest.raises(WriteFailed, match=r"takes about 2\.0 MB, and 2\.0 MB are free"):
        check_room(tmp_path / "new" / "x.zip", 2_000_001)
