import random
from pathlib import Path

import pytest

from cmtool.options.coerce import coerce, type_words
from cmtool.options.types import (
    LARGEST_SEED,
    Check,
    Expected,
    Seeds,
    Spec,
    above,
    at_least,
    at_least_or,
    between,
    descending,
    matches,
    part_of,
    positive,
    span,
)

FITS = [
    (int, "3", 3),
    (int, "-3", -3),
    (int, "1e6", 1_000_000),
    (int, "200_000", 200_000),
    (int, 4.0, 4),
    (int, "9007199254740993", 2**53 + 1),  # a float would lose the last digit
    (float, "1e-3", 0.001),
    (float, 2, 2.0),
    (bool, "yes", True),
    (bool, False, False),
    (bool, "OFF", False),
    (str, 7, "7"),
    (Path, "a/b", Path("a/b")),
    (int | None, "none", None),
    (int | None, None, None),
    (int | None, "5", 5),
    (int | str | None, "7", 7),
    (int | str | None, "dog", "dog"),
    (int | str | None, "-1", -1),
    (tuple[float, ...], "80,0.5", (80.0, 0.5)),
    (tuple[float, ...] | None, "[80, 0.5]", (80.0, 0.5)),
    (tuple[int, ...], [1, 2], (1, 2)),
    (tuple[int, ...], 3, (3,)),
    (Spec, "unet", Spec(name="unet")),
    (Spec, {"name": "unet", "attention-levels": [1]}, Spec(name="unet", attention_levels=[1])),
    (Seeds | None, "0-3", Seeds([range(4)])),
]
MISFITS = [
    (int, "3.5", "a whole number"),
    (int, "abc", "a whole number"),
    (int, True, "a whole number"),
    (int, "inf", "a whole number"),
    (int, "1e400", "a whole number"),
    (int, [1], "a whole number"),
    (int, "", "a whole number"),
    (int | None, "x", "a whole number"),
    (float, "nan", "a number"),
    (float, True, "a number"),
    (float, 10**400, "a number"),
    (bool, "maybe", "true or false"),
    (bool, 2, "true or false"),
    (str, ["a"], "text"),
    (Path, "", "a path"),
    (Path, "a\0b", "a path"),
    (tuple[float, ...], "80,x", "a number"),
    (Spec, 3, "a name or a mapping of options"),
    (Spec, "", "a name or a mapping of options"),
    (Spec, {1: 2}, "a name or a mapping of options"),
    (Spec, {"name": 5}, "a name or a mapping of options, with a word for its name"),
    (Spec, {"name": ["adam"]}, "a name or a mapping of options, with a word for its name"),
    (Spec, {"width": [1, 10**5000]}, "a name or a mapping of options, with numbers below 2^63"),
]


@pytest.mark.parametrize(("kind", "value", "wanted"), FITS)
def test_what_fits(kind, value, wanted):
    found = coerce(kind, value)
    assert (type(found), found) == (type(wanted), wanted)


@pytest.mark.parametrize(("kind", "value", "words"), MISFITS)
def test_what_does_not_fit_is_told_in_words(kind, value, words):
    with pytest.raises(Expected) as caught:
        coerce(kind, value)
    assert str(caught.value) == words


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (at_least(1), 1, 0),
        (at_least(1), (1, 2), (1, 0)),
        (positive(), 1e-9, 0),
        (above(1), (1.5, 2), (1, 2)),
        (between(0, 1), 1, 1.01),
        (descending(), (80.0, 0.5), (0.5, 80.0)),
        (span(), (0.0, 5.0), (5.0, 0.0)),
        (span(), (0.2, 5.0), (0.2,)),
        (span(), (0.2, 5.0), (-1.0, 5.0)),
        (span(), (0.2, 5.0), (0.2, 1.0, 5.0)),
        (descending(), (1.0,), (1.0, 1.0)),
        (descending(), (2.0, 1.0), (1.0, 0.0)),
        (descending(), (1.0,), ()),
        (matches("cuda(:[0-9])?", "a device"), "cuda:1", "cuda:1x"),
    ],
)
def test_checks(check: Check, good, bad):
    assert check.holds(good)
    assert not check.holds(bad)


def test_seeds_are_what_they_stand_for():
    draw = random.Random(0)
    for _ in range(200):
        ends = sorted(draw.sample(range(1000), 2 * draw.randint(1, 5)))
        pairs = list(zip(ends[::2], ends[1::2], strict=True))
        draw.shuffle(pairs)
        listed = [seed for low, high in pairs for seed in range(low, high + 1)]
        seeds = Seeds.parse(", ".join(f"{low}-{high}" for low, high in pairs))
        assert list(seeds) == listed == [seeds[i] for i in range(len(seeds))]
        assert (len(seeds), seeds[-1], seeds[3:-2:2]) == (len(listed), listed[-1], listed[3:-2:2])
        assert Seeds.parse(str(seeds)) == seeds
        assert 1000 not in seeds


def test_seeds_are_lazy():
    seeds = Seeds.parse(f"{LARGEST_SEED - 10**12 + 1}-{LARGEST_SEED}")
    assert (len(seeds), seeds[-1]) == (10**12, LARGEST_SEED)


@pytest.mark.parametrize(
    "text", ["", "a", "-1", "5-3", "1,,2", "1-", "1,1", "0-5,3", "5,0-9", "1.5", str(2**63), "0-1-2"]
)
def test_what_seeds_cannot_be(text):
    with pytest.raises(Expected, match=r"^seeds "):
        Seeds.parse(text)


def test_seeds_know_the_end():
    with pytest.raises(IndexError):
        Seeds.parse("3-4")[2]


@pytest.mark.parametrize("text", ["9" * 30, "9" * 5000, "1e30", str(2**63), "-" + "9" * 20, "1e999", "nan"])
def test_no_whole_number_is_beyond_all_bounds(text):
    with pytest.raises(Expected, match="a whole number"):
        coerce(int, text)


def test_what_the_work_can_bear():
    assert at_least(1, 100).complaint(101) == "at most 100"
    assert at_least(1, 100).complaint((1, 100)) is None
    assert at_least(1).complaint(0) == "at least 1"
    assert part_of().complaint("1/999999999") and part_of().complaint("3/8") is None
    assert at_least_or(1, "auto").complaint(10**9) and at_least_or(1, "auto").complaint("auto") is None


@pytest.mark.parametrize("text", ["0-9223372036854775807", "0-9999999999999999999999", "9" * 50, "0-" + "9" * 5000])
def test_seeds_beyond_all_bounds(text):
    with pytest.raises(Expected):
        Seeds.parse(text)


def test_a_home_of_nobody_is_a_path():
    assert str(coerce(Path, "~nobody-of-this-name/x")) == "~nobody-of-this-name/x"


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        *((bool, "true|false"), (int, "integer"), (float, "number"), (str, "text"), (Path, "path"), (bytes, "")),
        *((float | None, "number|none"), (int | str, "integer|text"), (tuple[float, ...], "numbers"), (None, "")),
        (dict[str, int] | None, ""),
    ],
)
def test_types_in_a_word(kind, words):
    assert type_words(kind) == words
