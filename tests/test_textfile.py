"""Small text files as people and Windows write them, and what is none."""

import os

import pytest

from cmtool.cli import run
from cmtool.errors import BadFile, MissingInput, UsageError
from cmtool.text_files import read_text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_marks_and_ends_of_lines_of_windows(tmp_path, encoding):
    (tmp_path / "a").write_bytes("steps: 3\r\nname: é\r\n".encode(encoding))
    assert read_text(tmp_path / "a", 100, "") == "steps: 3\nname: é\n"


def test_what_is_no_text(tmp_path):
    (tmp_path / "binary").write_bytes(b"a: \xff\xfe")
    (tmp_path / "large").write_bytes(b"x" * 101)
    os.mkfifo(tmp_path / "pipe")
    for name, kind in {
        "binary": UsageError, "large": UsageError, ".": UsageError, "pipe": BadFile, "none": MissingInput,
        "binary/x": MissingInput, "a\0b": MissingInput, "n" * 300: MissingInput,
    }.items():  # fmt: skip
        with pytest.raises(kind):
            read_text(tmp_path / name, 100, "a hint")


@pytest.mark.parametrize("words", [["--config", "pipe"], ["--config", "/dev/zero"], ["--model", "pipe"]])
def test_no_command_waits_for_a_pipe(tmp_path, monkeypatch, words, capsys):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    assert run(["sample", *words, "-o", "made"]) == 65
    assert "is a pipe or a device, not a file" in capsys.readouterr().err
