"""Which list of labels counts, and which of its names is which picture."""

import pytest

from cmtool.label_files import label_file, match_labels

PICTURES = ["00000/img1.png", "00000/img2.png", "00001/img1.png"]


@pytest.mark.parametrize(
    "names",
    [
        PICTURES,
        ["00000\\img1.png", "00000\\img2.png", "00001\\img1.png"],
        ["./00000/img1.jpg", "./00000/img2.jpeg", "./00001/img1.JPG"],
        ["00000/IMG1.PNG", "00000/IMG2.PNG", "00001/IMG1.PNG"],
        ["data/00000/img1.png", "data/00000/img2.png", "data/00001/img1.png"],
        ["00000/img1", "00000/img2", "00001/img1"],
    ],
)
def test_names_are_recognised_however_they_are_written(names):
    assert match_labels(dict(zip(names, [3, 4, 5], strict=True)), PICTURES) == [3, 4, 5]
    assert match_labels(dict(zip(names, [3, 4, 5], strict=True)), [f"top/{name}" for name in PICTURES], "top") == [
        3,
        4,
        5,
    ]
    assert match_labels(dict(zip(names[:2], [3, 4], strict=True)), PICTURES) == [3, 4, None]


def test_letters_count_in_either_way_of_unicode():
    assert (
        match_labels({"ete\u0301.png": 1}, ["et\u00e9.png"])
        == match_labels({"et\u00e9.png": 1}, ["ete\u0301.png"])
        == [1]
    )


def test_what_is_not_sure_is_not_taken():
    assert match_labels({"a.jpg": 1, "a.webp": 2}, ["a.png"]) == [None]
    assert match_labels({"a.jpg": 1}, ["a.png", "a.bmp"]) == [None, None]
    assert match_labels({"a.jpg": 1, "a.png": 2}, ["a.png"]) == [2]
    assert match_labels({"train/1.png": 1, "train/2.png": 2}, ["val/1.png", "val/2.png"]) == [None, None]
    assert match_labels({}, ["a.png"]) == [None]


@pytest.mark.parametrize(
    ("files", "chosen", "others"),
    [
        (["dataset.json", "x/dataset.json"], "dataset.json", []),
        (["x/dataset.json"], "x/dataset.json", []),
        (["y/dataset.json"], None, ["y/dataset.json"]),
        (["x/a/dataset.json", "x/b/dataset.json"], None, ["x/a/dataset.json", "x/b/dataset.json"]),
        (["x/labels.json"], None, []),
    ],
)
def test_the_list_that_counts_holds_every_picture_in_its_folder(files, chosen, others):
    assert label_file(files, ["x/a/1.png", "x/b/2.png"]) == (chosen, others)
