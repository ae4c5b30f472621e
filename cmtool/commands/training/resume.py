"""Taking up a run: what may have changed since it began, and what may not."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Any, TypeVar

from cmtool.class_names import some_names
from cmtool.errors import MissingInput, UsageError, report_damage
from cmtool.files import runs
from cmtool.files.best_checkpoint import rewind_best
from cmtool.files.data_fingerprint import Inventory, read_inventory
from cmtool.files.header import read_header
from cmtool.files.runs import CHECKPOINT
from cmtool.files.sealed import NAME as STATE
from cmtool.files.sealed import load_state
from cmtool.options.load import load_options
from cmtool.options.types import Spec
from cmtool.pipelines.inputs import PATHS
from cmtool.pipelines.training_job import TrainingJob
from cmtool.settings import TrainOptions
from cmtool.training.loop import unpack

__all__ = ["check_data", "check_unchanged", "is_done", "resume_command", "resume_run"]

T = TypeVar("T", bound=TrainOptions)
# change no result, or are checked separately; models are known again by their contents
CHANGEABLE = {
    "device",
    "threads",
    "precision",
    "micro_batch",
    "snapshots",
    "run_dir",
    "resume",
    "dry_run",
    "ema_snapshots",
    "log",
}
CHANGEABLE |= {"data", "images", *PATHS}


def check_unchanged(options: T, folder: Path) -> T:
    """The options to go on with: a part of the data stays that part.

    UsageError names what a run cannot change. ``images`` and the place of the data can; whether the data are the same
    is for ``check_data`` to say.
    """
    stored = load_options(type(options), {}, configs=[folder / "config.yaml"], environment={})
    data = Spec(options.data)
    if stored.data.get("slice") and not data.get("slice"):
        data["slice"] = stored.data["slice"]
    changed = [k for k, v in vars(options).items() if k not in CHANGEABLE and getattr(stored, k) != v]
    changed += [k for k in PATHS if bool(getattr(options, k, None)) != bool(getattr(stored, k, None))]
    changed += ["data"] if _but_source(data) != _but_source(stored.data) else []
    if changed:
        raise UsageError(
            f"{folder} was started with another {' and another '.join(changed)}",
            "leave that out, or start a new run without --resume",
        )
    return replace(options, data=data)


def _but_source(data: Mapping[str, Any]) -> dict[str, Any]:
    """A place may be named later, but is not taken back."""
    return {key: value for key, value in data.items() if key != "source"} | {"source": bool(data.get("source"))}


def is_done(options: TrainOptions, folder: Path) -> bool:
    """Whether a run has finished, at the length it now should have; UsageError where it has gone further."""
    status = runs.read_status(folder)
    seen = status.get("images")
    if status.get("state") == "finished" and isinstance(seen, int) and seen >= options.images > seen - options.batch:
        return True
    if isinstance(seen, int) and seen > options.images:
        raise UsageError(
            f"{folder} has seen {seen:,} images already, more than --images {options.images}",
            f"to go on give more: {resume_command(options.command, folder)} --images {2 * seen}",
        )
    return False


def resume_command(command: str, folder: Path | None) -> str:
    """What a person types to go on with a run."""
    return f"cmtool {command} --resume {quote(str(folder))}"


def check_data(dataset: Any, folder: Path) -> None:
    """The data must be those that the run began with, wherever they lie now; UsageError says what differs.

    A picture that stopped the run because it was damaged may have been mended.
    """
    stored = read_inventory(folder)
    if stored is None:
        return
    found = _difference(
        stored.document, Inventory.of(dataset).document, str(runs.read_status(folder).get("reason", ""))
    )
    if found:
        hint = "bring the data back as they were, or start a new run without --resume"
        raise UsageError(f"the data are not those that {folder} was started with: {found}", hint)


def _difference(then: Mapping[str, Any], now: Mapping[str, Any], reason: str) -> str | None:
    """What differs, in words; None where nothing does."""
    if then["classes"] != now["classes"]:
        classes = [some_names(side["classes"]) or "none" for side in (then, now)]
        return f"the classes were {classes[0]}, and are {classes[1]}"
    if then["shape"] != now["shape"]:
        shapes = ["x".join(map(str, side["shape"])) for side in (then, now)]
        return f"they were of {shapes[0]}, and are of {shapes[1]}"
    before, after = (then["files"], now["files"]) if then["files"] and now["files"] else ({}, {})
    if gone := [name for name in before if name not in after]:
        return f"{some_names(gone, 3)} {'is' if len(gone) == 1 else 'are'} gone"
    if new := [name for name in after if name not in before]:
        return f"{some_names(new, 3)} {'is' if len(new) == 1 else 'are'} new"
    if then["images"] != now["images"]:
        return f"there were {then['images']:,} images, and are {now['images']:,}"
    other = [name for name in before if before[name] != after[name]]
    if "labels" in other:
        return "the labels are others"
    if other := [name for name in other if f"/{name} " not in reason and f":{name} " not in reason]:
        return f"{some_names(other, 3)} {'has' if len(other) == 1 else 'have'} changed"
    return "the files are others" if then["sha256"] != now["sha256"] and not before else None


def resume_run(job: TrainingJob, folder: Path, command: str) -> None:
    """Put the job where the run was left; MissingInput when killed too early, UsageError for a new teacher."""
    if not (folder / STATE).exists():
        anew = f"start it again: cmtool {command} --config {quote(str(folder / 'config.yaml'))}"
        raise MissingInput(f"{folder} was stopped before its first save", anew)
    parents = read_header(folder / CHECKPOINT).parents
    if [parent.get("sha256") for parent in parents] != [now["sha256"] for now in job.header.parents]:
        known = {parent.get("sha256") for parent in parents}
        now = next((now["path"] for now in job.header.parents if now["sha256"] not in known), "the teacher")
        hint = "bring that file back, or start a new run without --resume"
        raise UsageError(f"{now} is not the file that {folder} was started with", hint)
    tensors, scalars = load_state(folder)
    with report_damage(folder / STATE, "is not the state of this run", "start a new run without --resume"):
        unpack(job.state, tensors, scalars)
    runs.rewind(folder, job.state.images)
    runs.rewind_averages(folder, job.state.images)
    rewind_best(folder, job.state.images)
