"""WebDataset shards: written by the webdataset package and by hand, named by ranges, lists and folders."""

import io
import json
import resource
import tarfile

import numpy as np
import pytest
import torch
import webdataset
from PIL import Image

from cmtool.data_paths import expand_paths
from cmtool.datasets.folder import folder
from cmtool.errors import BadFile, MissingInput, UsageError
from cmtool.options import registry
from cmtool.options.data_spec import data_spec
from cmtool.testing import check_dataset

IMAGES = np.random.default_rng(3).integers(0, 256, (25, 6, 6, 3), dtype=np.uint8)
LABELS = [k % 4 for k in range(25)]


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def written(root, label="cls", per_shard=10):
    """As ``webdataset.ShardWriter`` writes samples."""
    root.mkdir(exist_ok=True)
    with webdataset.ShardWriter(f"{root}/%03d.tar", maxcount=per_shard, verbose=0) as sink:
        for k, (pixels, number) in enumerate(zip(IMAGES, LABELS, strict=True)):
            said = {"cls": {"cls": number}, "json": {"json": {"label": number, "caption": "x"}}}.get(label, {})
            sink.write({"__key__": f"{k:06d}", "png": pixels, **said})
    return root


def expected(indices=range(25)):
    return torch.from_numpy(IMAGES[list(indices)].transpose(0, 3, 1, 2).copy())


@pytest.mark.parametrize("label", ["cls", "json", "none"])
def test_shards_are_one_data_set(tmp_path, label):
    root = written(tmp_path / "data", label)
    (root / "README.md").write_text("shards")
    names = [f"{root}/{k:03d}.tar" for k in range(3)]
    for source in (f"{root}/{{000..002}}.tar", ",".join(names), root):
        data = folder(source)
        check_dataset(data)
        images, labels = data.batch(range(25))
        assert torch.equal(images, expected())
        assert data.classes == (() if label == "none" else ("0", "1", "2", "3"))
        assert labels is None if label == "none" else labels.tolist() == LABELS
    assert torch.equal(folder(f"{names[2]},{names[0]}").batch([0, 5])[0], expected([20, 0]))


def test_slices_and_ranges_are_understood_on_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(written(tmp_path / "data").parent)
    for text, source, part in (
        ("data/{000..002}.tar", "data/{000..002}.tar", None),
        ("data/{000..002}.tar[0::2]", "data/{000..002}.tar", "0::2"),
        ("data/000.tar,data/001.tar", "data/000.tar,data/001.tar", None),
        ("x.parquet[0::2]", "x.parquet", "0::2"),
        ("cifar-10-python.tar.gz", "cifar-10-python.tar.gz", None),
        ("train-images-idx3-ubyte", "train-images-idx3-ubyte", None),
        ("shards-{0..3}", "shards-{0..3}", None),
    ):
        assert data_spec(text) == {"name": "folder", "source": source, "slice": part}
    assert len(registry.build("datasets", {"name": "folder"}, "data/{000..002}.tar")) == 25


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("a.tar", ["a.tar"]),
        ("{8..11}.tar", ["8.tar", "9.tar", "10.tar", "11.tar"]),
        ("{08..11}", ["08", "09", "10", "11"]),
        ("{0..1}/{0..1}.tar,z", ["0/0.tar", "0/1.tar", "1/0.tar", "1/1.tar", "z"]),
        ("{a..c}.tar", ["{a..c}.tar"]),
    ],
)
def test_ranges(text, paths):
    assert list(expand_paths(text)) == paths


def test_ranges_that_cannot_be(tmp_path):
    for text in ("{5..1}.tar", "{0..999999999}.tar", "{0..99999}{0..99999}.tar"):
        with pytest.raises(UsageError, match="names no files"):
            folder(f"{tmp_path}/{text}")
    written(tmp_path / "data")
    with pytest.raises(MissingInput, match=r"003.tar"):
        folder(f"{tmp_path}/data/{{000..004}}.tar")
    np.save(tmp_path / "data" / "a.npy", IMAGES)
    with pytest.raises(UsageError, match="not files of one kind"):
        folder(f"{tmp_path}/data/000.tar,{tmp_path}/data/a.npy")
    with pytest.raises(UsageError, match="of files of this kind one is a data set"):
        folder(f"{tmp_path}/data/a.npy,{tmp_path}/data/a.npy")


def by_hand(path, members):
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def test_labels_of_documents(tmp_path):
    def sample(key, document, **more):
        return [
            (f"{key}.png", png(IMAGES[int(key)])),
            (f"{key}.json", document),
            *((f"{key}.{ending}", data) for ending, data in more.items()),
        ]

    by_hand(tmp_path / "a.tar", sample("0", b'{"cls": 2}') + sample("1", b'{"label": 1, "cls": 0}'))
    assert folder(tmp_path / "a.tar").batch([0, 1])[1].tolist() == [2, 1]
    by_hand(tmp_path / "b.tar", sample("0", b'{"cls": 2}', cls=b" 0\n") + sample("1", b"{no json", cls=b"1"))
    assert folder(tmp_path / "b.tar").batch([0, 1])[1].tolist() == [0, 1]
    for document in (b'{"label": "cat"}', b'{"label": true}', b"[1]", b'{"label": 0.5}'):
        by_hand(tmp_path / "c.tar", sample("0", document) + sample("1", document))
        assert folder(tmp_path / "c.tar").classes == ()
    by_hand(tmp_path / "d.tar", sample("0", b'{"label": 0}') + sample("1", b"{}"))
    with pytest.raises(BadFile, match=r"has no label in d\.tar"):
        folder(tmp_path / "d.tar")
    long = json.dumps({"caption": "x" * 5000, "label": 1}).encode()
    by_hand(tmp_path / "e.tar", sample("0", long) + sample("1", b'{"label": 0}'))
    assert folder(tmp_path / "e.tar").batch([0, 1])[1].tolist() == [1, 0]


def test_the_inventory_of_shards_has_a_number_for_each(tmp_path):
    root = written(tmp_path / "data")
    before = folder(root).inventory
    assert set(before) == {"data/000.tar", "data/001.tar", "data/002.tar", "labels"}
    assert folder(f"{root}/{{000..002}}.tar").inventory == before
    whole = bytearray((root / "001.tar").read_bytes())
    at = whole.index(png(IMAGES[12])[30:])
    whole[at] ^= 1
    (root / "001.tar").write_bytes(whole)
    after = folder(root).inventory
    assert [name for name in before if before[name] != after[name]] == ["data/001.tar"]


def test_more_shards_than_files_may_be_open(tmp_path):
    data, limits = png(IMAGES[0]), resource.getrlimit(resource.RLIMIT_NOFILE)
    for k in range(400):
        by_hand(tmp_path / f"{k:03d}.tar", [("a.png", data)])
    resource.setrlimit(resource.RLIMIT_NOFILE, (300, limits[1]))
    try:
        found = folder(tmp_path)
        assert torch.equal(found.batch(range(400))[0], expected([0] * 400))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_folder_with_other_data_is_no_folder_of_shards(tmp_path):
    written(tmp_path / "data")
    (tmp_path / "data" / "cat").mkdir()
    Image.fromarray(IMAGES[0]).save(tmp_path / "data" / "cat" / "a.png")
    assert len(folder(tmp_path / "data")) == 1
