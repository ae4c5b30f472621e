"""Options of the commands that look at images and files: fid, likelihood and info."""
# ruff: noqa: RUF009  (option() makes a dataclass field)

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from cmtool.dataspec import data_spec
from cmtool.declarations import option
from cmtool.settings.foreign import ForeignOptions
from cmtool.settings.machine import INPUT, MACHINE, SAMPLING, SEED, MachineOptions
from cmtool.settings.sampling import WalkOptions, model_option, seed_option
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
class LikelihoodOptions(MachineOptions, ForeignOptions):
    """Options of ``cmtool likelihood``."""

    command: ClassVar[str] = "likelihood"

    data: Spec | None = option(
        None,
        help="images whose density is asked for: data set or folder; digits[0::2] takes a part",
        flag="-d",
        group="datasets",
        parse=data_spec,
        metavar="DATA",
        section=INPUT,
        shown="what the model learned from",
    )
    model: Path | None = model_option()
    n: int = option(100, help="images at most", check=at_least(1), section=INPUT)
    steps: int = option(
        64,
        help="steps of the classical Runge-Kutta method, four evaluations each",
        flag="-k",
        check=at_least(1),
        section=SAMPLING,
    )
    probes: int = option(
        1,
        help="random directions that estimate the divergence; 0: every axis, exact",
        check=at_least(0),
        section=SAMPLING,
    )
    probe: str = option("rademacher", help="their distribution", choices=("rademacher", "gaussian"), section=SAMPLING)
    seed: int = option(0, help="seed of dequantisation and directions", check=SEED, section=SAMPLING)


@dataclass(frozen=True, kw_only=True)
class InfoOptions(ForeignOptions):
    """Options of ``cmtool info``."""

    command: ClassVar[str] = "info"

    what: str = option("plugins", help="plugins, presets, a checkpoint or a run", positional=True, metavar="WHAT")
