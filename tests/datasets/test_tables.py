"""Parquet files written by pyarrow and LMDB databases written by lmdb, as data sets are published in them."""

import builtins
import io
import json
import multiprocessing
from concurrent.futures import ThreadPoolExecutor

import lmdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from cmtool.datasets.folder import folder
from cmtool.errors import BadFile, MissingAsset, MissingInput, UsageError
from cmtool.testing import check_dataset

IMAGES = np.random.default_rng(2).integers(0, 256, (30, 6, 6, 3), dtype=np.uint8)
LABELS = [k % 3 for k in range(30)]
NAMES = ["cat", "dog", "\u00e9lan"]


def file(pixels, kind="png", **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def features(**kinds):
    return {"huggingface": json.dumps({"info": {"features": kinds}})}


HUGGING = features(img={"_type": "Image"}, label={"names": NAMES, "_type": "ClassLabel"}, thumb={"_type": "Image"})


def struct(images):
    return pa.array([{"bytes": file(pixels), "path": f"{k}.png"} for k, pixels in enumerate(images)])


def table(part=slice(None)):
    """As ``Dataset.to_parquet`` writes it."""
    columns = {"img": struct(IMAGES[part]), "label": pa.array(LABELS[part], pa.int64()), "id": pa.array(LABELS[part])}
    return pa.table(columns).replace_schema_metadata(HUGGING)


def expected(indices=range(30)):
    return torch.from_numpy(IMAGES[list(indices)].transpose(0, 3, 1, 2).copy())


def test_a_table_of_hugging_face(tmp_path):
    pq.write_table(table(), tmp_path / "a.parquet", row_group_size=7)
    data = folder(tmp_path / "a.parquet")
    check_dataset(data)
    order = np.random.default_rng(0).permutation(30).tolist()
    images, labels = data.batch(order)
    assert torch.equal(images, expected(order))
    assert labels.tolist() == [LABELS[i] for i in order]
    assert data.classes == tuple(NAMES)
    with ThreadPoolExecutor(4) as pool:
        assert all(torch.equal(found[0], expected(order)) for found in pool.map(data.batch, [order] * 8))


@pytest.mark.parametrize("binary", [pa.binary(), pa.large_binary()])
def test_a_table_with_plain_bytes_and_names_of_classes(tmp_path, binary):
    column = pa.array([file(pixels) for pixels in IMAGES], binary)
    words = pa.array([["b", "a", "c"][label] for label in LABELS])
    for kind, labels in (("plain", words), ("dictionary", words.dictionary_encode())):
        pq.write_table(pa.table({"jpg": column, "class": labels}), tmp_path / f"{kind}.parquet")
        data = folder(tmp_path / f"{kind}.parquet")
        assert data.classes == ("a", "b", "c")
        assert data.batch([0, 1, 2])[1].tolist() == [1, 0, 2]
        assert torch.equal(data.batch(range(30))[0], expected())


def test_columns_are_chosen(tmp_path):
    columns = {"front": struct(IMAGES), "back": struct(IMAGES[::-1]), "kind": LABELS, "score": [0.5] * 30}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(UsageError, match="several columns of images: front, back"):
        folder(tmp_path / "a.parquet")
    data = folder(tmp_path / "a.parquet", image_column="back", label_column="kind")
    assert torch.equal(data.batch([0])[0], expected([29]))
    assert data.classes == ("0", "1", "2")
    assert folder(tmp_path / "a.parquet", image_column="back").classes == ()
    for options, said in (
        ({"image_column": "bakc"}, "'bakc'"),
        ({"image_column": "score"}, "'score'"),
        ({"image_column": "back", "label_column": "kinds"}, "'kinds'"),
    ):
        with pytest.raises(UsageError, match=said):
            folder(tmp_path / "a.parquet", **options)
    with pytest.raises(BadFile, match=r"score of a\.parquet holds no labels"):
        folder(tmp_path / "a.parquet", image_column="back", label_column="score")


def test_files_of_a_repository_have_parts(tmp_path):
    (tmp_path / "data").mkdir()
    for name, part in (
        ("train-00000-of-00002", slice(10)),
        ("train-00001-of-00002", slice(10, 20)),
        ("test-00000-of-00001", slice(20, 30)),
    ):
        pq.write_table(table(part), tmp_path / "data" / f"{name}.parquet", row_group_size=4)
    (tmp_path / "README.md").write_text("a data set")
    assert torch.equal(folder(tmp_path).batch(range(20))[0], expected(range(20)))
    assert torch.equal(folder(tmp_path, split="test").batch(range(10))[0], expected(range(20, 30)))
    assert len(folder(tmp_path, split="all")) == 30
    assert len(folder(tmp_path / "data")) == 20
    shards = folder(f"{tmp_path}/data/train-{{00000..00001}}-of-00002.parquet")
    assert torch.equal(shards.batch([3, 13])[0], expected([3, 13]))
    assert set(shards.inventory) == {"train-00000-of-00002.parquet", "train-00001-of-00002.parquet", "labels"}
    (tmp_path / "data" / "test-00000-of-00001.parquet").unlink()
    with pytest.raises(MissingInput, match="no files of the part test"):
        folder(tmp_path, split="test")


def test_unlabelled_rows_of_a_test_part(tmp_path):
    without = table().set_column(1, "label", pa.array([-1] * 30))
    pq.write_table(without, tmp_path / "a.parquet")
    assert folder(tmp_path / "a.parquet").classes == ()
    mixed = table().set_column(1, "label", pa.array([0] * 29 + [None]))
    pq.write_table(mixed, tmp_path / "a.parquet")
    with pytest.raises(BadFile, match="29 has no label"):
        folder(tmp_path / "a.parquet")


def test_what_is_wrong_with_a_table_is_said(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"x": [1]}), path)
    with pytest.raises(BadFile, match="has no column of images"):
        folder(path)
    pq.write_table(
        pa.table(
            {
                "image": pa.array(
                    [{"bytes": None, "path": "a.png"}], pa.struct({"bytes": pa.binary(), "path": pa.string()})
                )
            }
        ),
        path,
    )
    with pytest.raises(BadFile, match="only the path of one elsewhere"):
        folder(path)
    pq.write_table(pa.table({"image": [b"GIF89a..."]}), path)
    with pytest.raises(BadFile, match="but a GIF"):
        folder(path)
    pq.write_table(table(), path)
    whole = path.read_bytes()
    for at in (0, len(whole) // 2, len(whole) - 300):
        path.write_bytes(whole[:at] + b"\xff" * 40 + whole[at + 40 :])
        try:
            data = folder(path)
            [data[i] for i in range(len(data))]
        except BadFile as error:
            assert "\n" not in error.message
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadFile, match="is not a Parquet file, or is damaged"):
        folder(path)


