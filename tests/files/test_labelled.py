"""Sheets with words, and frames that move."""

import numpy as np
from PIL import Image

from cmtool.files.picture_files import GAP, SIDE, labelled_sheet, write_animation

RED, GREY = np.zeros((3, 8, 8), np.uint8), np.full((1, 200, 100), 90, np.uint8)
RED[0] = 255


def test_every_image_is_in_its_cell_and_words_are_ink():
    page = labelled_sheet(["one", "two"], [[(RED, ["a line"]), (GREY, [])], [(GREY, []), (None, [])]])
    assert page.shape[2] == 2 * (SIDE + 4 + GAP) + GAP or page.shape[2] == 2 * (SIDE + GAP) + GAP
    red = (page[0] == 255) & (page[1] == 0)
    assert red.sum() == SIDE * SIDE  # 8 pixels enlarged 14 times
    assert (page == 90).all(0).sum() >= 2 * (SIDE - 2) * (SIDE // 2 - 2)
    rows = np.flatnonzero((page < 80).any((0, 2)) & ~red.any(1))
    assert rows.size > 10  # the headings and the line
    bare = labelled_sheet(["", ""], [[(RED, []), (GREY, [])]])
    assert not ((bare < 80).all(0)).any()


def test_an_animation_holds_every_frame(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (5, 3, 64, 64), np.uint8)
    write_animation(tmp_path / "a.webp", frames, 10)
    write_animation(tmp_path / "a.gif", frames, 10)
    for name in ("a.webp", "a.gif"):
        with Image.open(tmp_path / name) as image:
            assert (image.n_frames, image.size) == (5, (256, 256))
            for k in range(5):
                image.seek(k)
                shown = np.asarray(image.convert("RGB"))[::4, ::4].transpose(2, 0, 1)
                off = np.abs(shown.astype(int) - frames[k])
                assert off.max() == 0 if name == "a.webp" else off.mean() < 40
        with Image.open(tmp_path / name) as image:
            image.load()
            assert image.info["duration"] == 100
