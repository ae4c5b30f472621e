"""How averages are named."""

import pytest

from cmtool.tracks import TRACKS, Track, tracks


def test_a_number_is_a_half_life():
    assert tracks(1500) == tracks("1500") == tracks("half-life:1500") == (Track("half-life", 1500),)
    assert tracks("1500, power:0.05,constant:0.99993") == (
        Track("half-life", 1500),
        Track("power", 0.05),
        Track("constant", 0.99993),
    )


def test_a_number_below_one_is_the_decay_of_a_step():
    assert tracks("0.9999") == tracks(0.9999) == tracks("constant:0.9999") == (Track("constant", 0.9999),)
    assert tracks("0.999,1500,0.9999432") == (
        Track("constant", 0.999),
        Track("half-life", 1500),
        Track("constant", 0.9999432),
    )
    assert tracks(0) == (Track("half-life", 0),)
    assert tracks("half-life:0.5") == (Track("half-life", 0.5),)


@pytest.mark.parametrize("text", ["half-life:1500", "power:0.05", "constant:0.9999432189950708", "counted:0.999"])
def test_what_a_track_is_called_is_what_was_written(text):
    (track,) = tracks(text)
    assert str(track) == text
    assert track.name == text.replace(":", "-")
    assert tracks(str(track)) == (track,)


WRONG = ["", "x", "power", "power:", "power:0", "power:0.29", "constant:1", "counted:-0.1", "half-life:inf", "nan"]
LISTS = ["1500,", "1500,1500", "power:0.1,power:0.10", "median:3", "power:0.05:2"]


@pytest.mark.parametrize("text", [-1, *WRONG, *LISTS])
def test_what_is_no_track(text):
    assert not TRACKS.holds(text)
    with pytest.raises(ValueError):
        tracks(text)