@pytest.mark.parametrize(("module", "extra"), [("pyarrow.parquet", "parquet"), ("lmdb", "lmdb")])
def test_an_extra_that_is_not_installed_is_named(tmp_path, monkeypatch, module, extra):
    path = tmp_path / ("a.parquet" if extra == "parquet" else "a.lmdb")
    path.write_bytes(bytes(64))
    found = builtins.__import__

    def without(name, *rest):
        if name == module:
            raise ImportError(name)
        return found(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingAsset, match=f"read with {module.partition('.')[0]}, which is not installed") as caught:
        folder(path)
    assert caught.value.hint == f"pip install 'cmtool[{extra}]'" and caught.value.code == 69


def written(path, items, **options):
    environment = lmdb.open(str(path), map_size=1 << 24, lock=False, **options)
    with environment.begin(write=True) as writing:
        for key, value in items:
            writing.put(key, value)
    environment.close()
    return path


KEYS = [f"{(k * 7919) % 65536:040x}".encode() for k in range(30)]


def test_lsun_in_a_database(tmp_path):
    items = [(key, file(pixels, "webp", lossless=True)) for key, pixels in zip(KEYS, IMAGES, strict=True)]
    root = written(tmp_path / "bedroom_val_lmdb", [*items, (b"__len__", b"30")])
    data = folder(root)
    check_dataset(data)
    assert sorted(entry.name for entry in root.iterdir()) == ["data.mdb"]
    order = np.argsort(KEYS).tolist()
    assert torch.equal(data.batch(range(30))[0], expected(order))
    assert data.remarks == ("bedroom_val_lmdb: 1 values are no images",)
    again = folder(root / "data.mdb", size=3)  # a second one of the same file
    assert again.shape == (3, 3, 3)
    with ThreadPoolExecutor(4) as pool:
        assert all(torch.equal(found[0], expected(order)) for found in pool.map(data.batch, [range(30)] * 8))
    before = data.inventory
    del data, again
    written(root, [(KEYS[3], file(IMAGES[4], "webp", lossless=True))])
    after = folder(root).inventory
    assert before.keys() == after.keys() and before["data.mdb"] != after["data.mdb"]


