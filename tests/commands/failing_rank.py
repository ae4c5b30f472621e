"""cmtool, whose rank ``$FAILING_RANK`` meets an error at its fourth step: ``python failing_rank.py COMMAND ...``."""

import os
import sys

from cmtool.__main__ import main
from cmtool.commands.training.training_run import TrainingRun
from cmtool.errors import BadFile
from cmtool.pipelines.launcher import find_world


def failing(step):
    steps = []

    def wrapped(*given):
        steps.append(given)
        if len(steps) == 4:
            raise (
                BadFile("a picture of this rank is damaged", "mend it") if os.environ["FAILING"] == "ours" else OSError
            )
        return step(*given)

    return wrapped


if __name__ == "__main__":
    if str(find_world().rank) == os.environ["FAILING_RANK"]:
        TrainingRun.step = failing(TrainingRun.step)
    sys.argv[0] = "cmtool"
    main()
