"""The pictures against geometry, against themselves on another background, and against the names Unicode gives them."""

import math
import unicodedata

import cmtool_emoji
import pytest
import torch
from cmtool_emoji import emoji, find_font

from cmtool.errors import BadFile, MissingAsset, MissingInput, UsageError
from cmtool.options import registry
from cmtool.testing import check_dataset


@pytest.fixture(scope="module")
def font():
    try:
        return find_font()
    except MissingAsset as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def white(font):
    return emoji(str(font))


@pytest.fixture(scope="module")
def opaque(font, white):
    """How much each pixel is covered, 0 to 1: what a change of background does not change."""
    black = emoji(str(font), background="#000000")
    assert black.points == white.points
    return black, 1 - (white.images.float() - black.images.float()) / 255


def image_of(data, name):
    return data.images[data.points.index(ord(unicodedata.lookup(name)))]


def test_emoji_keep_the_contract_of_a_data_set(white):
    check_dataset(white)


def test_there_are_about_1267_and_no_two_are_equal(white):
    assert 1200 <= len(white) <= 1400  # the font grows by some tens with each version of Unicode
    assert len(white.images.flatten(1).unique(dim=0)) == len(white)
    assert white.points == sorted(set(white.points))


def test_none_is_a_letter_a_flag_or_a_modifier(white):
    known = [unicodedata.category(chr(point)) for point in white.points]
    assert set(known) <= {"So", "Sm", "Cn"}  # Cn: newer than this Python's tables
    assert not any(0x1F1E6 <= point <= 0x1F1FF or 0x1F3FB <= point <= 0x1F3FF for point in white.points)


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("GRINNING FACE", "faces"),
        ("GRINNING CAT FACE WITH SMILING EYES", "faces"),
        ("SEE-NO-EVIL MONKEY", "animals"),
        ("OCTOPUS", "animals"),
        ("WAVING HAND SIGN", "people"),
        ("SURFER", "people"),
        ("CACTUS", "plants"),
        ("SLICE OF PIZZA", "food"),
        ("EAR OF MAIZE", "food"),
        ("EUROPEAN CASTLE", "places"),
        ("RAINBOW", "sky"),
        ("BICYCLE", "travel"),
        ("GREEN HEART", "symbols"),
        ("ELECTRIC LIGHT BULB", "objects"),
    ],
)
def test_groups_hold_what_they_say(white, name, group):
    index = white.points.index(ord(unicodedata.lookup(name)))
    assert white.classes[white[index][1]] == group


def test_every_group_is_well_filled(white):
    assert torch.bincount(white.labels, minlength=len(white.classes)).min() >= 20


def test_a_disc_fills_its_square_as_a_disc_does(opaque):
    covered = opaque[1][opaque[0].points.index(ord(unicodedata.lookup("LARGE BLUE CIRCLE")))]
    assert covered.mean() == pytest.approx(math.pi / 4, abs=0.02)
    weight, place = covered.mean(0), torch.arange(32.0)
    centre = torch.stack([weight.sum(1) @ place, weight.sum(0) @ place]) / weight.sum()
    torch.testing.assert_close(centre, torch.tensor([15.5, 15.5]), atol=0.25, rtol=0)


def test_colours_are_those_of_the_names(white):
    red, green, blue = (image_of(white, f"{c} HEART")[:, 16, 16].int() for c in ("HEAVY BLACK", "GREEN", "BLUE"))
    assert red[0] > 200 and red[1:].max() < 100
    assert green.argmax() == 1
    assert blue.argmax() == 2


def test_the_background_shows_equally_in_all_colours(opaque):
    """White minus black is 255 (1 - alpha) in each channel; clipping the filter's overshoot moves it a little."""
    covered = opaque[1]
    spread = covered.amax(1) - covered.amin(1)
    assert spread.mean() < 0.01
    assert spread.flatten().quantile(0.99) < 0.1


def test_each_picture_spans_its_square_from_side_to_side(opaque):
    inked = opaque[1].amax(1) > 0.02
    upright = inked[:, 0].any(1) & inked[:, -1].any(1)
    across = inked[:, :, 0].any(1) & inked[:, :, -1].any(1)
    assert (upright | across).float().mean() > 0.99


def test_size_and_source_are_taken(font):
    assert emoji(str(font), size=16).shape == (3, 16, 16)


def test_the_font_of_a_user_is_found_and_one_without_pictures_is_passed_over(font, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    (tmp_path / "fonts/a").mkdir(parents=True)
    (tmp_path / "fonts/b").mkdir()
    (tmp_path / "fonts/a/NotoColorEmoji.ttf").write_bytes(b"\0\1\0\0COLRCPAL")
    (tmp_path / "fonts/b/NotoColorEmoji.ttf").symlink_to(font)
    assert find_font() == tmp_path / "fonts/b/NotoColorEmoji.ttf"


def test_no_font_is_one_sentence_that_names_the_package(monkeypatch):
    monkeypatch.setattr(cmtool_emoji, "folders", lambda: iter(()))
    with pytest.raises(MissingAsset, match="Noto Color Emoji") as caught:
        emoji()
    assert "fonts-noto-color-emoji" in caught.value.hint
    assert "data.source=PATH" in caught.value.hint


def test_bad_sources_and_options_are_named(tmp_path):
    text = tmp_path / "text.ttf"
    text.write_text("not a font")
    with pytest.raises(BadFile, match="not a font"):
        emoji(str(text))
    with pytest.raises(MissingInput, match="there is no font"):
        emoji(str(tmp_path / "none.ttf"))
    with pytest.raises(UsageError, match="'beige-ish' is not a colour"):
        emoji(background="beige-ish")
    with pytest.raises(UsageError, match="size"):
        registry.build("datasets", {"name": "emoji", "size": 0}, None)


@pytest.mark.parametrize("flip", [False, True])
def test_a_damaged_font_is_refused(font, tmp_path, flip):
    data = bytearray(font.read_bytes())
    if flip:
        data[20_000:5_000_000:1000] = bytes(byte ^ 255 for byte in data[20_000:5_000_000:1000])
    (tmp_path / "bad.ttf").write_bytes(data if flip else data[: len(data) // 2])
    with pytest.raises(BadFile, match="cannot be read"):
        emoji(str(tmp_path / "bad.ttf"))
