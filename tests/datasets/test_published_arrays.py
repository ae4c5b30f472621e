"""CIFAR, downsampled ImageNet and IDX files, made here as Python 2, numpy and the IDX format write them."""

import gzip
import io
import os
import pickle
import struct
import tarfile

import numpy as np
import pytest
import torch

from cmtool.datasets.folder import folder
from cmtool.errors import BadFile, MissingInput, UsageError
from cmtool.testing import check_dataset

RNG = np.random.default_rng(5)


def python2(table):
    """A dictionary of an array and lists as Python 2's ``cPickle.dump(table, file, 2)`` writes it, by its opcodes."""

    def text(value):
        raw = value.encode("latin1") if isinstance(value, str) else value
        return b"U" + bytes([len(raw)]) + raw if len(raw) < 256 else b"T" + struct.pack("<i", len(raw)) + raw

    def item(value):
        if isinstance(value, np.ndarray):
            shape = b"".join(b"J" + struct.pack("<i", side) for side in value.shape)
            dtype = b"cnumpy\ndtype\n" + text("u1") + b"K\0K\1\x87R(K\3" + text("|") + b"NNNJ\xff\xff\xff\xff"
            dtype += b"J\xff\xff\xff\xffK\0tb"
            begun = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85" + text("b") + b"\x87R"
            return begun + b"(K\1(" + shape + b"t" + dtype + b"\x89" + text(value.tobytes()) + b"tb"
        if isinstance(value, list):
            return b"](" + b"".join(map(item, value)) + b"e"
        return b"J" + struct.pack("<i", value) if isinstance(value, int) else text(value)

    return b"\x80\x02}(" + b"".join(text(key) + item(value) for key, value in table.items()) + b"u."


def protocol0(lists):
    """Lists of texts as the oldest protocol writes them, as in CIFAR-10's ``batches.meta``."""
    body = b""
    for key, words in lists.items():
        body += b"S" + repr(key).encode() + b"\np1\n(lp2\n"
        body += b"".join(b"S" + repr(word).encode() + b"\np3\na" for word in words) + b"s"
    return b"(dp0\nS'num_cases_per_batch'\nI10000\ns" + body + b"."


def bytes_keys(table):
    return pickle.dumps({key.encode(): value for key, value in table.items()}, protocol=4)


TEN = {f"data_batch_{k}": k for k in range(1, 6)} | {"test_batch": 6}
PIXELS = {name: RNG.integers(0, 256, (4, 3, 32, 32), dtype=np.uint8) for name in TEN}
NAMES = ["plane", "it's a \\ car", "cat"]


def cifar10(folder_, dump=python2):
    folder_.mkdir()
    for name, k in TEN.items():
        table = {"batch_label": f"batch {k}", "labels": [0, 1, 2, k % 3], "data": PIXELS[name].reshape(4, -1)}
        (folder_ / name).write_bytes(dump(table | {"filenames": ["a.png", "b.png", "c.png", "d.png"]}))
    (folder_ / "batches.meta").write_bytes(protocol0({"label_names": NAMES}))
    (folder_ / "readme.html").write_text("<html>")
    return folder_


def packed(folder_, path):
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder_, folder_.name)
    return path


def images(data):
    check_dataset(data)
    return data.batch(range(len(data)))


@pytest.mark.parametrize("dump", [python2, pickle.dumps, bytes_keys, lambda table: pickle.dumps(table, protocol=2)])
@pytest.mark.parametrize("kind", ["folder", "tar.gz"])
def test_cifar10(tmp_path, dump, kind):
    place = cifar10(tmp_path / "cifar-10-batches-py", dump)
    place = place if kind == "folder" else packed(place, tmp_path / "cifar-10-python.tar.gz")
    expected = np.concatenate([PIXELS[f"data_batch_{k}"] for k in range(1, 6)])
    data = folder(place)
    found, labels = images(data)
    assert torch.equal(found, torch.from_numpy(expected))
    assert labels.tolist() == [label for k in range(1, 6) for label in (0, 1, 2, k % 3)]
    assert data.classes == tuple(NAMES)
    test = folder(place, split="test")
    assert torch.equal(images(test)[0], torch.from_numpy(PIXELS["test_batch"]))
    assert len(folder(place, split="all")) == 24
    assert folder(place, size=16, channels=1).shape == (1, 16, 16)


def test_cifar100_has_fine_and_coarse_labels(tmp_path):
    root = tmp_path / "cifar-100-python"
    root.mkdir()
    pixels = RNG.integers(0, 256, (3, 3, 32, 32), dtype=np.uint8)
    for name in ("train", "test"):
        table = {"filenames": ["a", "b", "c"], "fine_labels": [4, 0, 1], "coarse_labels": [1, 0, 1]}
        (root / name).write_bytes(python2(table | {"data": pixels.reshape(3, -1)}))
    names = {"fine_label_names": list("pqrst"), "coarse_label_names": ["fish", "trees"]}
    (root / "meta").write_bytes(python2(names))
    data = folder(packed(root, tmp_path / "cifar-100-python.tar.gz"))
    assert torch.equal(images(data)[0], torch.from_numpy(pixels))
    assert (data.classes, data.batch([0, 1, 2])[1].tolist()) == (tuple("pqrst"), [4, 0, 1])
    coarse = folder(root, label_column="coarse_labels")
    assert (coarse.classes, coarse.batch([0, 1, 2])[1].tolist()) == (("fish", "trees"), [1, 0, 1])
    with pytest.raises(UsageError, match="coarse_label") as caught:
        folder(root, label_column="coarse_label")
    assert "coarse_labels" in caught.value.hint


