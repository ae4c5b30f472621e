"""One set of pictures in every container, written by hand: what trains, is measured, edited and reported is the same.

Also everything that ``sample`` writes, with its labels.
"""

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
from PIL import Image

from cmtool.files.streams.item import pixels
from cmtool.files.streams.names import SkippedFiles
from cmtool.options.data_spec import data_spec
from cmtool.pipelines.any_images import has_names, image_items, image_keys
from cmtool.pipelines.data_report import measure_data
from cmtool.pipelines.image_sets import open_images
from cmtool.pipelines.inputs import open_dataset
from cmtool.pipelines.numbered_pictures import open_pictures

N = 12
IMAGES = np.random.default_rng(4).integers(0, 256, (N, 32, 32, 3), dtype=np.uint8)
GREY = IMAGES[..., 0]
LABELS = [0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2]  # in order, so that folders of classes keep it
NAMES = ["ant", "bee", "cat"]
FILES = [f"{i // 5:05d}/img{i:08d}.png" for i in range(N)]


def file(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "png")
    return buffer.getvalue()


def put(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def tar(path, members):
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def document(**more):
    return json.dumps({"labels": [list(pair) for pair in zip(FILES, LABELS, strict=True)], **more})


def edm_zip(root):
    with zipfile.ZipFile(root / "x.zip", "w") as archive:
        for name, image in zip(FILES, IMAGES, strict=True):
            archive.writestr(name, file(image))
        archive.writestr("dataset.json", document(class_names=NAMES))
    return "x.zip"


def edm_folder(root):
    for name, image in zip(FILES, IMAGES, strict=True):
        put(root / "edm" / name, file(image))
    (root / "edm" / "dataset.json").write_text(document())
    return "edm"


def class_folders(root):
    for i, (image, label) in enumerate(zip(IMAGES, LABELS, strict=True)):
        put(root / "classes" / NAMES[label] / f"{i:03d}.png", file(image))
    return "classes"


def webdataset(root):
    members = [(f"{i:06d}.{end}", i) for i in range(N) for end in ("png", "cls")]
    contents = [(name, file(IMAGES[i]) if name.endswith("png") else b"%d\n" % LABELS[i]) for name, i in members]
    tar(root / "x.tar", contents)
    for k in range(3):
        tar(root / f"shard-{k:02d}.tar", contents[8 * k : 8 * k + 8])
    return "x.tar"


def shards(root):
    webdataset(root)
    return "shard-{00..02}.tar"


def openai_npz(root):
    np.savez(root / "x.npz", arr_0=IMAGES, arr_1=np.array(LABELS))
    return "x.npz"


def named_npz(root):
    np.savez_compressed(root / "y.npz", images=IMAGES, labels=np.array(LABELS))
    return "y.npz"


def cifar(root):
    """As published: two pictures in each batch, the rest in the part that is not read."""
    with tarfile.open(root / "cifar-10-python.tar.gz", "w:gz") as archive:
        parts = [[0, 1, 2], [3, 4], [5, 6, 7], [8, 9], [10, 11]]
        tables = {
            f"data_batch_{k + 1}": {
                b"data": IMAGES[part].transpose(0, 3, 1, 2).reshape(len(part), -1),
                b"labels": [LABELS[i] for i in part],
            }
            for k, part in enumerate(parts)
        }
        tables["test_batch"] = {b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 1]}
        tables["batches.meta"] = {"label_names": NAMES}
        for name, table in tables.items():
            data = pickle.dumps(table, protocol=4)
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return "cifar-10-python.tar.gz"


def parquet(root):
    kinds = {"image": {"_type": "Image"}, "label": {"names": NAMES, "_type": "ClassLabel"}}
    pictures = pa.array([{"bytes": file(image), "path": None} for image in IMAGES])
    table = pa.table({"image": pictures, "label": pa.array(LABELS, pa.int64())})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": kinds}})})
    pq.write_table(table, root / "train-00000-of-00001.parquet", row_group_size=5)
    return "train-00000-of-00001.parquet"


def npy(root):
    np.save(root / "x.npy", IMAGES)
    return "x.npy"


def lsun(root):
    environment = lmdb.open(str(root / "bedroom_lmdb"), map_size=1 << 24)
    with environment.begin(write=True) as writing:
        for i, image in enumerate(IMAGES):
            writing.put(b"%040x" % i, file(image))
    environment.close()
    return "bedroom_lmdb"


def mnist(root):
    for name, values in (("images-idx3", GREY), ("labels-idx1", np.array(LABELS, np.uint8))):
        head = struct.pack(">HBB", 0, 8, values.ndim) + struct.pack(f">{values.ndim}I", *values.shape)
        (root / f"train-{name}-ubyte").write_bytes(head + values.tobytes())
    return "train-images-idx3-ubyte"


NAMED = [edm_zip, class_folders, cifar, parquet]
NUMBERED = [edm_folder, webdataset, shards, openai_npz, named_npz, mnist]
BARE = [npy, lsun]
STREAMS = [edm_folder, class_folders, edm_zip, webdataset, openai_npz, npy]  # which the other reader takes


