import math
import time

import pytest

from cmtool.errors import UsageError
from cmtool.options.yaml_files import parse_value, parse_yaml, write_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("1e-3", 1e-3),
        ("1E5", 1e5),
        (".5", 0.5),
        ("-.inf", -math.inf),
        ("010", "010"),
        ("1:30", "1:30"),
        ("0::2", "0::2"),
        ("2026-01-31", "2026-01-31"),
        ("true", True),
        ("~", None),
        ("", None),
        ("[1, 2e-3, a]", [1, 2e-3, "a"]),
        ("{a: {b: 1}}", {"a": {"b": 1}}),
        ("1.2.3", "1.2.3"),
    ],
)
def test_values_mean_what_they_look_like(text, value):
    found = parse_value(text, "--set")
    assert (type(found), found) == (type(value), value)


def test_lines_are_those_of_the_keys():
    entries = parse_yaml("# a remark\nsteps: 3\n\nbackbone:\n  width: 4\nn: 5\n", "a.yaml")
    assert {key: entry.line for key, entry in entries.items()} == {"steps": 2, "backbone": 4, "n": 6}
    assert entries["backbone"].value == {"width": 4}


def test_an_empty_file_says_nothing():
    assert parse_yaml("# nothing\n", "a.yaml") == {}


def test_aliases_are_allowed():
    assert parse_yaml("a: &x [1, 2]\nb: *x\n", "a.yaml")["b"].value == [1, 2]


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BOMB, "a.yaml holds more values than any option file, counting aliases"),
        ("a: &a [*a]", "a.yaml holds more values than any option file, counting aliases"),
        ("a: " + "[" * 5000, "a.yaml is nested too deeply"),
        ("a: " + "x" * 250_001, "a.yaml is larger than 250 kB, which no option file is"),
        ("- a\n- b\n", "a.yaml is not a mapping of options"),
        ("steps: 3\nn: [1\n", "a.yaml, line 3 is not YAML: expected ',' or ']', but got '<stream end>'"),
        ("n: 1\nn: 2\n", "'n' in a.yaml, line 2 was given before, in line 1"),
        ("a: 1\n--- \nb: 2\n", "a.yaml, line 2 is not YAML: but found another document"),
    ],
)
def test_hostile_text_is_refused_in_a_sentence(text, words):
    with pytest.raises(UsageError) as caught:
        parse_yaml(text, "a.yaml")
    assert caught.value.message == words


def test_a_bomb_of_aliases_is_not_unfolded():
    start = time.process_time()
    with pytest.raises(UsageError):
        parse_yaml(BOMB, "a.yaml")
    assert time.process_time() - start < 1


def test_nothing_is_executed(tmp_path):
    canary = tmp_path / "canary"
    for tag in ("apply:os.mkdir", "object/apply:os.mkdir", "object/new:os.mkdir"):
        with pytest.raises(UsageError, match="line 1 is not YAML"):
            parse_yaml(f"a: !!python/{tag} ['{canary}']", "a.yaml")
    assert not canary.exists()


@pytest.mark.parametrize("unicode", [False, True])
def test_what_is_written_is_read_back(unicode):
    texts = ["1e-3", "010", "1:30", "2026-01-31", "yes", "null", "~", "", "a: b", "- x", "naïve", "#", "0x1F", "1_000"]
    rest = [None, True, {"a": []}]
    document = {"texts": texts, "floats": [1e-05, 1e300, 0.1, 3.0], "ints": [0, -3, 2**70], "rest": rest}
    assert {key: entry.value for key, entry in parse_yaml(write_yaml(document, unicode), "a.yaml").items()} == document
    assert unicode or write_yaml(document).isascii()


@pytest.mark.parametrize(
    "value",
    [
        *("!!bool maybe", '!!int ""', "!!int x", "!!float x", "!!timestamp soon", "!!binary x"),
        *("!!set {a}", "!!omap [a]"),
        *("!!python/name:os.system", "!x y", "9" * 5000, "[1, " + "9" * 5000 + "]", "{? [a] : b}", "*x"),
        *("\x1b", "&a [*a]", "'", "[", "{a: b", "- a", "!!map [1]", "!!seq {a: 1}", "!!str [1]", "!!int [1]"),
    ],
)
def test_what_is_no_value_is_one_sentence_with_its_place(value):
    for read in (lambda: parse_yaml(f"a: 1\nb: {value}\n", "a.yaml"), lambda: parse_value(value, "--set b")):
        with pytest.raises(UsageError) as caught:
            read()
        assert "a.yaml" in caught.value.message or "--set b" in caught.value.message


def test_the_line_of_a_value_that_cannot_be():
    with pytest.raises(UsageError, match=r"'b' in a\.yaml, line 3 holds a value that cannot be"):
        parse_yaml("# x\na: 1\nb: !!bool maybe\n", "a.yaml")


def test_large_files_take_seconds():
    began = time.process_time()
    parse_yaml("a: [" + "1," * 40_000 + "1]", "a.yaml")
    assert time.process_time() - began < 10
