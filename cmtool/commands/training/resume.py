"""Taking up a run: what may have changed since it began, and what may not."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Any, TypeVar

from cmtool.class_names import some_names
from cmtool.errors import BadFile, Hint, Setting, UsageError, report_damage
from cmtool.files import runs
from cmtool.files.data_fingerprint import Inventory, read_inventory
from cmtool.files.header import read_header
from cmtool.files.rewind import rewind
from cmtool.files.run_states import STATES, StoredState, newest_state
from cmtool.files.runs import CHECKPOINT, STATUS
from cmtool.files.sharded_states import fill_tensors
from cmtool.options.load import load_options
from cmtool.options.stored_run import CONFIG, is_run
from cmtool.options.types import Spec
from cmtool.pipelines.distributed import World, find_world, run_on_main
from cmtool.pipelines.inputs import PATHS, anchor_paths
from cmtool.pipelines.training_job import TrainingJob
from cmtool.settings import TrainOptions
from cmtool.settings.training import ALLOWED
from cmtool.training.state import make_room, unpack

__all__ = [
    "agree_on_state",
    "check_data",
    "check_unchanged",
    "find_run",
    "is_done",
    "restore",
    "resume_command",
    "resume_run",
]

T = TypeVar("T", bound=TrainOptions)
# change no result, or are checked separately; models are known again by their contents
CHANGEABLE = {"device", "threads", "cache", "snapshots", "ema_snapshots", "save_every", "keep", "loggers"}
CHANGEABLE |= {"run_dir", "resume", "dry_run", "allow_change", "reproduce", "data", "images", *PATHS}


def find_run(options: TrainOptions) -> Path | None:
    """The run that is to go on; None for a new one. UsageError where two are named."""
    if options.resume and options.run_dir and options.resume != options.run_dir:
        raise UsageError(f"two runs are named, {options.resume} and {options.run_dir}", "leave one of them out")
    begun = options.run_dir and is_run(options.run_dir)
    return options.resume or (options.run_dir if begun else None)


def check_unchanged(options: T, folder: Path) -> T:
    """The options to go on with: a part of the data stays that part.

    UsageError with the list of what a run cannot change. ``images`` and the place of the data can; whether the data are
    the same is for ``check_data`` to say. Of ALLOWED those can that ``allow_change`` names.
    """
    stored = load_options(type(options), {}, configs=[folder / CONFIG], environment={})
    data = Spec(options.data)
    if stored.data.get("slice") and not data.get("slice"):
        data["slice"] = stored.data["slice"]
    allowed = {name.strip().replace("-", "_") for name in options.allow_change or ()}
    then, now = _compared(stored, stored.data, allowed), _compared(options, data, allowed)
    changed = [
        f"{key}: {_shown(then, key)} -> {_shown(now, key)}" for key in {**then, **now} if _differ(then, now, key)
    ]
    if changed:
        raise UsageError(f"{folder} was started with other options: {'; '.join(changed)}", _hint(then, now))
    return replace(options, data=data)


def _compared(options: TrainOptions, data: Mapping[str, Any], allowed: set[str]) -> dict[str, Any]:
    """What may not change, by key; the options of a plugin each by itself. A path counts as given or not."""
    whole = anchor_paths(options)
    kept = {key: value for key, value in vars(whole).items() if key not in CHANGEABLE | allowed}
    kept |= {key: "given" for key in PATHS if vars(options).get(key)}
    found: dict[str, Any] = {}
    for key, value in {"data": _but_source(data), **kept}.items():
        parts = (
            {f"{key}.{part}".removesuffix(".name"): v for part, v in value.items()} if isinstance(value, dict) else {}
        )
        found |= parts or {key: value}
    return found


def _differ(then: Mapping[str, Any], now: Mapping[str, Any], key: str) -> bool:
    return (key in then, then.get(key)) != (key in now, now.get(key))


def _shown(values: Mapping[str, Any], key: str) -> str:
    return "not given" if values.get(key) is None else str(values[key])


def _hint(then: Mapping[str, Any], now: Mapping[str, Any]) -> Hint:
    names = [name for name in ALLOWED if _differ(then, now, name.replace("-", "_"))]
    if names:
        allow = Setting("allow_change", ",".join(names))
        return Hint("leave that out; with {} the run goes on, and the last bits of its weights differ", allow)
    return Hint("leave that out, or choose another {}", Setting("run_dir"))


def _but_source(data: Mapping[str, Any]) -> dict[str, Any]:
    """A place may be named later, but is not taken back."""
    return {key: value for key, value in data.items() if key != "source"} | {"source": bool(data.get("source"))}


def is_done(options: TrainOptions, folder: Path) -> bool:
    """Whether a run has finished, at the length it now should have; UsageError where it has gone further."""
    status = _status(folder)
    seen = status.get("images")
    if status.get("state") == "finished" and isinstance(seen, int) and seen >= options.images > seen - options.batch:
        return True
    if isinstance(seen, int) and seen > options.images:
        raise UsageError(
            f"{folder} has seen {seen:,} images already, more than --images {options.images}",
            f"to go on give more: {resume_command(options.command, folder)} --images {2 * seen}",
        )
    return False


def _status(folder: Path) -> Mapping[str, Any]:
    """How a run stands; empty for one that was killed before it said so for the first time."""
    return runs.read_status(folder) if (folder / STATUS).exists() else {}


def resume_command(command: str, folder: Path | None) -> str:
    """What a person types to go on with a run."""
    return f"cmtool {command} --run-dir {quote(str(folder))}"


def check_data(dataset: Any, folder: Path) -> None:
    """The data must be those that the run began with, wherever they lie now; UsageError says what differs.

    A picture that stopped the run because it was damaged may have been mended.
    """
    stored = read_inventory(folder)
    if stored is None:
        return
    found = _difference(stored.document, Inventory.of(dataset).document, str(_status(folder).get("reason", "")))
    if found:
        hint = Hint("bring the data back as they were, or choose another {}", Setting("run_dir"))
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


def agree_on_state(
    world: World, folder: Path, warn: Callable[[str], None], good: Callable[[StoredState], bool] = lambda state: True
) -> StoredState | None:
    """``newest_state`` as the first rank finds it, on all ranks."""
    mine: list[StoredState] = []

    def find() -> str | None:
        found = newest_state(folder, warn, good)
        mine[:] = [found] if found else []
        return found.path.name if found else None

    name = run_on_main(world, find)
    if mine or name is None:
        return mine[0] if mine else None
    path = folder / STATES / name
    return StoredState.read(path)


def resume_run(job: TrainingJob, folder: Path, warn: Callable[[str], None]) -> Mapping[str, Any]:
    """Put the job and the folder where the run was saved, at its beginning when it was killed before; the scalars.

    UsageError for a new teacher; BadFile where no state is whole.
    """
    world = find_world()
    found = agree_on_state(world, folder, warn)
    if found is None:
        if (folder / CHECKPOINT).exists():
            hint = "bring its folder states back, or start a new run, which can begin with the weights of this one"
            raise BadFile(f"{folder} has a model, and no training state to go on from", hint)
        run_on_main(world, lambda: rewind(folder, 0))
        return {}
    parents = found.scalars.get("parents")
    if parents is None:  # a state of an older version
        parents = read_header(folder / CHECKPOINT).parents
    check_parents(job, folder, parents)
    restore(job, found)
    run_on_main(world, lambda: rewind(folder, job.state.images))
    return found.scalars


def restore(job: TrainingJob, found: StoredState) -> None:
    """Put the job where a state was saved; BadFile for one of another run."""
    with report_damage(found.path, "is not the state of this run", "start a new run"):
        tensors = found.tensors
        if found.shards:
            tensors = make_room(job.state, found.shards.tensors)
            fill_tensors(found.shards, tensors)
        unpack(job.state, tensors, found.scalars)
    job.batches.draws = job.state.draws


def check_parents(job: TrainingJob, folder: Path, parents: Sequence[Mapping[str, Any]]) -> None:
    """UsageError where a teacher, or a model that training began with, is another than then."""
    known = [parent.get("sha256") for parent in parents]
    if known != [now["sha256"] for now in job.header.parents]:
        now = next((now["path"] for now in job.header.parents if now["sha256"] not in known), "the teacher")
        hint = Hint("bring that file back, or choose another {}", Setting("run_dir"))
        raise UsageError(f"{now} is not the file that {folder} was started with", hint)
