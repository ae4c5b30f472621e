"""How averages are named."""

import pytest

from cmtool.options.ema_spec import EMA_SPECS, EMASpec, parse_ema_specs


def test_a_number_is_a_half_life():
    assert (
        parse_ema_specs(1500)
        == parse_ema_specs("1500")
        == parse_ema_specs("half-life:1500")
        == (EMASpec("half-life", 1500),)
    )
    assert parse_ema_specs("1500, power:0.05,constant:0.99993") == (
        EMASpec("half-life", 1500),
        EMASpec("power", 0.05),
        EMASpec("constant", 0.99993),
    )


def test_a_number_below_one_is_the_decay_of_a_step():
    assert (
        parse_ema_specs("0.9999")
        == parse_ema_specs(0.9999)
        == parse_ema_specs("constant:0.9999")
        == (EMASpec("constant", 0.9999),)
    )
    assert parse_ema_specs("0.999,1500,0.9999432") == (
        EMASpec("constant", 0.999),
        EMASpec("half-life", 1500),
        EMASpec("constant", 0.9999432),
    )
    assert parse_ema_specs(0) == (EMASpec("half-life", 0),)
    assert parse_ema_specs("half-life:0.5") == (EMASpec("half-life", 0.5),)


@pytest.mark.parametrize("text", ["half-life:1500", "power:0.05", "constant:0.9999432189950708", "counted:0.999"])
def test_what_a_track_is_called_is_what_was_written(text):
    (track,) = parse_ema_specs(text)
    assert str(track) == text
    assert track.name == text.replace(":", "-")
    assert parse_ema_specs(str(track)) == (track,)


WRONG = ["", "x", "power", "power:", "power:0", "power:0.29", "constant:1", "counted:-0.1", "half-life:inf", "nan"]
LISTS = ["1500,", "1500,1500", "power:0.1,power:0.10", "median:3", "power:0.05:2"]


@pytest.mark.parametrize("text", [-1, *WRONG, *LISTS])
def test_what_is_no_track(text):
    assert not EMA_SPECS.holds(text)
    with pytest.raises(ValueError):
        parse_ema_specs(text)