@pytest.fixture
def there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The fingerprints of the coloured pictures with and without labels, and of the grey ones, of plain arrays."""
    root = tmp_path_factory.mktemp("expected")
    np.savez(root / "a.npz", arr_0=IMAGES, arr_1=np.array(LABELS))
    np.save(root / "b.npy", IMAGES)
    np.savez(root / "c.npz", arr_0=GREY, arr_1=np.array(LABELS))
    return [
        measure_data(open_pictures(data_spec(str(root / name)))).fingerprint for name in ("a.npz", "b.npy", "c.npz")
    ]


@pytest.mark.parametrize("make", [*NAMED, *NUMBERED, *BARE])
def test_one_set_in_every_container(there, expected, make):
    name = make(there)
    images = (GREY[:, None] if make is mnist else IMAGES.transpose(0, 3, 1, 2)).astype(int)
    labels = [None] * N if make in BARE else LABELS
    classes = () if make in BARE else tuple(NAMES) if make in NAMED else ("0", "1", "2")
    dataset = open_dataset(data_spec(name))  # what trains
    assert (dataset.batch(range(N))[0].numpy() == images).all()
    assert [dataset[i][1] for i in range(N)] == labels
    assert tuple(dataset.classes) == classes
    pictures = open_pictures(data_spec(name))  # what is reported
    assert measure_data(pictures).fingerprint == expected[1 if make in BARE else 2 if make is mnist else 0]
    assert pictures.classes == classes
    side = open_images(name, batch=5)  # what is measured
    assert side.read
    assert (np.concatenate([batch.numpy() for batch in side.read()]) == images).all()
    items = list(image_items(name, SkippedFiles()))  # what is edited
    assert (np.stack([pixels(item) for item in items]) == images).all()
    if make is not class_folders:  # whose classes edit takes from their names
        assert [item.label for item in items] == labels
    if make not in STREAMS and labels[0] is not None:
        assert [item.class_name for item in items] == [classes[label] for label in labels if label is not None]
    assert image_keys(name) == [item.key for item in items]
    assert has_names(name) == bool(items[0].key)


@pytest.mark.parametrize("name", ["digits[3:9]", "shapes[:4]", "x.zip[2:7]", "folder:x.zip"])
def test_names_that_are_more_than_paths(there, name):
    edm_zip(there)
    dataset = open_dataset({**data_spec(name), **({"size": 32} if "shapes" in name else {})})
    wanted = [(image.numpy().tolist(), label) for image, label in (dataset[i] for i in range(len(dataset)))]
    items = list(image_items(name))
    assert [(pixels(item).tolist(), item.label) for item in items] == wanted
    assert [item.class_name for item in items] == [dataset.classes[label] for _, label in wanted]
    side = open_images(name, batch=3)
    assert side.read
    assert np.concatenate([batch.numpy() for batch in side.read()]).tolist() == [image for image, _ in wanted]


def test_pictures_keep_their_own_size(there):
    tar(there / "a.tar", [(f"{i}.png", file(IMAGES[i][: 8 + i])) for i in range(3)])
    tar(there / "b.tar", [(f"{i}.png", file(IMAGES[i][: 8 + i])) for i in range(3, 5)])
    sides = open_images("a.tar,b.tar", batch=10)
    assert sides.read
    assert [tuple(image.shape) for batch in sides.read() for image in batch] == [(3, 8 + i, 32) for i in range(5)]


@pytest.fixture(scope="module")
def samples(tmp_path_factory, trained):
    """The same images of a model with classes in all that ``sample`` writes."""
    from cmtool.cli import run

    root = tmp_path_factory.mktemp("samples")
    for target in ("s/", "s.tar", "s.zip", "s.npz", "s.npy"):
        model = ["-m", str(trained["tuned"]), "-n", "20", "--classes", "uniform", "-q"]
        assert run(["sample", *model, "-o", f"{root}/{target}"]) == 0
    return root


@pytest.mark.parametrize("name", ["s", "s.tar", "s.zip", "s.npz", "s.npy"])
def test_what_sample_writes_is_read_with_its_labels(samples, name, well):
    told = json.loads(well("info", samples / "s.npz", "--json"))
    with np.load(samples / "s.npz") as found:
        images, labels = found["arr_0"].transpose(0, 3, 1, 2), found["arr_1"].tolist()
    path = str(samples / name)
    if name == "s.npy":
        told = json.loads(well("info", f"{samples}/s.npz", "--json", "--set", "data.labels=none"))
        labels = [None] * len(labels)
    assert json.loads(well("info", path, "--json"))["fingerprint"] == told["fingerprint"]
    dataset = open_dataset(data_spec(path))
    assert (dataset.batch(range(20))[0].numpy() == images).all()
    assert [dataset[i][1] for i in range(20)] == labels
    items = list(image_items(path))
    assert [item.label for item in items] == labels
    assert (np.stack([pixels(item) for item in items]) == images).all()
    distance = json.loads(well("fid", path, "--ref", samples / "s.npz", "--features", "small", "--json"))
    assert distance["value"] == pytest.approx(0, abs=1e-6)
    assert distance["source"]["images"] == 20


def test_a_class_is_known_by_its_name(there, well, trained):
    """A model of digits, and data whose first class is the fourth of the model."""
    kinds = {"image": {"_type": "Image"}, "label": {"names": ["3", "1"], "_type": "ClassLabel"}}
    pictures = pa.array([{"bytes": file(GREY[i, :8, :8]), "path": None} for i in range(2)])
    table = pa.table({"image": pictures, "label": pa.array([0, 1], pa.int64())})
    pq.write_table(
        table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": kinds}})}), "x.parquet"
    )
    told = json.loads(
        well("edit", "denoise", "x.parquet", "-m", trained["tuned"], "--level", "0.3", "-o", "out/", "--json")
    )
    assert told["images"] == 2
    assert told["classes"] == [3, 1]
    assert sorted(path.name for path in (there / "out").iterdir()) == ["0.png", "1.png"]
