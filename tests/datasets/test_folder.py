"""A folder of images: every mode against the values written, labels, order, sizes, and what is said when it fails."""

import resource

import numpy as np
import pytest
import torch
from PIL import Image

from cmtool.datasets.fit import fit
from cmtool.datasets.folder import folder
from cmtool.errors import BadFile, MissingInput, UsageError
from cmtool.options import registry
from cmtool.options.hint_words import word_hint

RNG = np.random.default_rng(0)
RED = (255, 0, 0)


def noise(*shape):
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def write(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(path, **options)
    return path


def only(path, **options):
    """The single image of a folder, [H, W, C] as integers."""
    data = folder(path, **options)
    assert len(data) == 1
    image, label = data[0]
    assert (image.dtype, label) == (torch.uint8, None)
    return image.permute(1, 2, 0).numpy().astype(int)


@pytest.mark.parametrize("suffix", ["png", "bmp", "webp"])
def test_colour_is_read_exactly(tmp_path, suffix):
    pixels = noise(8, 8, 3)
    write(tmp_path / f"a.{suffix}", pixels, **({"lossless": True} if suffix == "webp" else {}))
    assert np.array_equal(only(tmp_path), pixels)


def test_jpeg_of_a_plain_colour(tmp_path):
    write(tmp_path / "a.JPG", Image.new("RGB", (16, 16), (200, 100, 50)), quality=95)
    assert np.abs(only(tmp_path) - (200, 100, 50)).max() <= 2


def test_grey_is_one_channel_or_three_equal_ones(tmp_path):
    pixels = noise(8, 8)
    write(tmp_path / "a.png", pixels)
    assert np.array_equal(only(tmp_path)[..., 0], pixels)
    assert np.array_equal(only(tmp_path, channels=3), np.stack([pixels] * 3, -1))


def test_colour_asked_for_in_grey_is_luma(tmp_path):
    write(tmp_path / "a.png", Image.new("RGB", (4, 4), (200, 100, 50)))
    assert (only(tmp_path, channels=1) == round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)).all()


def test_16_bits_become_8(tmp_path):
    deep = np.arange(0, 65536, 1024, dtype=np.uint16).reshape(8, 8)
    write(tmp_path / "a.png", deep)
    assert folder(tmp_path).shape == (1, 8, 8)
    assert np.array_equal(only(tmp_path)[..., 0], np.rint(deep / 257))


def test_black_and_white(tmp_path):
    write(tmp_path / "a.png", Image.fromarray(np.eye(8, dtype=np.uint8) * 255).convert("1"))
    assert np.array_equal(only(tmp_path)[..., 0], np.eye(8) * 255)


def test_what_is_transparent_lies_on_white(tmp_path):
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[..., 0] = 200
    pixels[..., 3] = [0, 51, 102, 255]
    write(tmp_path / "a.png", pixels)
    alpha = pixels[..., 3:] / 255
    assert np.abs(only(tmp_path) - (255 * (1 - alpha) + pixels[..., :3] * alpha)).max() <= 1


def test_a_palette_is_looked_up(tmp_path):
    colours = np.array([RED, (0, 255, 0), (10, 20, 30), (255, 255, 255)], np.uint8)
    index = RNG.integers(0, 4, (8, 8), dtype=np.uint8)
    image = Image.fromarray(index)
    image.putpalette(colours.tobytes())
    write(tmp_path / "a.png", image)
    assert np.array_equal(only(tmp_path), colours[index])


def test_cmyk_becomes_rgb(tmp_path):
    write(tmp_path / "a.jpg", Image.new("CMYK", (16, 16), (0, 255, 255, 0)), quality=100)
    assert np.abs(only(tmp_path) - RED).max() <= 3