def test_a_database_that_is_one_file(tmp_path):
    written(tmp_path / "a.lmdb", [(b"cat_1", file(IMAGES[0])), (b"dog_1", file(IMAGES[1]))], subdir=False)
    data = folder(tmp_path / "a.lmdb", labels="filename-prefix")
    assert data.classes == ("cat", "dog")
    assert torch.equal(data.batch([1])[0], expected([1]))
    assert [path.name for path in tmp_path.iterdir()] == ["a.lmdb"]


def send(data, answer):
    answer.put(data.batch([5, 1])[0].tolist())


@pytest.mark.parametrize("kind", ["parquet", "lmdb"])
def test_tables_are_read_on_after_a_fork(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    if kind == "parquet":
        pq.write_table(table(), path, row_group_size=7)
    else:
        written(path, [(f"{k:03d}".encode(), file(pixels)) for k, pixels in enumerate(IMAGES)], subdir=False)
    data = folder(path)
    assert torch.equal(data.batch([0])[0], expected([0]))
    for way in ("fork", "spawn"):
        context = multiprocessing.get_context(way)
        answer = context.Queue()
        process = context.Process(target=send, args=(data, answer))
        process.start()
        assert answer.get(timeout=120) == expected([5, 1]).tolist()
        process.join()
    assert torch.equal(data.batch([29])[0], expected([29]))


def test_what_is_wrong_with_a_database_is_said(tmp_path):
    written(tmp_path / "a.lmdb", [(b"x", b"no picture")], subdir=False)
    with pytest.raises(BadFile, match=r"there are no images in .*a\.lmdb"):
        folder(tmp_path / "a.lmdb")
    written(tmp_path / "e.lmdb", [(b"x", file(IMAGES[0])[:20]), (b"y", file(IMAGES[0]))], subdir=False)
    with pytest.raises(BadFile, match=r"e\.lmdb:x is damaged"):
        folder(tmp_path / "e.lmdb")
    written(tmp_path / "b.lmdb", [(key, bytes(5000)) for key in KEYS], subdir=False)
    whole = (tmp_path / "b.lmdb").read_bytes()
    (tmp_path / "c.lmdb").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadFile, match="is cut short"):
        folder(tmp_path / "c.lmdb")
    (tmp_path / "d.lmdb").write_bytes(b"x" * 9000)
    with pytest.raises(BadFile, match="is not an LMDB database"):
        folder(tmp_path / "d.lmdb")
    with pytest.raises(UsageError, match="has no parts to choose from"):
        folder(tmp_path / "b.lmdb", split="test")


def read_damaged(path, whole, answer):
    rng, met = np.random.default_rng(11), []
    for k in range(60):
        path = path.with_stem(f"damaged{k}")
        changed = bytearray(whole)
        for at in rng.integers(0, len(whole) if k % 2 else min(len(whole), 9000), rng.integers(1, 5)):
            changed[at] = rng.integers(256)
        path.write_bytes(changed[: rng.integers(1, len(whole) + 1)] if rng.random() < 0.3 else changed)
        try:
            data = folder(path, size=6)
            [data[i] for i in range(len(data))]
        except BadFile as error:
            met.append(error.message)
    answer.put(met)


@pytest.mark.parametrize("kind", ["parquet", "lmdb"])
def test_no_damage_kills_who_reads_it(tmp_path, kind):
    """The reader is a process, since a library that trusts its file dies of a broken one."""
    path = tmp_path / f"a.{kind}"
    if kind == "parquet":
        pq.write_table(table(), path, row_group_size=7)
    else:
        large = [(f"{k:040d}".encode(), file(np.tile(IMAGES[k], (6, 6, 1)), "bmp")) for k in range(30)]
        small = [(key, file(pixels)) for key, pixels in zip(KEYS, IMAGES, strict=True)]
        written(path, large + small, subdir=False)
    context = multiprocessing.get_context("fork")
    answer = context.Queue()
    process = context.Process(target=read_damaged, args=(path, path.read_bytes(), answer))
    process.start()
    met = answer.get(timeout=300)
    process.join()
    assert len(met) > 10 and not any("\n" in message for message in met)
