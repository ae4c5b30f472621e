import os

import numpy as np
import pytest

from cmtool.errors import UsageError, WriteFailed
from cmtool.files.output_check import check_place, is_same, made_by
from cmtool.files.picture_files import read_picture, write_picture
from cmtool.options.hint_words import word_hint


@pytest.fixture
def photo(tmp_path):
    (tmp_path / "photo.png").write_bytes(b"of the user")
    return tmp_path / "photo.png"


def names(photo):
    """Other names of the same file."""
    folder = photo.parent
    (folder / "link.png").symlink_to(photo)
    os.link(photo, folder / "hard.png")
    (folder / "way").symlink_to(folder)
    return [photo, f"{folder}/./photo.png", folder / "link.png", folder / "hard.png", folder / "way" / "photo.png"]


def test_what_is_read_is_not_written_over_by_any_name(photo):
    for name in names(photo):
        with pytest.raises(UsageError, match="is read by this command"):
            check_place(name, [None, photo], ours=lambda path: True)
        check_place(name, [photo], overwrite=True)
    assert is_same(photo.parent / "way", photo.parent)
    with pytest.raises(UsageError, match="is read by this command"):
        check_place(photo.parent / "way", [photo.parent])
    check_place(photo.parent, [photo])


def test_a_file_that_the_command_did_not_make(photo):
    image = np.zeros((3, 4, 5), np.uint8)
    with pytest.raises(UsageError, match="did not make it") as caught:
        check_place(photo, ours=made_by("edit"))
    assert "--overwrite" in word_hint(caught.value.hint)
    check_place(photo, overwrite=True)
    write_picture(photo, image, "edit")
    check_place(photo, ours=made_by("edit"))
    assert np.array_equal(read_picture(photo), image)
    with pytest.raises(UsageError, match="did not make it"):
        check_place(photo, ours=made_by("edi"))
    photo.write_bytes(b"\x89")
    with pytest.raises(UsageError, match="did not make it"):
        check_place(photo, ours=made_by("edit"))
    photo.write_bytes(b"")  # as mktemp leaves it: there is nothing to lose
    check_place(photo, ours=made_by("edit"))


def test_places_that_refuse_are_found_before_the_work(photo):
    for place in ("/proc/x.png", "/proc/deep/x.png", photo / "x.png", photo.parent / f"{'x' * 300}.png", "\0.png"):
        with pytest.raises(WriteFailed, match="cannot write"):
            check_place(place)
    check_place(photo.parent / "deep" / "deeper" / "x.png")
    assert os.listdir(photo.parent) == ["photo.png"]


@pytest.mark.parametrize("target", ["-", "/dev/null"])
def test_pipes_and_devices_are_always_fine(target):
    check_place(target, [target])
