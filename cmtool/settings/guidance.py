"""Options of guidance, for the commands that draw images of a score model or learn from one."""
# ruff: noqa: RUF009  (option() makes a dataclass field)

from dataclasses import dataclass
from pathlib import Path

from cmtool.declarations import option
from cmtool.settings.machine import GUIDANCE, MachineOptions
from cmtool.values import at_least, span


@dataclass(frozen=True, kw_only=True)
class GuidanceOptions(MachineOptions):
    """How a score model is pushed away from a weaker one."""

    guidance: float = option(
        1.0,
        help="weight of a score model against itself without the class, or against --guide; 1: none",
        check=at_least(0),
        section=GUIDANCE,
    )
    guidance_interval: tuple[float, ...] | None = option(
        None,
        help="noise levels between which it acts, such as 0.2,5",
        check=span(),
        metavar="LO,HI",
        section=GUIDANCE,
        shown="all of them",
    )
    guide: Path | None = option(
        None, help="a smaller or less trained score model to be pushed away from (autoguidance)", section=GUIDANCE
    )
