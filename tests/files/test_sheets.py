import io
import sys

import numpy as np
import pytest
import torch

from cmtool.errors import BadFile, MissingInput, UsageError, WriteFailed
from cmtool.files.picture_files import grid, read_picture, scatter, write_picture

IMAGES = np.random.default_rng(0).integers(0, 255, (5, 3, 4, 6)).astype(np.uint8)  # never white


def test_a_grid_by_hand():
    sheet = grid(IMAGES, columns=3, gap=1, scale=2)
    assert sheet.shape == (3, 2 * 8 + 3, 3 * 12 + 4)
    rebuilt = []
    for top, left in ((1, 1), (1, 14), (1, 27), (10, 1), (10, 14)):
        for dy in (0, 1):
            cell = sheet[:, top + dy : top + 8 : 2, left + dy : left + 12 : 2]
            rebuilt.append(cell)
    assert np.array_equal(np.stack(rebuilt[::2]), IMAGES)
    assert np.array_equal(np.stack(rebuilt[1::2]), IMAGES)
    assert (sheet == 255).all(axis=0).sum() == sheet[0].size - 5 * 8 * 12


@pytest.mark.parametrize(("side", "scale"), [(8, 8), (28, 2), (32, 2), (64, 1), (256, 1)])
def test_small_images_are_enlarged(side, scale):
    assert grid(np.zeros((1, 1, side, side), np.uint8), gap=0).shape == (1, side * scale, side * scale)


@pytest.mark.parametrize(("n", "columns"), [(1, 1), (2, 2), (5, 3), (9, 3), (10, 4), (64, 8)])
def test_a_grid_is_about_square(n, columns):
    sheet = grid(np.zeros((n, 1, 4, 4), np.uint8), gap=0, scale=1)
    assert sheet.shape == (1, 4 * -(-n // columns), 4 * columns)


def test_points_stand_where_they_should():
    sheet = scatter(np.array([[0.5, 0.5], [-0.5, -0.75], [9.0, 0.0]]), extent=1.0, side=64)
    assert sheet.shape == (3, 64, 64)
    rows, columns = np.nonzero((sheet < 255).any(axis=0))
    upper = rows < 32
    assert (rows[upper].mean(), columns[upper].mean()) == (16, 48)
    assert (rows[~upper].mean(), columns[~upper].mean()) == (56, 16)
    assert (sheet < 255).any(axis=0).sum() == 2 * 21  # the third lies outside


def test_dense_places_are_darker_and_all_points_are_shown():
    points = np.random.default_rng(0).normal(size=(5000, 2))
    sheet = scatter(points).astype(int).sum(axis=0)
    assert sheet[182:202, 182:202].mean() < sheet[140:160, 140:160].mean() < 3 * 255
    assert (scatter(np.zeros((4, 2))) < 255).any()


def test_pictures_come_back(tmp_path, capsysbinary, monkeypatch):
    write_picture(tmp_path / "new" / "x.PNG", IMAGES[0])
    assert np.array_equal(read_picture(tmp_path / "new" / "x.PNG"), IMAGES[0])
    write_picture("-", torch.from_numpy(IMAGES[1][:1]))
    data = capsysbinary.readouterr().out
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert np.array_equal(read_picture("-"), IMAGES[1][:1])


def test_what_cannot_be_read_or_written(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="cannot write a picture to"):
        write_picture(tmp_path / "x.jpg", IMAGES[0])
    (tmp_path / "file").touch()
    with pytest.raises(WriteFailed):
        write_picture(tmp_path / "file" / "x.png", IMAGES[0])
    with pytest.raises(MissingInput):
        read_picture(tmp_path / "no.png")
    with pytest.raises(BadFile, match="file is not a picture"):
        read_picture(tmp_path / "file")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"text")))
    with pytest.raises(BadFile, match="standard input is not a picture"):
        read_picture("-")
