"""Folders and archives by what users call them; names and slices are in test_options.py."""

import pytest

from cmtool.options.data_spec import data_spec


@pytest.mark.parametrize(
    ("text", "source", "part"),
    [
        ("photos[1]", "photos[1]", None),
        ("./photos[1]", "./photos[1]", None),
        ("./photos[1][0:4]", "./photos[1]", "0:4"),
        ("folder:photos[1]", "photos[1]", None),
        ("./photos[2]", "./photos[2]", None),
        ("a[0:2]", "a[0:2]", None),
        ("x.zip", "x.zip", None),
        ("none.ZIP[::2]", "none.ZIP", "::2"),
        ("./none.tar", "./none.tar", None),
        ("none.npz", "none.npz", None),
        ("notes.txt", "notes.txt", None),
    ],
)
def test_folders_with_brackets_and_archives(tmp_path, monkeypatch, text, source, part):
    monkeypatch.chdir(tmp_path)
    for name in ("photos[1]", "a[0:2]", "a"):
        (tmp_path / name).mkdir()
    for name in ("x.zip", "notes.txt"):
        (tmp_path / name).touch()
    assert data_spec(text) == {"name": "folder", "source": source, "slice": part}
