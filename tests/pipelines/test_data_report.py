"""What data hold, against numpy, hashlib and a count by hand."""

import hashlib
import struct
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from cmtool.datasets.views import DatasetSlice
from cmtool.errors import UsageError
from cmtool.options.data_spec import data_spec
from cmtool.pipelines.data_report import measure_data
from cmtool.pipelines.inputs import open_dataset
from cmtool.pipelines.numbered_pictures import GeneratedPictures, open_pictures
from cmtool.pipelines.picture_fingerprint import PictureList, digest

RNG = np.random.default_rng(3)
COLOUR = RNG.integers(0, 256, (6, 5, 7, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (2, 4, 9), dtype=np.uint8)


def by_hand(pictures, labels):
    """The fingerprint as its definition says, of uint8 [H, W] or [H, W, 3]."""
    whole = hashlib.sha256()
    for picture, label in zip(pictures, labels, strict=True):
        planes = picture[None] if picture.ndim == 2 else picture.transpose(2, 0, 1)
        one = hashlib.sha256(struct.pack("<3I", *planes.shape) + planes.tobytes())
        whole.update(one.digest() + struct.pack("<q", label))
    return whole.hexdigest()


def save(folder, pictures):
    for name, pixels in pictures.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / name)
    return folder


def measured(path, **options):
    return measure_data(open_pictures({**data_spec(f"folder:{path}"), **options}))


def test_a_folder_of_classes(tmp_path):
    named = {f"{'ab'[i % 2]}/{i}.png": COLOUR[i] for i in range(6)}
    report = measured(save(tmp_path, named))
    order = [0, 2, 4, 1, 3, 5]  # by the paths
    assert report.fingerprint == by_hand(COLOUR[order], [0, 0, 0, 1, 1, 1])
    assert (report.images, report.sizes, report.modes) == (6, {(7, 5): 6}, {"RGB": 6})
    assert (report.classes, report.broken, report.duplicates.images) == ({"a": 3, "b": 3}, 0, 0)
    values = COLOUR.astype(np.float64) / 127.5 - 1
    assert report.mean == pytest.approx(values.mean((0, 1, 2)), abs=1e-12)
    assert report.std == pytest.approx(values.std((0, 1, 2)), abs=1e-12)


def test_without_labels_each_counts_as_minus_one(tmp_path):
    save(tmp_path, {f"{'ab'[i % 2]}/{i}.png": COLOUR[i] for i in range(6)})
    report = measured(tmp_path, labels="none")
    assert report.classes is None
    assert report.fingerprint == by_hand(COLOUR[[0, 2, 4, 1, 3, 5]], [-1] * 6)


def test_grey_pictures_count_for_every_channel_where_others_are_coloured(tmp_path):
    report = measured(save(tmp_path, {"a.png": COLOUR[0], "b.png": GREY[0]}))
    values = np.concatenate([COLOUR[0].reshape(-1, 3), np.repeat(GREY[0].reshape(-1, 1), 3, 1)]) / 127.5 - 1
    assert report.mean == pytest.approx(values.mean(0), abs=1e-12)
    assert report.std == pytest.approx(values.std(0), abs=1e-12)
    assert report.sizes == {(7, 5): 1, (9, 4): 1}
    alone = measured(save(tmp_path / "grey", {"b.png": GREY[0]}))
    assert alone.mean == pytest.approx([GREY[0].mean() / 127.5 - 1], abs=1e-12)


def test_modes_are_those_of_the_files(tmp_path):
    Image.fromarray(GREY[0]).save(tmp_path / "a.png")
    Image.fromarray(COLOUR[0]).save(tmp_path / "b.png")
    Image.fromarray(COLOUR[0]).quantize(8).save(tmp_path / "c.png")
    Image.fromarray(np.dstack([COLOUR[0], COLOUR[1][..., :1]])).save(tmp_path / "d.png")
    Image.fromarray(np.dstack([GREY[0], GREY[1]])).save(tmp_path / "e.png")
    Image.fromarray(GREY[0].astype(np.uint16) * 257).save(tmp_path / "f.png")
    Image.fromarray(COLOUR[0]).save(tmp_path / "g.jpg")
    Image.fromarray(GREY[0]).save(tmp_path / "h.jpg")
    Image.fromarray(COLOUR[0]).convert("CMYK").save(tmp_path / "i.jpg")
    expected = {"grey": 2, "RGB": 2, "palette": 1, "RGBA": 1, "grey+alpha": 1, "grey 16-bit": 1, "CMYK": 1}
    assert measured(tmp_path).modes == expected
    quick = measure_data(open_pictures(data_spec(f"folder:{tmp_path}")), quick=True)
    assert quick.modes == expected
    assert quick.mean is quick.std is quick.duplicates is quick.fingerprint is None