def test_the_camera_was_held_sideways(tmp_path):
    pixels = noise(6, 6, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # the right side of the scene is the first row: turn clockwise
    write(tmp_path / "a.png", pixels, exif=exif)
    assert np.array_equal(only(tmp_path), np.rot90(pixels, -1))


def test_the_centre_is_cut_out():
    pixels = noise(9, 5, 3)
    assert np.array_equal(fit(pixels, 5, 5), pixels[2:7])
    assert np.array_equal(fit(pixels.transpose(1, 0, 2), 5, 5), pixels.transpose(1, 0, 2)[:, 2:7])


def test_halving_is_the_mean_of_four_and_the_rest_is_bicubic():
    pixels = noise(32, 32)
    quarters = pixels.reshape(16, 2, 16, 2).astype(float).mean((1, 3))
    assert np.abs(fit(pixels, 16, 16) - quarters).max() <= 1  # Pillow rounds rows and columns
    half = Image.fromarray(fit(pixels, 16, 16))
    assert np.array_equal(fit(pixels, 10, 10), np.array(half.resize((10, 10), Image.Resampling.BICUBIC)))


def test_a_straight_ramp_survives_cropping_and_resizing():
    # A linear image is reproduced by averaging and by cubic interpolation alike, away from the border.
    x = np.linspace(0, 255, 300)
    pixels = np.rint(np.broadcast_to(x, (200, 300))).astype(np.uint8)
    result = fit(pixels, 40, 40).astype(float)
    expected = np.interp((np.arange(40) + 0.5) * 5 + 50 - 0.5, np.arange(300), x)
    assert np.abs(result - expected).max() < 1.5
    squeezed = fit(pixels, 40, 40, "squeeze").astype(float)
    assert np.abs(squeezed - np.interp((np.arange(40) + 0.5) * 7.5 - 0.5, np.arange(300), x))[:, 2:-2].max() < 1


@pytest.fixture
def tree(tmp_path):
    """Two classes in folders of folders, with file names that carry other classes, and things to overlook."""
    for number, name in enumerate(["dog/x_2.png", "cat/deep/y_1.png", "cat/x_1.png", "dog/more/y_9.PNG"]):
        write(tmp_path / name, np.full((4, 4), number, np.uint8))
    (tmp_path / "cat" / "._x_1.png").write_bytes(b"a leftover of another system")
    (tmp_path / "notes.txt").write_text("not an image")
    return tmp_path


def values(data):
    return [(int(image.max()), label) for image, label in (data[i] for i in range(len(data)))]


def test_the_first_folders_are_the_classes(tree):
    for labels in ("auto", "folder"):
        data = folder(tree, labels=labels)
        assert data.classes == ("cat", "dog")
        # Sorted: cat/deep/y_1, cat/x_1, dog/more/y_9, dog/x_2
        assert values(data) == [(1, 0), (2, 0), (3, 1), (0, 1)]
    assert data[-1][1] == 1
    assert "4 images" in data.notice


def test_labels_from_file_names(tree):
    data = folder(tree, labels="filename-prefix")
    assert data.classes == ("x", "y")
    assert values(data) == [(1, 1), (2, 0), (3, 1), (0, 0)]


def test_labels_can_be_left_out(tree):
    assert folder(tree, labels="none").classes == ()
    one = folder(tree / "cat")  # an image beside a folder: no classes
    assert values(one) == [(1, None), (2, None)]
    assert folder(tree / "dog" / "more").classes == ()


def test_a_link_to_a_folder_is_followed_but_not_in_circles(tree, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    write(elsewhere / "a.png", noise(4, 4))
    (tree / "link").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(tree)
    assert folder(tree).classes == ("cat", "dog", "link")
    write(tree / "alone.png", noise(4, 4))
    assert len(folder(tree, labels="none")) == 6


def test_a_label_that_is_not_there(tree):
    write(tree / "alone.png", noise(4, 4))
    assert folder(tree, labels="none").classes == ()
    with pytest.raises(UsageError, match=r"alone.png lies beside the folders of 2 classes \(cat, dog\)") as caught:
        folder(tree)
    assert "--set data.labels=none" in word_hint(caught.value.hint)
    with pytest.raises(UsageError, match=r"alone.png has no label: it lies in no folder"):
        folder(tree, labels="folder")
    with pytest.raises(UsageError, match="no '_'"):
        folder(tree, labels="filename-prefix")


def test_sizes_that_differ(tmp_path):
    write(tmp_path / "a.png", noise(48, 64, 3))
    write(tmp_path / "b.png", noise(70, 80))
    with pytest.raises(UsageError, match="from 48 to 70 pixels") as caught:
        folder(tmp_path)
    assert caught.value.hint == "give one size for all: size=32"
    data = folder(tmp_path, size=32)
    assert data.shape == data[0][0].shape == data[1][0].shape == (3, 32, 32)
    write(tmp_path / "b.png", noise(48, 50))
    assert folder(tmp_path).shape == (3, 48, 48)


def test_nothing_is_decoded_before_it_is_asked_for(tmp_path):
    whole = write(tmp_path / "a.png", noise(64, 64, 3)).read_bytes()
    (tmp_path / "b.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "c.png").write_text("no image at all")
    with pytest.raises(BadFile, match=r"c.png is not a picture"):
        folder(tmp_path)
    (tmp_path / "c.png").unlink()
    data = folder(tmp_path)
    assert data[0][0].shape == (3, 64, 64)
    with pytest.raises(BadFile, match=r"b.png is damaged"):
        data[1]


def test_a_bomb_is_refused(tmp_path):
    write(tmp_path / "a.png", Image.new("1", (20000, 20000)))
    for options in ({}, {"size": 32, "channels": 1}):  # said before training begins
        with pytest.raises(BadFile, match="million pixels"):
            folder(tmp_path, **options)


def test_other_formats_under_a_known_name_are_not_opened(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", format="TIFF")
    with pytest.raises(BadFile, match=r"a.png is not a picture that is read, but a TIFF"):
        folder(tmp_path)


@pytest.mark.parametrize("shape", [(1, 6000, 3), (7000, 1), (1, 6000, 4)])
def test_of_a_strip_the_middle_alone_is_enlarged(shape):
    strip = noise(*shape[:2], 3)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = fit(strip, 256, 256)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KB
    middle = strip[shape[0] // 2 - 9 : shape[0] // 2 + 9] if shape[1] == 1 else strip[:, 2991:3009]
    expected = fit(middle, 256, 256)
    assert found.shape == (256, 256, 3)
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_a_picture_is_cut_before_or_after_it_is_enlarged(monkeypatch):
    pixels = noise(5, 90, 3)
    after = fit(pixels, 32, 32)
    monkeypatch.setattr("cmtool.datasets.fit.LARGE", 0)
    assert np.abs(fit(pixels, 32, 32).astype(int) - after).max() <= 1


def test_pictures_of_kinds_that_are_not_read_are_counted(tree):
    for name in ("cat/a.tif", "dog/b.GIF", "dog/deep/c.gif"):
        write(tree / name, noise(4, 4))
    write(tree / "cat" / "d.jfif", noise(4, 4))
    data = folder(tree)
    assert data.remarks == (f"{tree.name}: not read: 2 .gif, 1 .tif",)
    assert len(data) == 5


def test_folders_called_by_numbers_count_as_numbers(tmp_path):
    for name in ("10", "9", "2"):
        write(tmp_path / name / "a.png", noise(4, 4))
    assert folder(tmp_path).classes == ("2", "9", "10")


def test_an_inventory_changes_with_the_data(tree):
    before = folder(tree).inventory
    assert set(before) == {"cat/deep/y_1.png", "cat/x_1.png", "dog/more/y_9.PNG", "dog/x_2.png", "labels"}
    assert folder(tree).inventory == before
    assert folder(tree, labels="filename-prefix").inventory["labels"] != before["labels"]
    write(tree / "cat" / "x_1.png", noise(4, 4))
    assert folder(tree).inventory["cat/x_1.png"] != before["cat/x_1.png"]


def test_what_is_missing_is_said_with_what_is_there(tree):
    with pytest.raises(MissingInput, match="no folder") as caught:
        folder(tree / "cats")
    assert caught.value.hint == f"did you mean '{tree / 'cat'}'?"
    with pytest.raises(MissingInput) as caught:
        folder(tree / "zebra" / "deep")
    assert caught.value.hint == f"in {tree} there are: cat, dog"
    with pytest.raises(BadFile, match="is a file, not a folder or an archive"):
        folder(tree / "notes.txt")
    (tree / "empty").mkdir()
    with pytest.raises(MissingInput, match="no images") as caught:
        folder(tree / "empty")
    assert "it holds: nothing" in caught.value.hint


def test_words_that_are_not_options(tree):
    with pytest.raises(UsageError, match="needs the path"):
        folder(None)
    with pytest.raises(UsageError) as caught:
        folder(tree, labels="folders")
    assert caught.value.hint == "did you mean 'folder'?"
    for wrong in ({"crop": "left"}, {"channels": 2}, {"size": 0}):
        with pytest.raises(UsageError):
            registry.build("datasets", {"name": "folder", **wrong}, tree)
