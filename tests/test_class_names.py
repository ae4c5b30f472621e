"""Classes of two lists, matched by name, else by number."""

import pytest

from cmtool.class_names import are_numbers, known_names, match_classes, some_names
from cmtool.errors import UsageError

ANIMALS = ("cat", "dog", "owl")


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        (ANIMALS, ANIMALS, [0, 1, 2]),
        (("owl", "cat", "dog"), ANIMALS, [2, 0, 1]),
        (("dog",), ANIMALS, [1]),
        (("Dog", "OWL "), ANIMALS, [1, 2]),
        (("ice cream", "e\u0301te\u0301"), ("\u00e9t\u00e9", "ice_cream"), [1, 0]),
        (("cat", "Cat"), ("Cat", "cat"), [1, 0]),
        (("2", "7"), ("0", "1", "2", "3", "4", "5", "6", "7"), [2, 7]),
        (("7", "2"), ("2", "7"), [1, 0]),
        (("00000", "00002"), ANIMALS, [0, 2]),
        (("class 1", "class 0"), ANIMALS, [1, 0]),
        (("10", "9"), ("class 9", "class 10"), [1, 0]),
        (ANIMALS, ("0", "1", "2"), [0, 1, 2]),
        ((), ANIMALS, []),
        (("crane", "maillot", "crane"), ("crane", "maillot", "crane"), [0, 1, 2]),
    ],
)
def test_names_come_first_and_numbers_second(ours, theirs, expected):
    assert match_classes(ours, theirs) == expected


@pytest.mark.parametrize(
    ("ours", "theirs", "missing"),
    [
        (("alpha", "beta", "gamma"), ANIMALS, "knows no alpha, beta, gamma"),
        (("cat", "fox"), ANIMALS, "knows no fox"),
        (("1", "2", "3"), ANIMALS, "knows no 3"),
        (("1", "10"), ("0", "1"), "knows no 10"),
        (("cat", "dog"), ("0", "1", "2"), "2 classes and the model 3 without names"),
        (("crane", "egret"), ("crane", "egret", "crane"), "knows no crane"),
        (("cat", "CAT"), ANIMALS, "cat, CAT of the data are one class of the model"),
        (("0", "00"), ("0", "1"), "0, 00 of the data are one class"),
        (("cat",), (), "which is which"),
    ],
)
def test_what_the_other_side_lacks_is_named(ours, theirs, missing):
    with pytest.raises(UsageError) as caught:
        match_classes(ours, theirs)
    assert missing in caught.value.message


def test_a_part_of_the_names_can_be_enough():
    assert match_classes(("cat", "fox", "owl"), ANIMALS, partial=True) == [0, None, 2]
    with pytest.raises(UsageError, match="this and that have different classes: that knows no fox"):
        match_classes(("fox",), ANIMALS, "this", "that", partial=True)


def test_numbers_are_no_names():
    assert are_numbers(("0", "00012", "class 3", "Label_4"))
    assert not are_numbers(("0", "cat"))
    assert known_names(ANIMALS, 3) == ANIMALS
    assert known_names((), 2) == known_names(ANIMALS, 2) == ("0", "1")


def test_lists_of_names_are_short_and_safe_to_show():
    assert some_names(tuple("abcdefgh"), 3) == "a, b, c, ..."
    assert some_names(("a\x1b[2J",)) == r"a\x1b[2J"
