import io
import json
import sys
from pathlib import Path

import pytest

from cmtool.commands.console import Console


class Clock:
    """Time that passes when it is told to."""

    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_results_and_remarks_do_not_mix(capsys):
    console = Console("fid")
    console.say("a remark")
    console.warn("careful")
    console.result({"fid": 3.5}, "FID 3.5")
    assert capsys.readouterr() == ("FID 3.5\n", "a remark\ncmtool: warning: careful\n")


def test_json_is_one_document_with_its_schema(capsys):
    Console("fid", json=True).result({"fid": 3.5, "path": Path("a/b")}, "FID 3.5")
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert json.loads(out) == {"schema": "cmtool.fid/1", "fid": 3.5, "path": "a/b"}


def test_quiet_keeps_results_and_warnings(capsys, clock):
    console = Console("sample", quiet=True, clock=clock)
    console.say("a remark")
    console.warn("careful")
    console.result({}, "samples")
    with console.progress(10, "images", "sample") as track:
        track.update(5)
    assert capsys.readouterr() == ("samples\n", "cmtool: warning: careful\n")


def test_lines_off_a_terminal(capsys, clock):
    with Console("train-ct", clock=clock).progress(1000, "images", "train") as track:
        track.update(0, loss=2.0)
        clock.now += 29
        track.update(100, loss=1.0)  # too soon
        clock.now += 1
        track.update(120, loss=0.123456)
        clock.now += 3600
        track.update(121)  # not one in a hundred more
        clock.now += 10
        track.update(1000, skipped=3)
    assert capsys.readouterr().err.splitlines() == [
        "train  0/1,000 images  loss 2",
        "train  120/1,000 images  loss 0.1235  4 images/s  eta 0:03:40",
        "train  1,000/1,000 images  loss 0.1235  skipped 3  0.2747 images/s  eta 0:00:00",
        "train  1,000/1,000 images  loss 0.1235  skipped 3  0.2747 images/s  in 1:00:40",
    ]


def test_lines_stay_few_however_long_it_takes(capsys, clock):
    with Console("train-ct", clock=clock).progress(36_000, "images", "train") as track:
        for done in range(36_001):
            clock.now += 1
            track.update(done)
    err = capsys.readouterr().err
    assert 90 <= err.count("\n") <= 102
    assert "\r" not in err


def test_rate_and_time_left_count_from_where_a_run_goes_on(capsys, clock):
    with Console("train-ct", clock=clock).progress(1000, "images", "train") as track:
        track.update(500)
        clock.now += 50
        track.update(600)
    first, *_, last = capsys.readouterr().err.splitlines()
    assert first == "train  500/1,000 images"
    assert last == "train  600/1,000 images  2 images/s  in 0:00:50"


def test_nobody_knows_the_total(capsys, clock):
    with Console("fid", clock=clock).progress(None, "images", "features") as track:
        track.update(0)
        clock.now += 31
        track.update(62)
    assert capsys.readouterr().err.splitlines()[1] == "features  62 images  2 images/s"


def test_nothing_done_nothing_said(capsys):
    with Console("fid").progress(10, "images", "features"):
        pass
    assert capsys.readouterr() == ("", "")


def test_a_failure_shows_how_far_it_came(capsys, clock):
    with pytest.raises(KeyboardInterrupt), Console("fid", clock=clock).progress(10, "images", "f") as track:
        track.update(0)
        clock.now += 1
        track.update(4)
        raise KeyboardInterrupt
    assert capsys.readouterr().err.splitlines()[-1] == "f  4/10 images  4 images/s  in 0:00:01"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_on_a_terminal_one_line_is_written_over(monkeypatch, clock, capsys):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    out = sys.stdout
    console = Console("train-ct", clock=clock)
    with console.progress(100, "images", "train") as track:
        assert sys.stdout is out  # it may carry images
        for done in range(101):
            clock.now += 0.0625
            track.update(done, loss=1.0, remark="long " * 20)
        console.say("in between")
    shown = terminal.getvalue()
    assert 50 <= shown.count("train  ") <= 54  # at most ten a second
    assert "in between" in shown
    assert "100/100 images" in shown
    assert shown.count("\n") <= 2  # the remark, and the end of the last line
    assert sys.stderr is terminal
    assert capsys.readouterr().out == ""


def test_a_dumb_terminal_gets_lines(monkeypatch, clock):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "dumb")
    with Console("train-ct", clock=clock).progress(100, "images", "train") as track:
        track.update(1)
    assert terminal.getvalue() == "train  1/100 images\ntrain  1/100 images  in 0:00:00\n"


FORGED = "a\n\x1b]0;title\x07\x9b2J\u202egnp.exe\u2066\u200bb\rc\x7f"


def test_no_text_commands_the_terminal(capsys, clock):
    shown = r"a\n\x1b]0;title\x07\x9b2J\u202egnp.exe\u2066\u200bb\rc\x7f"
    console = Console("info", clock=clock)
    console.say(FORGED)
    console.warn(FORGED)
    with console.progress(10, "images", FORGED) as track:
        track.update(5, of=FORGED)
    lines = capsys.readouterr().err.split("\n")
    assert lines[:2] == [shown, f"cmtool: warning: {shown}"]
    assert [line.count(shown) for line in lines[2:]] == [2, 2, 0]
    console.result({}, f"naïve 猫 →\n{FORGED}")
    assert capsys.readouterr().out == "naïve 猫 →\n" + shown.replace(r"\n", "\n") + "\n"
