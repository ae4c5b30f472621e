"""What lies below a folder: links, circles, hidden folders and those of systems."""

import os

import pytest

from cmtool.errors import MissingInput
from cmtool.user_paths import files_below, is_visible


def put(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_links_are_followed_and_one_folder_may_have_two_names(tmp_path):
    put(tmp_path, "store/a/1.png", "store/b/deep/2.png", "data/c/3.png")
    (tmp_path / "data" / "link").symlink_to("../store")
    (tmp_path / "data" / "again").symlink_to(tmp_path / "store" / "a")
    tree = files_below(tmp_path / "data")
    assert tree.files == ["again/1.png", "c/3.png", "link/a/1.png", "link/b/deep/2.png"]
    assert tree.folders == ["again", "c", "link"]


def test_no_link_is_followed_in_a_circle(tmp_path):
    put(tmp_path, "data/a/1.png", "data/b/2.png", "other.png")
    (tmp_path / "data" / "a" / "self").symlink_to(".")
    (tmp_path / "data" / "a" / "b").symlink_to("../b")
    (tmp_path / "data" / "b" / "a").symlink_to("../a")
    (tmp_path / "data" / "up").symlink_to("..")
    files = files_below(tmp_path / "data").files
    assert files == ["a/1.png", "a/b/2.png", "b/2.png", "b/a/1.png", "up/other.png"]


def test_a_relative_root_gives_the_same_names(tmp_path, monkeypatch):
    put(tmp_path, "a/1.png", "2.png")
    monkeypatch.chdir(tmp_path)
    assert files_below(tmp_path).files == files_below(type(tmp_path)(".")).files == ["2.png", "a/1.png"]


@pytest.mark.parametrize(
    "name", ["@eaDir", "__MACOSX", "#recycle", "$RECYCLE.BIN", "lost+found", ".ipynb_checkpoints", ".git", "@__thumb"]
)
def test_folders_of_systems_are_no_data(tmp_path, name):
    put(tmp_path, "a/1.png", f"{name}/x.png", f"a/{name}/1.png/thumb.png")
    tree = files_below(tmp_path)
    assert (tree.files, tree.folders) == (["a/1.png"], ["a"])
    assert not is_visible(f"top/{name}/x.png")
    assert is_visible(f"top/x{name}/x.png")


def test_a_folder_called_like_a_picture_is_a_folder(tmp_path):
    put(tmp_path, "a.png/b.png")
    assert files_below(tmp_path).files == ["a.png/b.png"]


@pytest.mark.skipif(os.getuid() == 0, reason="root reads every folder")
def test_a_folder_that_cannot_be_read_is_named(tmp_path):
    put(tmp_path, "a/1.png", "b/2.png")
    (tmp_path / "b").chmod(0)
    try:
        with pytest.raises(MissingInput, match="cannot read the folder"):
            files_below(tmp_path)
    finally:
        (tmp_path / "b").chmod(0o700)
