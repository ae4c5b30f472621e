"""One place where a broken file becomes a sentence, and one where text of files becomes printable."""

import os
from pathlib import Path

import pytest

from cmtool.errors import BadFile, Hint, Run, Setting, UsageError, check_regular, printable, report_damage
from cmtool.options.hint_words import word_hint


@pytest.mark.parametrize(
    "kind", [KeyError, OverflowError, RecursionError, MemoryError, UnicodeError, ZeroDivisionError]
)
def test_whatever_a_parser_raises_is_a_bad_file(kind):
    with pytest.raises(BadFile) as caught, report_damage(Path("a.pt"), "is no network", "get it again"):
        raise kind("odd\nvalue")
    assert caught.value.message.startswith(f"a.pt is no network: {kind.__name__}, ")
    assert "\n" not in caught.value.message
    assert (caught.value.code, caught.value.hint) == (65, "get it again")


def test_our_own_errors_and_memory_that_is_gone_pass():
    with pytest.raises(UsageError, match="a hint"), report_damage("a"):
        raise UsageError("a hint")
    with pytest.raises(RuntimeError), report_damage("a"):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;x\x07", "\\x1b]0;x\\x07"),
        ("a\r\nb\tc", "a\\r\\nb\\tc"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\x9b31m", "\\x9b31m"),
        ("\udcff", "\\udcff"),
        ("Łódź 画像 🙂", "Łódź 画像 🙂"),
        (3, "3"),
    ],
)
def test_text_of_a_file_commands_no_terminal(text, shown):
    assert printable(text) == shown


def test_pipes_and_devices_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(BadFile, match="is a pipe or a device, not a file"):
            check_regular(path)
    (tmp_path / "a").touch()
    for path in (tmp_path / "a", tmp_path, tmp_path / "nowhere", "a\0b"):
        check_regular(path)


def test_a_hint_is_worded_for_programs_and_for_the_command_line():
    fetch = Run("fetch", "vgg16", folder=Path("my files"))
    hint = Hint("{}, or {}; leave out {}", fetch, Setting("backbone.head_width", 64), Setting("micro_batch"))
    assert str(hint) == "cmtool fetch vgg16 folder=my files, or backbone.head_width=64; leave out micro_batch"
    assert word_hint(hint) == (
        "cmtool fetch vgg16 --folder 'my files', or --set backbone.head_width=64; leave out --micro-batch"
    )
    every = Hint.join([Setting("overwrite", True), Setting("conditional", False), Setting("format.ema", False)])
    assert word_hint(every) == "--overwrite --no-conditional --set format.ema=false"
    assert word_hint("wait {}") == "wait {}"


def test_settings_that_the_command_line_has_no_value_for():
    assert [word_hint(Setting(key)) for key in ("n", "format.kind")] == ["-n", "--set format.kind"]
    assert word_hint(Setting("data.labels", None)) == "--set data.labels=null"


def test_a_sentence_may_name_options_too():
    error = UsageError(Hint("{} does nothing at weight 1", Setting("guidance_interval")))
    assert error.message == str(error) == "guidance_interval does nothing at weight 1"
    assert word_hint(error.sentence) == "--guidance-interval does nothing at weight 1"
