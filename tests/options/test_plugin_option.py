"""Options as a signature declares them, and what a wrong value is told."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import pytest

from cmtool.errors import UsageError
from cmtool.options.plugin_option import REQUIRED, Option, default_text, options_of, parse_option, unknown_option
from cmtool.options.types import at_least, between

if TYPE_CHECKING:
    from collections import OrderedDict

Share = Annotated[float, Option("share of the steps", between(0, 1))]


def declared(
    a,
    *,
    share: Share = 0.5,
    count: Annotated[int | None, Option("how many", at_least(1))] = None,
    maybe: Share | None = None,
    weight: Annotated[str, Option("weight of a pair", choices=("gap", "output"))] = "gap",
    place: Path,
    bare=3,
):
    """Everything that a signature can say."""


def odd(*, names: OrderedDict[str, int] | None = None, share: Share = 0.5):
    """A name that only type checkers see."""


def test_a_signature_is_the_schema():
    found = options_of(declared)
    assert list(found) == ["share", "count", "maybe", "weight", "place", "bare"]
    assert [o.help for o in found.values()] == [
        *("share of the steps", "how many", "share of the steps", "weight of a pair", "", "")
    ]
    assert [o.type for o in found.values()] == ["number", "integer|none", "number|none", "text", "path", ""]
    assert [o.limits for o in found.values()] == ["from 0 to 1", "at least 1", "from 0 to 1", "gap, output", "", ""]
    assert [o.required for o in found.values()] == [False, False, False, False, True, False]


def test_annotations_that_cannot_be_read_are_as_good_as_none():
    assert [(o.name, o.kind, o.default) for o in options_of(odd).values()] == [
        ("names", None, None),
        ("share", None, 0.5),
    ]


@pytest.mark.parametrize(
    ("name", "value", "parsed"),
    [
        ("share", "0.25", 0.25),
        ("count", "none", None),
        ("count", 3.0, 3),
        ("maybe", None, None),
        ("weight", "output", "output"),
        ("bare", [1, 2], [1, 2]),
    ],
)
def test_a_value_becomes_the_type_of_its_option(name, value, parsed):
    assert parse_option(options_of(declared)[name], "it", value) == parsed


@pytest.mark.parametrize(
    ("name", "value", "sentence", "hint"),
    [
        ("share", "much", "it must be a number, not 'much'", "share: share of the steps [0.5]"),
        ("share", 2, "it must be from 0 to 1, not 2", "share: share of the steps [0.5]"),
        ("maybe", -1, "it must be from 0 to 1, not -1", "maybe: share of the steps"),
        ("count", 0, "it must be at least 1, not 0", "count: how many"),
        ("weight", "outptu", "unknown value of it 'outptu'", "did you mean 'output'?"),
        ("weight", "x", "unknown value of it 'x'", "there are: gap, output"),
    ],
)
def test_a_wrong_value_is_told_what_it_must_be(name, value, sentence, hint):
    with pytest.raises(UsageError) as caught:
        parse_option(options_of(declared)[name], "it", value)
    assert (caught.value.message, caught.value.hint) == (sentence, hint)


def test_a_wrong_name_is_told_all_there_are():
    error = unknown_option("solver 'x'", "shar", options_of(declared))
    assert error.message == "unknown option of solver 'x' 'shar'"
    listed = "share=0.5, count=none, maybe=none, weight=gap, place=required, bare=3"
    assert error.hint == f"did you mean 'share'? it has {listed}"
    assert unknown_option("solver 'x'", "zzzz", options_of(declared)).hint == f"it has {listed}"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((REQUIRED, "required"), (None, "none"), (True, "true"), (2.0, "2"), (1e-05, "1e-05"), (float("inf"), "inf")),
        *(((0.9, 0.99), "0.9,0.99"), ([1, 2.0], "1,2"), ("gap", "gap"), (7, "7")),
    ],
)
def test_defaults_are_shown_as_they_would_be_written(value, text):
    assert default_text(value) == text
