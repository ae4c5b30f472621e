"""The same pictures in every container, kept in memory or streamed, give the same run, bit for bit."""

import hashlib
import io
import json
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import lmdb
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

import cmtool
from cmtool.datasets.folder import folder
from cmtool.options.types import Spec

COUNT, SIDE, EACH = 64, 32, 8  # pictures, their side, and how many are of one class


def pictures(channels: int) -> np.ndarray:
    """uint8 [N, H, W, C], smooth and all different."""
    coarse = np.random.default_rng(channels).integers(0, 256, (COUNT, 5, 5, channels)).astype(np.uint8)
    shape = (SIDE, SIDE)
    fine = [[Image.fromarray(image[..., c]).resize(shape) for c in range(channels)] for image in coarse]
    return np.array([np.stack([np.asarray(plane) for plane in planes], -1) for planes in fine])


LABELS = np.arange(COUNT) // EACH


def file_of(image: np.ndarray, format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image.squeeze()).save(buffer, format)
    return buffer.getvalue()


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def flat_folder(root: Path, images: np.ndarray) -> Path:
    for i, image in enumerate(images):
        write(root / f"{i:05d}.png", file_of(image))
    return root


def bitmaps(root: Path, images: np.ndarray) -> Path:
    for i, image in enumerate(images):
        write(root / f"picture-{i:02d}.bmp", file_of(image, "BMP"))
    return root


def class_folders(root: Path, images: np.ndarray) -> Path:
    for i, image in enumerate(images):
        write(root / f"class {LABELS[i]}" / f"{i % EACH}.png", file_of(image))
    return root


def prefixes(root: Path, images: np.ndarray) -> Path:
    for i, image in enumerate(images):
        write(root / f"{LABELS[i]}_{i:03d}.png", file_of(image))
    return root


def edm_files(images: np.ndarray) -> dict[str, bytes]:
    files = {f"{i // 10:05d}/img{i:08d}.png": file_of(image) for i, image in enumerate(images)}
    labels = [[name, int(label)] for name, label in zip(files, LABELS, strict=True)]
    return {**files, "dataset.json": json.dumps({"labels": labels}).encode()}


def edm_folder(root: Path, images: np.ndarray) -> Path:
    for name, data in edm_files(images).items():
        write(root / name, data)
    return root


def edm_zip(root: Path, images: np.ndarray, packing: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path := root.with_suffix(".zip"), "w", packing) as archive:
        for name, data in edm_files(images).items():
            archive.writestr(name, data)
    return path


def deflated_zip(root: Path, images: np.ndarray) -> Path:
    return edm_zip(root, images, zipfile.ZIP_DEFLATED)


