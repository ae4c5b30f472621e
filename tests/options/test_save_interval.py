import pytest

from cmtool.options.save_interval import SAVE_INTERVALS, SaveInterval, parse_save_interval


@pytest.mark.parametrize(
    ("text", "seconds", "images"),
    [
        ("10min", 600.0, None),
        ("90s", 90.0, None),
        ("1h", 3600.0, None),
        ("0.5 h", 1800.0, None),
        ("5000img", None, 5000),
        ("50kimg", None, 50_000),
        ("0.5kimg", None, 500),
        ("10min, 50kimg", 600.0, 50_000),
        ("50kimg,90sec", 90.0, 50_000),
    ],
)
def test_times_and_images(text, seconds, images):
    assert parse_save_interval(text) == SaveInterval(seconds, images)
    assert SAVE_INTERVALS.complaint(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10",
        "min",
        "10 minutes",
        "-1s",
        "0s",
        "0img",
        "1.5img",
        "1e3img",
        "10min,1h",
        "5img,5kimg",
        "nan s",
        "9" * 20,
    ],
)
def test_what_is_neither(text):
    with pytest.raises(ValueError, match="is no time"):
        parse_save_interval(text)
    assert "such as 10min" in (SAVE_INTERVALS.complaint(text) or "")


def test_images_count_from_the_beginning_of_the_run():
    every = parse_save_interval("100img")
    assert [n for n in range(32, 400, 32) if every.due(n, 32, 1e9)] == [128, 224, 320]
    assert not parse_save_interval("100img").due(96, 32, 1e9)


def test_time_counts_from_the_last_save():
    every = parse_save_interval("2s,1kimg")
    assert [every.due(32, 32, seconds) for seconds in (0.0, 1.9, 2.0)] == [False, False, True]
