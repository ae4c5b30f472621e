"""``status``: how a run stands, from its ``status.json``, without a word of torch."""

import json
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from cmtool.commands.console import Console
from cmtool.errors import MissingInput
from cmtool.files.runs import METRICS, read_status
from cmtool.settings import StatusOptions

__all__ = ["run"]

TAIL = 1 << 16  # bytes at the end of metrics.jsonl in which its last line is


def run(options: StatusOptions, console: Console) -> None:
    """Print the status of a run: the document with --json, the state alone with --state, else lines for people."""
    if not options.run.exists():
        raise MissingInput(f"there is no run {options.run}", "a run is the folder that training made")
    status = read_status(options.run)
    metrics = last_metrics(options.run)
    document = {"run": str(options.run), **status, "metrics": metrics}
    console.result(document, status["state"] if options.state else "\n".join(lines(status, metrics)))


def lines(status: Mapping[str, Any], metrics: Mapping[str, Any]) -> list[str]:
    """``images: 1,200 of 36,000`` and so on: whatever a status holds, known or not."""
    shown = dict(status)
    images, total = shown.pop("images", 0), shown.pop("total", None)
    share = f" of {total:,} ({images / total:.0%})" if isinstance(total, int) and total > 0 else ""
    first = {"state": shown.pop("state"), "images": f"{images:,}{share}", "updated": _since(shown.pop("updated"))}
    figures = {"last metrics": _words(metrics)} if metrics else {}
    rest = {key.replace("_", " "): _words(value) for key, value in shown.items() if value not in (None, "", {})}
    return [f"{key}: {value}" for key, value in {**first, **rest, **figures}.items()]


def last_metrics(folder: Path) -> dict[str, Any]:
    """The last whole line of ``metrics.jsonl`` about a step, not an evaluation; empty where there is none yet."""
    path = folder / METRICS
    if not path.is_file():
        return {}
    with path.open("rb") as file:
        file.seek(-min(TAIL, path.stat().st_size), 2)
        whole = [line for line in file.read().splitlines(keepends=True) if line.endswith(b"\n")]
    try:
        found = [json.loads(line) for line in whole[-2:]]  # two evaluations in a row there are not
    except ValueError:  # it was damaged; the run itself says so when it goes on
        return {}
    steps = [line for line in found if isinstance(line, dict) and not any(key.startswith("eval/") for key in line)]
    return steps[-1] if steps else {}


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_words(each)}" for key, each in value.items())
    if isinstance(value, float):
        return f"{value:.5g}"
    return f"{value:,}" if type(value) is int else str(value)


def _since(updated: str) -> str:
    """A moment, and how long ago that was."""
    try:
        seconds = max(0, round(time.time() - datetime.fromisoformat(updated).timestamp()))
    except ValueError:
        return updated
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{updated}, {seconds // size} {unit} ago"
    return f"{updated}, {seconds} s ago"