class Canary:
    def __reduce__(self):
        return os.system, ("touch canary",)


HOSTILE = {
    "a command": lambda table: pickle.dumps(table | {"labels": Canary()}),
    "a command at the end": lambda table: python2(table)[:-1] + b"cposix\nsystem\n(U\x0ctouch canarytR.",
    "a name": lambda table: pickle.dumps(table | {"labels": os.getcwd}),
    "a nested pickle": lambda table: pickle.dumps(table)[:-1] + b"c_pickle\nloads\n.",
    "objects": lambda table: pickle.dumps(table | {"data": np.array([{}, {}])}),
}


@pytest.mark.parametrize("how", HOSTILE)
@pytest.mark.parametrize("kind", ["folder", "tar.gz"])
def test_nothing_in_a_hostile_file_runs(tmp_path, monkeypatch, how, kind):
    monkeypatch.chdir(tmp_path)
    place = cifar10(tmp_path / "cifar-10-batches-py")
    (place / "data_batch_3").write_bytes(HOSTILE[how]({"labels": [0], "data": PIXELS["test_batch"].reshape(4, -1)}))
    place = place if kind == "folder" else packed(place, tmp_path / "x.tgz")
    with pytest.raises(BadFile, match="data_batch_3"):
        folder(place)
    assert not (tmp_path / "canary").exists()


def test_what_is_wrong_with_cifar_is_said(tmp_path):
    place = cifar10(tmp_path / "cifar-10-batches-py")
    table = {"labels": [0, 1], "data": PIXELS["test_batch"].reshape(4, -1)}
    for wrong, said in (
        (table, "24 images|20 images and 18 labels"),
        ({"labels": [0]}, "no array 'data'"),
        ({"labels": ["a"], "data": table["data"]}, "no whole numbers 'labels'"),
        ({"labels": [0], "data": table["data"][:, 1:]}, "no rows of images"),
        ({"labels": [0], "data": table["data"].astype(float)}, "no rows of images"),
    ):
        (place / "data_batch_2").write_bytes(pickle.dumps(wrong))
        with pytest.raises(BadFile, match=said):
            folder(place)
    (place / "data_batch_2").write_bytes((place / "data_batch_1").read_bytes()[:5000])
    with pytest.raises(BadFile, match="damaged or cut short"):
        folder(place)
    with tarfile.open(tmp_path / "other.tar.gz", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("a.png"), io.BytesIO())
    with pytest.raises(BadFile, match="neither CIFAR-10 nor CIFAR-100"):
        folder(tmp_path / "other.tar.gz")
    (tmp_path / "cut.tar.gz").write_bytes((tmp_path / "other.tar.gz").read_bytes()[:60])
    with pytest.raises(BadFile, match=r"cut.tar.gz"):
        folder(tmp_path / "cut.tar.gz")


def test_an_archive_that_grows_without_bounds_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("cmtool.datasets.cifar_storage.ALL", 1 << 20)
    with tarfile.open(tmp_path / "bomb.tar.gz", "w:gz") as archive:
        info = tarfile.TarInfo("x")
        info.size = 2 << 20
        archive.addfile(info, io.BytesIO(bytes(info.size)))
    with pytest.raises(BadFile, match="is larger than CIFAR"):
        folder(tmp_path / "bomb.tar.gz")


ROWS = RNG.integers(0, 256, (12, 3, 8, 8), dtype=np.uint8)
LABELS = [1, 1000, 2, 3, 500, 1, 7, 8, 9, 10, 11, 12]
BATCHES = (1, 2, 10)


def imagenet(root, kind):
    root.mkdir()
    for at, k in enumerate(BATCHES):
        part = slice(3 * at, 3 * at + 3)
        table = {"data": ROWS[part].reshape(3, -1), "labels": LABELS[part], "mean": np.zeros(192)}
        if kind == "npz":
            np.savez(root / f"train_data_batch_{k}.npz", **table)
        else:
            (root / f"train_data_batch_{k}").write_bytes(pickle.dumps(table))
    table = {"data": ROWS[9:].reshape(3, -1), "labels": np.array(LABELS[9:])}
    if kind == "npz":
        np.savez(root / "val_data.npz", **table)
    else:
        (root / "val_data").write_bytes(pickle.dumps(table))
    return root


