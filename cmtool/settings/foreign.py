"""Options of the commands that read a model, for files of other programs."""
# ruff: noqa: RUF009  (option() makes a dataclass field)

from dataclasses import dataclass

from cmtool.declarations import Options, option
from cmtool.settings.machine import INPUT
from cmtool.values import Spec


@dataclass(frozen=True, kw_only=True)
class ForeignOptions(Options):
    """What the file of another program leaves open; ours say all themselves."""

    format: Spec | None = option(
        None, help="of a model of another program, what its file leaves open", yaml_only=True, section=INPUT
    )
    backbone: Spec | None = option(
        None, help="of its network, what its file leaves open", yaml_only=True, section=INPUT
    )
