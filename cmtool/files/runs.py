"""Run directories: one folder a training run, written by one process at a time, and the EMAs it keeps.

    runs/COMMAND/DATE-DATA-HEX/
      config.yaml        the resolved options
      status.json        {"state": "running" | "finished" | "interrupted" | "preempted" | "failed", "images", "updated"}
      metrics.jsonl      one JSON object a line; the same whenever and wherever the run was stopped
      timing.jsonl       how fast it was, likewise
      model.safetensors  the checkpoint
      best.safetensors   the best of all models that were measured in training (files/best_checkpoint.py)
      eval-ref.npz       the statistics that they are compared with
      states/            what the run goes on from (files/run_states.py)
      ema/               checkpoints of further averages, and snapshots of power-function EMAs
      samples/           sample grids drawn during training

All but the two ``.jsonl`` are replaced as a whole: a killed run leaves the old file or the new one. They are written in
an order in which what is newer than the newest state can be taken back: files/rewind.py.

Below ema/ stand

    NAME.safetensors            a further EMA as it is now, such as half-life-6000
    NAME-00012000.safetensors   a power EMA as it was at 12,000 images
"""

import contextlib
import json
import os
import re
import secrets
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from cmtool.errors import (
    BadFile,
    Hint,
    MissingInput,
    Setting,
    UsageError,
    WriteFailed,
    check_regular,
    closest,
    report_damage,
)
from cmtool.files.atomic import make_folder, sweep, take_lock, write_bytes, write_file
from cmtool.files.header import Header, read_header
from cmtool.text_files import dump_json

__all__ = [
    "append",
    "average_path",
    "create",
    "latest_checkpoint",
    "locked",
    "read_status",
    "stored_averages",
    "write_status",
]


ROOT = Path("runs")
LARGEST = 1 << 20  # bytes of a status
CHECKPOINT, STATUS, LOCK = "model.safetensors", "status.json", ".lock"
METRICS, TIMING, AVERAGES, SAMPLES = "metrics.jsonl", "timing.jsonl", "ema", "samples"
PATTERNS = (f"runs/*/*/{STATUS}", f"runs/*/{STATUS}", f"*/{STATUS}")  # the last two: where users said --run-dir


def create(run: str | Path | None, command: str, slug: str, root: Path = ROOT) -> Path:
    """A new run directory: ``run``, or ``root/command/YYYYMMDD-HHMMSS-slug-hhhh`` without one.

    UsageError when ``run`` has something in it; WriteFailed when it cannot be made.
    """
    if run is not None:
        folder = make_folder(run)
        if any(entry.name != LOCK for entry in folder.iterdir()):
            raise UsageError(
                f"{folder} is not empty",
                Hint("choose another {}: no run of this command goes on there", Setting("run_dir")),
            )
        return folder
    parent, slug = make_folder(root / command), re.sub(r"[^\w.-]+", "-", slug)
    while (folder := parent / f"{time.strftime('%Y%m%d-%H%M%S')}-{slug}-{secrets.token_hex(2)}").exists():
        continue
    return make_folder(folder)


@contextlib.contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Be the only process that writes to a run; the system lets go of the lock when the process dies.

    MissingInput when there is no such run; UsageError with process and host when another one holds it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise MissingInput(f"there is no run {folder}", _nearby(folder))
    with write_file(folder):
        file = (folder / LOCK).open("a+", encoding="utf-8", newline="\n")
    with file:
        _acquire(folder, file)
        sweep(folder)
        yield


def write_status(folder: str | Path, state: str, **facts: Any) -> None:
    """Say how a run stands, in ``status.json``; written whole, with the time."""
    document = {"state": state, **facts, "updated": datetime.now(UTC).isoformat(timespec="microseconds")}
    write_bytes(Path(folder) / STATUS, dump_json(document, indent=2).encode() + b"\n")


def read_status(folder: str | Path) -> dict[str, Any]:
    """What ``write_status`` wrote; MissingInput when the folder is no run, BadFile when the file is damaged."""
    path = Path(folder) / STATUS
    try:
        check_regular(path)
        with path.open("rb") as file:
            text = file.read(LARGEST + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise MissingInput(f"{folder} is not a run: it has no {STATUS}") from None
    with report_damage(path):
        found = json.loads(text if len(text) <= LARGEST else b"")
    counts = isinstance(found, dict) and [found.get(key, 0) for key in ("images", "skipped")]
    if not counts or not all(type(n) is int and 0 <= n < 1 << 63 for n in counts):
        raise BadFile(f"{path} is damaged")
    if not isinstance(found.get("updated"), str) or not isinstance(found.get("state"), str):
        raise BadFile(f"{path} is damaged")
    return found


def append(folder: str | Path, record: dict[str, Any], name: str = METRICS) -> None:
    """Add a line to ``metrics.jsonl``; a number that is not finite becomes null, which JSON can hold."""
    path = Path(folder) / name
    with write_file(path), path.open("a", encoding="utf-8", newline="\n") as file:
        file.write(dump_json(record) + "\n")


def latest_checkpoint(folder: Path = Path()) -> Path | None:
    """The checkpoint of the run below ``folder`` that finished last, or None."""
    finished = []
    for path in (found for pattern in PATTERNS for found in folder.glob(pattern)):
        with contextlib.suppress(BadFile, MissingInput, OSError):
            status, checkpoint = read_status(path.parent), path.parent / CHECKPOINT
            if status.get("state") == "finished" and checkpoint.is_file():
                finished.append((status["updated"], checkpoint))
    return max(finished)[1] if finished else None


def _acquire(folder: Path, file: TextIO) -> None:
    try:
        take_lock(file)
    except BlockingIOError:
        raise UsageError(
            f"{folder} is being written by {_holder(file)}", "wait until it has ended, or stop it"
        ) from None
    except OSError as error:
        raise WriteFailed(f"cannot lock {folder}: {error.strerror}", "choose another place for the run") from error
    file.truncate(0)
    file.write(f" process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()


def _holder(file: TextIO) -> str:
    """Who holds the lock, as it has written there; Windows lets nobody else read the first byte."""
    for place in (0, 1):
        with contextlib.suppress(OSError):
            file.seek(place)
            return file.read().strip() or "another process"
    return "another process"


def _nearby(folder: Path) -> str | None:
    names = os.listdir(folder.parent) if folder.parent.is_dir() else []
    near = closest(folder.name, names)
    return f"did you mean {folder.parent / near}?" if near else None


def average_path(folder: Path, name: str, images: int | None = None) -> Path:
    """The file of an average, as it is now or as it was at ``images``."""
    at = "" if images is None else f"-{images:08d}"
    return folder / AVERAGES / f"{name}{at}.safetensors"


def stored_averages(folder: Path) -> list[tuple[Path, Header]]:
    """Every average of a run with its header, the run's own checkpoint first; BadFile when a header is damaged."""
    paths = [folder / CHECKPOINT, *sorted((folder / AVERAGES).glob("*.safetensors"))]
    return [(path, read_header(path)) for path in paths]
