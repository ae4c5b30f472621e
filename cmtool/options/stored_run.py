"""The options that a run began with, from which the same command goes on: nobody has to repeat them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from cmtool.errors import Hint, MissingInput, Run, UsageError
from cmtool.options.fields import Options
from cmtool.options.load import gather
from cmtool.options.sources import Given
from cmtool.user_paths import expand_home

__all__ = ["CONFIG", "OF_ONE_CALL", "command_of", "is_run", "stored_options"]

CONFIG = "config.yaml"
OF_ONE_CALL = ("run_dir", "resume", "reproduce", "allow_change", "dry_run")
MARKS = (".lock", "status.json")  # what a run has besides; a folder with a file of options alone is none


def command_of(folder: Path) -> str | None:
    """The command whose options ``config.yaml`` of a folder holds, by its first line; None where nobody says so."""
    path = folder / CONFIG
    if not path.is_file():
        return None
    with path.open("rb") as file:
        words = file.readline(100).decode("utf-8-sig", errors="replace").split()
    return " ".join(words[2:]) if words[:2] == ["#", "cmtool"] else None


def is_run(folder: Path) -> bool:
    """Whether a training command has begun a run there."""
    return command_of(folder) is not None and any((folder / mark).is_file() for mark in MARKS)


def stored_options(cls: type[Options], typed: Mapping[str, Sequence[Given]]) -> dict[str, list[Given]]:
    """What ``config.yaml`` of the run that ``typed`` names says; nothing where that is a new one.

    ``reproduce`` and ``resume`` insist that it is there: MissingInput. UsageError for a run of another command.
    """
    for key in ("reproduce", "resume", "run_dir"):
        value = typed[key][-1].value if typed.get(key) else None
        if isinstance(value, str | Path) and str(value):
            folder = Path(expand_home(str(value)))
            if key == "run_dir" and not is_run(folder):
                break
            _check_command(cls, key, folder, str(value))
            found = gather(cls, {}, configs=[folder / CONFIG], environment={})
            return {key: [] if key in OF_ONE_CALL else given for key, given in found.items()}
    return {}


def _check_command(cls: type[Options], key: str, folder: Path, named: str) -> None:
    if not (folder / CONFIG).is_file():
        if key == "reproduce":
            raise MissingInput(f"there is no capsule {named}", "it is a folder in the run that has diverged")
        raise MissingInput(
            f"there is no run {named}", "a run is the folder that training made, with a config.yaml in it"
        )
    began = command_of(folder)
    if began is not None and began != cls.command:
        again = Run(began, **{key: named})
        raise UsageError(f"{named} is a run of {began}", Hint("go on with it by: {}", again))
