"""The same pictures in every container are the same data set: images, labels and their order."""

import gzip
import io
import json
import pickle
import struct
import tarfile
import zipfile

import lmdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from cmtool.datasets.folder import folder
from cmtool.testing import check_dataset

COUNT, SIDE = 24, 8
IMAGES = np.random.default_rng(4).integers(0, 256, (COUNT, SIDE, SIDE, 3), dtype=np.uint8)
LABELS = [(5 * k) % 3 for k in range(COUNT)]
NAMES = [f"{k:08d}" for k in range(COUNT)]


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def labels_document(names):
    return json.dumps({"labels": [[name, label] for name, label in zip(names, LABELS, strict=True)]})


def as_folder(root):
    root.mkdir()
    for name, pixels in zip(NAMES, IMAGES, strict=True):
        (root / f"{name}.png").write_bytes(png(pixels))
    (root / "dataset.json").write_text(labels_document([f"{name}.png" for name in NAMES]))
    return root


def as_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        for name, pixels in zip(NAMES, IMAGES, strict=True):
            archive.writestr(f"00000/img{name}.png", png(pixels))
        archive.writestr("dataset.json", labels_document([f"00000/img{name}.png" for name in NAMES]))
    return path


def as_tar(path, rows=range(COUNT)):
    with tarfile.open(path, "w") as archive:
        for k in rows:
            for ending, data in (("png", png(IMAGES[k])), ("cls", str(LABELS[k]).encode())):
                info = tarfile.TarInfo(f"{NAMES[k]}.{ending}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return path


def as_shards(path):
    for shard in range(3):
        as_tar(path.with_name(f"{path.name}-{shard:02d}.tar"), range(8 * shard, 8 * shard + 8))
    return path.with_name(f"{path.name}-{{00..02}}.tar")


def as_npz(path):
    np.savez(path, arr_0=IMAGES, arr_1=np.array(LABELS))
    return path


def as_imagenet(path):
    np.savez(path, data=IMAGES.transpose(0, 3, 1, 2).reshape(COUNT, -1), labels=np.array(LABELS) + 1)
    return path


def as_cifar(root):
    root.mkdir()
    rows = IMAGES.transpose(0, 3, 1, 2).reshape(COUNT, -1)
    for k in range(5):
        part = slice(5 * k, min(5 * k + 5, COUNT))
        table = {b"data": rows[part], b"labels": LABELS[part]}
        (root / f"data_batch_{k + 1}").write_bytes(pickle.dumps(table))
    (root / "test_batch").write_bytes((root / "data_batch_1").read_bytes())
    (root / "batches.meta").write_bytes(pickle.dumps({"label_names": ["0", "1", "2"]}))
    return root


def as_parquet(path):
    rows = [{"bytes": png(pixels), "path": None} for pixels in IMAGES]
    pq.write_table(pa.table({"image": rows, "label": LABELS}), path, row_group_size=7)
    return path


def as_lmdb(path):
    environment = lmdb.open(str(path), map_size=1 << 24, subdir=False, lock=False)
    with environment.begin(write=True) as writing:
        for name, pixels in zip(NAMES, IMAGES, strict=True):
            writing.put(name.encode(), png(pixels))
    environment.close()
    return path


WAYS = {
    "folder": as_folder,
    "a.zip": as_zip,
    "a.tar": as_tar,
    "shard": as_shards,
    "a.npz": as_npz,
    "train_data.npz": as_imagenet,
    "cifar": as_cifar,
    "a.parquet": as_parquet,
    "a.lmdb": as_lmdb,
}


@pytest.mark.parametrize("name", WAYS)
def test_every_container_gives_the_same_images_and_labels(tmp_path, name):
    data = folder(WAYS[name](tmp_path / name))
    check_dataset(data)
    images, labels = data.batch(range(COUNT))
    assert torch.equal(images, torch.from_numpy(IMAGES.transpose(0, 3, 1, 2).copy()))
    assert data.thread_safe and data.inventory
    if name == "a.lmdb":  # which has none
        assert labels is None
    else:
        assert labels.tolist() == LABELS


def test_idx_gives_the_same_grey_images(tmp_path):
    grey, shape = IMAGES[..., 0], struct.pack(">HBB3I", 0, 8, 3, COUNT, SIDE, SIDE)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(shape + grey.tobytes()))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(struct.pack(">HBBI", 0, 8, 1, COUNT) + bytes(LABELS))
    np.savez(tmp_path / "a.npz", grey, np.array(LABELS))
    idx, npz = (folder(place).batch(range(COUNT)) for place in (tmp_path, tmp_path / "a.npz"))
    assert torch.equal(idx[0], npz[0]) and idx[1].tolist() == npz[1].tolist() == LABELS


@pytest.mark.parametrize("name", ["folder", "a.npz", "cifar"])
def test_sizes_need_not_be_squares(tmp_path, name):
    place = WAYS[name](tmp_path / name)
    data = folder(place, size="4x6")
    check_dataset(data)
    assert data.shape == (3, 4, 6)
    # 4x6 of 8x8: brought to 6x6, of which the middle four rows are cut out
    six = Image.fromarray(IMAGES[3]).resize((6, 6), Image.Resampling.BICUBIC)
    assert np.array_equal(data[3][0].permute(1, 2, 0).numpy(), np.array(six)[1:5])
    squeezed = Image.fromarray(IMAGES[3]).resize((6, 4), Image.Resampling.BICUBIC)
    assert np.array_equal(folder(place, size="4x6", crop="squeeze")[3][0].permute(1, 2, 0).numpy(), np.array(squeezed))
