"""Options of the commands that look at images and files: fid and info."""
# ruff: noqa: RUF009  (option() makes a dataclass field)

from dataclasses import dataclass
from typing import ClassVar

from cmtool.declarations import Options, option
from cmtool.settings.machine import INPUT, MACHINE
from cmtool.settings.sampling import WalkOptions, seed_option
from cmtool.values import Spec, at_least


@dataclass(frozen=True, kw_only=True)
class FidOptions(WalkOptions):
    """Options of ``cmtool fid``."""

    command: ClassVar[str] = "fid"

    source: str = option(
        help="images to judge: FOLDER, FILE.npz, FILE.tar, - (a tar on standard input), checkpoint or data set",
        positional=True,
        metavar="SOURCE",
        required=("fid needs images to judge", "cmtool fid samples --ref digits --features small"),
    )
    ref: str = option(
        help="images to compare with: any of these, or statistics .npz",
        flag="-r",
        metavar="REF",
        required=("fid needs --ref, the images to compare with", "cmtool fid samples --ref digits --features small"),
        section=INPUT,
    )
    features: Spec = option(
        Spec(name="inception"),
        help="inception gives FID; small needs no download and gives FD-small, which is no FID",
        group="features",
        section=INPUT,
    )
    n: int | None = option(
        None, help="images of SOURCE at most", check=at_least(2), section=INPUT, shown="all; 10000 of a model"
    )
    seed: int = seed_option()
    batch: int = option(256, help="images at a time", flag="-b", check=at_least(1), section=MACHINE)


@dataclass(frozen=True, kw_only=True)
class InfoOptions(Options):
    """Options of ``cmtool info``."""

    command: ClassVar[str] = "info"

    what: str = option("plugins", help="plugins, presets or a checkpoint", positional=True, metavar="WHAT")
