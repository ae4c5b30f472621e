import numpy as np
import pytest
from PIL import Image

from cmtool.errors import BadFile, MissingInput
from cmtool.files.picture_files import read_mask

SHAPE = np.zeros((6, 8), np.uint8)
SHAPE[1:4, 2:7] = 255


def saved(path, picture, **how):
    picture.save(path, **how)
    return read_mask(path, str(path))[0] > 127


@pytest.mark.parametrize("colour", [(255, 255, 255), (0, 0, 0), (9, 200, 30)])
def test_paint_of_any_colour_on_a_transparent_layer(tmp_path, colour):
    layer = np.dstack([np.full((6, 8, 3), colour, np.uint8), SHAPE])
    assert np.array_equal(saved(tmp_path / "a.png", Image.fromarray(layer)), SHAPE > 0)
    assert np.array_equal(saved(tmp_path / "a.webp", Image.fromarray(layer), lossless=True, exact=True), SHAPE > 0)
    assert np.array_equal(saved(tmp_path / "la.png", Image.fromarray(layer[..., 2:])), SHAPE > 0)


def test_a_palette_with_a_transparent_colour(tmp_path):
    picture = Image.fromarray((SHAPE > 0).astype(np.uint8), "P")
    picture.putpalette([255, 255, 255, 0, 0, 0])
    assert np.array_equal(saved(tmp_path / "a.png", picture, transparency=0), SHAPE > 0)
    assert np.array_equal(saved(tmp_path / "b.png", picture), SHAPE == 0)  # white marks


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "1", "P", "I;16"])
def test_white_marks_where_nothing_is_transparent(tmp_path, mode):
    deep = SHAPE.astype(np.uint16) * 257
    picture = Image.fromarray(deep) if mode == "I;16" else Image.fromarray(SHAPE).convert(mode)
    assert np.array_equal(saved(tmp_path / "a.png", picture), SHAPE > 0)


def test_files_that_are_no_masks(tmp_path):
    with pytest.raises(MissingInput):
        read_mask(tmp_path / "a.png", "a.png")
    (tmp_path / "a.png").write_bytes(b"GIF89a" + bytes(99))
    with pytest.raises(BadFile, match="GIF"):
        read_mask(tmp_path / "a.png", "a.png")
    assert read_mask(np.full((3, 2, 2), 255, np.uint8), "x.npz:0").shape == (1, 2, 2)
