"""Options of the command that downloads published files."""
# ruff: noqa: RUF009  (option() makes a dataclass field)

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from cmtool.declarations import Options, option
from cmtool.settings.machine import OUTPUT


@dataclass(frozen=True, kw_only=True)
class FetchOptions(Options):
    """Options of ``cmtool fetch``."""

    command: ClassVar[str] = "fetch"

    name: str | None = option(
        None,
        help="what to download, or all",
        positional=True,
        metavar="NAME",
        shown="list what there is, and what is here",
    )
    folder: Path | None = option(
        None,
        help="where to put it",
        flag="-o",
        metavar="FOLDER",
        section=OUTPUT,
        shown="$CMTOOL_ASSETS, else the cache of cmtool",
    )