def shard(path: Path, images: np.ndarray, first: int = 0) -> Path:
    with tarfile.open(path, "w") as archive:
        for i, image in enumerate(images, first):
            for suffix, data in (("cls", str(LABELS[i]).encode()), ("png", file_of(image))):
                info = tarfile.TarInfo(f"{i:06d}.{suffix}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return path


def tar(root: Path, images: np.ndarray) -> Path:
    return shard(root.with_suffix(".tar"), images)


def shards(root: Path, images: np.ndarray) -> Path:
    for k in range(4):
        shard(root.with_name(f"it-{k:03d}.tar"), images[16 * k : 16 * (k + 1)], 16 * k)
    return root.with_name("it-{000..003}.tar")


def cifar(root: Path, images: np.ndarray) -> Path:
    """As published: pickles with keys of bytes, rows of all red, all green and all blue values."""
    root.mkdir()
    rows = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    parts = [(f"data_batch_{k + 1}", np.arange(len(rows))[k * 13 : (k + 1) * 13]) for k in range(5)]
    for name, some in [*parts, ("test_batch", np.arange(4))]:
        table = {b"data": rows[some], b"labels": LABELS[some].tolist(), b"filenames": [b"x.png"] * len(some)}
        write(root / name, pickle.dumps(table, protocol=2))
    write(root / "batches.meta", pickle.dumps({b"label_names": [b"kind %d" % k for k in range(8)]}, protocol=2))
    return root


def idx(root: Path, images: np.ndarray) -> Path:
    sizes = struct.pack(">III", COUNT, SIDE, SIDE)
    write(root / "train-images-idx3-ubyte", b"\0\0\x08\x03" + sizes + images.tobytes())
    labels = b"\0\0\x08\x01" + sizes[:4] + LABELS.astype(np.uint8).tobytes()
    write(root / "train-labels-idx1-ubyte", labels)
    return root


def parquet(root: Path, images: np.ndarray) -> Path:
    """Two files with several groups of rows, as the ``datasets`` library writes pictures and classes."""
    features = {"image": {"_type": "Image"}, "label": {"names": [str(k) for k in range(8)], "_type": "ClassLabel"}}
    noted = {"huggingface": json.dumps({"info": {"features": features}})}
    for k in range(2):
        rows = range(32 * k, 32 * (k + 1))
        column = [{"bytes": file_of(images[i]), "path": f"{i}.png"} for i in rows]
        table = pyarrow.table({"image": column, "label": LABELS[rows.start : rows.stop]}).replace_schema_metadata(noted)
        root.mkdir(exist_ok=True)
        pyarrow.parquet.write_table(table, root / f"train-{k:05d}-of-00002.parquet", row_group_size=10)
    return root


def database(root: Path, images: np.ndarray) -> Path:
    with lmdb.open(str(root), map_size=1 << 24) as opened, opened.begin(write=True) as written:
        for i, image in enumerate(images):
            written.put(f"{i:040x}".encode(), file_of(image))
    return root


def npz(root: Path, images: np.ndarray) -> Path:
    np.savez(path := root.with_suffix(".npz"), images, LABELS)
    return path


def packed_npz(root: Path, images: np.ndarray) -> Path:
    np.savez_compressed(path := root.with_suffix(".npz"), arr_0=images, arr_1=LABELS)
    return path


def npy(root: Path, images: np.ndarray) -> Path:
    np.save(path := root.with_suffix(".npy"), images)
    return path


WITH_LABELS = (
    class_folders,
    prefixes,
    edm_folder,
    edm_zip,
    deflated_zip,
    tar,
    shards,
    npz,
    packed_npz,
    cifar,
    idx,
    parquet,
)
WITHOUT = (flat_folder, bitmaps, npy, database)


def weights(path: Path, conditional: bool, **options) -> str:
    """One sha256 of all weights, with their average, after four steps."""
    data = Spec(name="folder", source=str(path), **options)
    backbone = {"name": "unet", "model_channels": 8, "channel_mult": [1, 2], "num_blocks": 1}
    run = cmtool.train("edm", data, images=64, batch=16, backbone=backbone, conditional=conditional, flip=True, seed=3)
    *_, last = run
    tensors = [*last.model.model.state_dict().items(), *last.ema.model.state_dict().items()]
    return hashlib.sha256(b"".join(name.encode() + value.numpy().tobytes() for name, value in tensors)).hexdigest()


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The weights from a class folder, with and without its classes, and from grey pictures."""
    root, found = tmp_path_factory.mktemp("expected"), {}
    for channels in (3, 1):
        path = class_folders(root / str(channels), pictures(channels))
        found |= {(channels, conditional): weights(path, conditional) for conditional in (True, False)}
    assert len(set(found.values())) == 4
    return found


ALONE = {cifar: 3, idx: 1}  # the channels of what holds one kind of picture only
CASES = [(write, c) for write in (*WITH_LABELS, *WITHOUT) for c in (3, 1) if ALONE.get(write, c) == c]


@pytest.mark.parametrize(("write", "channels"), CASES)
def test_every_container_gives_the_same_weights(write, channels, tmp_path, expected):
    labelled = write in WITH_LABELS
    options = {"labels": "filename-prefix"} if write is prefixes else {}
    path = write(tmp_path / "it", pictures(channels))
    assert len(folder(path, **options).classes) == (8 if labelled else 0)
    assert weights(path, labelled, **options) == expected[channels, labelled]


@pytest.mark.parametrize("write", [edm_zip, tar, npz])
def test_streamed_images_give_the_same_weights(write, tmp_path, expected, monkeypatch):
    monkeypatch.setattr("cmtool.training.cache.free_memory", lambda device: 0)
    assert weights(write(tmp_path / "it", pictures(3)), True) == expected[3, True]