@pytest.mark.parametrize("kind", ["npz", "pickle"])
def test_downsampled_imagenet(tmp_path, kind):
    root = imagenet(tmp_path / "Imagenet8", kind)
    data = folder(root)
    found, labels = images(data)
    assert torch.equal(found, torch.from_numpy(ROWS[:9]))
    assert labels.tolist() == [label - 1 for label in LABELS[:9]]
    assert data.classes == tuple(str(k) for k in range(1, 1001))
    assert any("numbers in the ILSVRC devkit" in remark for remark in data.remarks)
    assert torch.equal(images(folder(root, split="test"))[0], torch.from_numpy(ROWS[9:]))
    assert len(folder(root, split="all")) == 12
    suffix = ".npz" if kind == "npz" else ""
    assert folder(root / f"val_data{suffix}").batch([0])[1].tolist() == [LABELS[9] - 1]
    assert len(folder(f"{root}/train_data_batch_{{1..2}}{suffix}")) == 6


def test_the_devkits_list_gives_names_and_their_order(tmp_path):
    root = imagenet(tmp_path / "x", "npz")
    ids = [f"n{(7919 * k) % 100003:08d}" for k in range(1, 1001)]
    (root / "map_clsloc.txt").write_text("".join(f"{wnid} {k + 1} some_name\n" for k, wnid in enumerate(ids)))
    data = folder(root)
    assert data.classes == tuple(sorted(ids))
    labels = data.batch(range(9))[1].tolist()
    assert [data.classes[label] for label in labels] == [ids[label - 1] for label in LABELS[:9]]
    (root / "map_clsloc.txt").write_text("n01 1 a\nn01 2 b\n")
    with pytest.raises(BadFile, match="does not number 1000 classes"):
        folder(root)


def test_labels_that_imagenet_does_not_have(tmp_path):
    for labels in ([0, 1, 2], [1, 2, 1001], [1, 2]):
        np.savez(tmp_path / "val_data.npz", data=ROWS[:3].reshape(3, -1), labels=labels)
        with pytest.raises(BadFile, match="not as many labels from 1 to 1000"):
            folder(tmp_path / "val_data.npz")


def idx(values):
    return struct.pack(">HBB", 0, 8, values.ndim) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


@pytest.fixture
def mnist(tmp_path):
    sets = {
        name: (RNG.integers(0, 256, (n, 5, 7), dtype=np.uint8), RNG.integers(0, 10, n, dtype=np.uint8))
        for name, n in (("train", 20), ("t10k", 6))
    }
    for name, (pixels, labels) in sets.items():
        (tmp_path / f"{name}-images-idx3-ubyte").write_bytes(idx(pixels))
        (tmp_path / f"{name}-labels-idx1-ubyte").write_bytes(idx(labels))
    return tmp_path, sets


@pytest.mark.parametrize("compressed", [False, True])
def test_mnist(mnist, compressed):
    root, sets = mnist
    for path in list(root.iterdir()) if compressed else ():
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    for split, name in (("train", "train"), ("test", "t10k"), (None, "train")):
        data = folder(root, split=split, crop="none")
        found, labels = images(data)
        assert data.shape == (1, 5, 7)
        assert torch.equal(found[:, 0], torch.from_numpy(sets[name][0]))
        assert labels.tolist() == sets[name][1].tolist()
    assert len(folder(root, split="all")) == 26
    one = folder(root / f"t10k-images-idx3-ubyte{'.gz' if compressed else ''}", size=5)
    assert one.shape == (1, 5, 5) and one.batch([3])[1].tolist() == [sets["t10k"][1][3]]


def test_idx_without_labels_or_with_others(mnist):
    root, sets = mnist
    (root / "train-labels-idx1-ubyte").write_bytes(idx(sets["train"][1][:-1]))
    with pytest.raises(BadFile, match="has 19 labels of 20 images"):
        folder(root)
    (root / "train-labels-idx1-ubyte").unlink()
    data = folder(root)
    assert data.classes == () and "no file labels-idx1-ubyte" in data.remarks[0]
    (root / "train-images-idx3-ubyte").write_bytes(idx(sets["train"][0])[:-1])
    with pytest.raises(BadFile, match="does not hold the 20 x 5 x 7 values"):
        folder(root)
    with pytest.raises(BadFile, match="holds no images"):
        folder(root / "t10k-labels-idx1-ubyte")
    for path in root.glob("t10k*"):
        path.unlink()
    with pytest.raises(MissingInput, match="no images of the part test"):
        folder(root, split="test")


@pytest.mark.parametrize("name", ["data_batch_1", "train_data_batch_1.npz", "train-images-idx3-ubyte"])
def test_an_inventory_tells_other_contents(tmp_path, mnist, name):
    root = {"d": lambda: cifar10(tmp_path / "c"), "t": lambda: imagenet(tmp_path / "i", "npz")}
    place = mnist[0] if "idx3" in name else root[name[0]]()
    before = folder(place).inventory
    assert name in before and folder(place).inventory == before
    raw = bytearray((place / name).read_bytes())
    if name.endswith("npz"):
        np.savez(place / name, data=ROWS[6:9].reshape(3, -1), labels=LABELS[:3])
    else:
        raw[raw.rindex(PIXELS[name].tobytes()[:64]) if name in PIXELS else 200] ^= 1
        (place / name).write_bytes(raw)
    after = folder(place).inventory
    assert {key for key in before if before[key] != after[key]} == {name}