def test_equal_pixels_are_duplicates_in_any_file(tmp_path):
    save(tmp_path, {"x/a.png": COLOUR[0], "x/b.bmp": COLOUR[0], "y/c.webp.png": COLOUR[0], "y/d.png": COLOUR[1]})
    save(tmp_path, {"x/e.png": COLOUR[2].reshape(7, 5, 3), "y/f.png": COLOUR[2]})  # the same bytes, another shape
    found = measured(tmp_path).duplicates
    assert (found.images, found.sets, found.other_label) == (2, 1, 1)
    assert [[name.rpartition("/")[2] for name in group] for group in found.groups] == [["a.png", "b.bmp", "c.webp.png"]]


def test_duplicates_against_a_count_by_hand():
    values, labels = RNG.integers(0, 40, 100), RNG.integers(0, 2, 100)
    known = PictureList(120)
    for i, (value, label) in enumerate(zip(values, labels, strict=True)):
        known.add(i + i // 5, digest(np.array([[[value]]], np.uint8)), int(label))  # with gaps: damaged ones
    found = known.duplicates(lambda i: str(i - i // 6))
    count = Counter(values.tolist())
    first = {value: int(np.argmax(values == value)) for value in count}
    assert found.images == sum(n - 1 for n in count.values())
    assert found.sets == sum(n > 1 for n in count.values())
    assert found.other_label == sum(labels[i] != labels[first[v]] for i, v in enumerate(values.tolist()))
    expected = [np.flatnonzero(values == v).astype(str).tolist() for v in count if count[v] > 1]  # by their first one
    assert found.groups == expected


def test_damaged_pictures_are_named_and_counted(tmp_path):
    save(tmp_path, {f"a/{i}.png": COLOUR[i] for i in range(3)} | {f"b/{i}.png": COLOUR[i] for i in range(3, 6)})
    whole = measured(tmp_path)
    (tmp_path / "a" / "x.png").write_bytes((tmp_path / "a" / "0.png").read_bytes()[:60])
    (tmp_path / "b" / "y.png").write_text("hello")
    report = measured(tmp_path)
    assert (report.images, report.broken) == (8, 2)
    assert [one.name for one in report.broken_examples] == [
        str(tmp_path / "a" / "x.png"),
        str(tmp_path / "b" / "y.png"),
    ]
    assert "is not a picture" in report.broken_examples[1].reason
    assert report.classes == {"a": 4, "b": 4}
    kept = ("fingerprint", "mean", "std", "sizes", "modes", "duplicates")
    assert [getattr(report, key) for key in kept] == [getattr(whole, key) for key in kept]


def test_the_number_of_threads_changes_nothing():
    pictures = open_pictures({**data_spec("shapes[:300]"), "size": 16})
    done = []
    reports = [measure_data(pictures, threads=n, seen=done.append) for n in (1, 2, 5)]
    assert reports[0] == reports[1] == reports[2]
    assert done[:5] == [64, 128, 192, 256, 300]


def test_points(tmp_path):
    pictures = open_pictures(data_spec("gaussians[:50]"))
    points = np.stack([pictures.read(i)[0] for i in range(50)]).astype(np.float64)
    report = measure_data(pictures)
    assert report.mean == pytest.approx(points.mean(0), abs=1e-12)
    assert report.std == pytest.approx(points.std(0), abs=1e-9)
    whole = hashlib.sha256()
    for i in range(50):
        point, label = pictures.read(i)
        whole.update(hashlib.sha256(struct.pack("<I2f", 2, *point)).digest() + struct.pack("<q", label))
    assert report.fingerprint == whole.hexdigest()
    assert not report.sizes


def test_a_part_of_files_is_that_part(tmp_path):
    save(tmp_path, {f"{i}.png": COLOUR[i] for i in range(6)})
    part = open_pictures(data_spec(f"{tmp_path}[1::2]"))
    assert measure_data(part).fingerprint == by_hand(COLOUR[1::2], [-1] * 3)
    with pytest.raises(UsageError, match=r"has no images in \[9:\]"):
        open_pictures(data_spec(f"{tmp_path}[9:]"))
    with pytest.raises(UsageError, match="lables"):
        open_pictures({**data_spec(f"folder:{tmp_path}"), "lables": "none"})


def test_generated_items_and_files_have_one_fingerprint(tmp_path):
    digits = DatasetSlice(open_dataset({"name": "digits"}), 0, 20)
    report = measure_data(GeneratedPictures("digits", digits))
    images = [digits[i][0].numpy()[0] for i in range(20)]
    assert report.fingerprint == by_hand(images, [digits[i][1] for i in range(20)])
