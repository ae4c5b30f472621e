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


@pytest.mark.parametrize(
    ("text", "name", "source", "part"),
    [
        (r"C:\pictures", "folder", r"C:\pictures", None),
        ("d:/pictures/x.tar[0:9]", "folder", "d:/pictures/x.tar", "0:9"),
        (r"\\server\share\x.zip", "folder", r"\\server\share\x.zip", None),
        (r".\CON", "folder", r".\CON", None),
        (r"folder:C:\pictures[::2]", "folder", r"C:\pictures", "::2"),
        (r"emoji:C:\fonts\x.ttf", "emoji", r"C:\fonts\x.ttf", None),
        ("d:8", "d", "8", None),  # no drive: a data set of one letter
    ],
)
def test_drives_and_backslashes_are_paths(tmp_path, monkeypatch, text, name, source, part):
    monkeypatch.chdir(tmp_path)
    assert data_spec(text) == {"name": name, "source": source, "slice": part}
