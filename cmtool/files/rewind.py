"""Taking back what a run wrote after the state that it goes on from, and what a killed writer left.

A run writes lines, averages and sample grids before the state of the same step, and the checkpoint after it. So
whatever is beyond the state was written by steps that are to come again, and comes again with the same bits.
"""

import json
import re
from pathlib import Path

from cmtool.errors import check_regular, report_damage
from cmtool.files.atomic import sweep, write_bytes, write_file
from cmtool.files.best_checkpoint import rewind_best
from cmtool.files.run_states import STATES, drop_states_beyond
from cmtool.files.runs import AVERAGES, METRICS, SAMPLES, TIMING

__all__ = ["rewind", "rewind_lines"]


def rewind(folder: Path, images: int) -> None:
    """Make a run that of which ``images`` have been seen; its checkpoints as they are now are the caller's to write.

    BadFile where a line of ``metrics.jsonl`` is none.
    """
    rewind_lines(folder / METRICS, images)
    rewind_lines(folder / TIMING, images)
    for place in (STATES, AVERAGES, SAMPLES):
        sweep(folder / place)
    _drop_beyond(folder / AVERAGES, r"power-.+-(\d{8,})\.safetensors", images)
    _drop_beyond(folder / SAMPLES, r"(\d{8,})\.png", images)
    rewind_best(folder, images)
    drop_states_beyond(folder, images)


def rewind_lines(path: Path, images: int) -> None:
    """Drop the lines beyond ``images``, and half a line of a writer that was killed; BadFile for one that is none."""
    if not path.exists():
        return
    check_regular(path)
    lines = path.read_bytes().splitlines(keepends=True)
    kept = []
    for number, line in enumerate(lines, 1):
        with report_damage(f"{path}, line {number},", hint="mend the line, or take it out"):
            if line.endswith(b"\n") and json.loads(line)["images"] <= images:
                kept.append(line)
    if kept != lines:
        write_bytes(path, b"".join(kept))


def _drop_beyond(folder: Path, pattern: str, images: int) -> None:
    for path in folder.glob("*"):
        found = re.fullmatch(pattern, path.name)
        if found and int(found[1]) > images:
            with write_file(path):
                path.unlink(missing_ok=True)
