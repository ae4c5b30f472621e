"""All loggers of a run: one that fails is warned of once, and never stops training."""

import json
import math

import numpy as np
import pytest

from cmtool.commands.console import Console
from cmtool.commands.training.logs import RunLog
from cmtool.errors import WriteFailed
from cmtool.loggers import LoggedRun
from cmtool.loggers.jsonl import jsonl


class Memory:
    """Remembers what it was told, and fails from the n-th call on."""

    def __init__(self, fails_at=math.inf):
        self.told, self.fails_at = [], fails_at

    def log(self, images, values):
        self._tell("log", images, dict(values))

    def draw(self, images, name, picture):
        self._tell("draw", images, name)

    def close(self):
        self._tell("close")

    def _tell(self, *what):
        if len(self.told) >= self.fails_at:
            raise ValueError("no room\x1b[2J")
        self.told.append(what)


def test_one_that_fails_is_left_alone(tmp_path, capsys):
    good, bad, late = Memory(), Memory(1), Memory(3)
    log = RunLog(Console("train-ct"))
    log.own, log.others = jsonl(LoggedRun(tmp_path, "train-ct", {})), {"good": good, "bad": bad, "late": late}
    log.log(1, {"loss": 1.0})
    log.log(2, {"loss": math.nan, "timing/seconds": 3.0})
    log.draw(2, "samples", np.zeros((1, 2, 2), np.uint8))
    log.close()
    log.close()
    assert [told[:2] for told in good.told] == [("log", 1), ("log", 2), ("draw", 2), ("close",)]
    assert math.isnan(good.told[1][2].pop("loss"))
    assert good.told[1][2] == {"timing/seconds": 3.0}
    assert (len(bad.told), len(late.told)) == (1, 3)
    told = capsys.readouterr().err.splitlines()
    assert told == [
        f"cmtool: warning: the logger '{name}' failed and gets no more figures: ValueError: no room\\x1b[2J"
        for name in ("bad", "late")
    ]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [{"images": 1, "loss": 1.0}, {"images": 2, "loss": None}]
    assert json.loads((tmp_path / "timing.jsonl").read_text()) == {"images": 2, "seconds": 3.0}


def test_the_lines_of_the_run_itself_must_be_written(tmp_path):
    log = RunLog(Console("train-ct"))
    log.own = jsonl(LoggedRun(tmp_path / "gone", "train-ct", {}))
    with pytest.raises(WriteFailed):
        log.log(1, {"loss": 1.0})
