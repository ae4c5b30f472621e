"""Options of the training commands about evaluation during training, and about where its figures go."""
# ruff: noqa: RUF009  (option() makes a dataclass field)

import re
from dataclasses import dataclass

from cmtool.options.ema_spec import EMA_SPECS
from cmtool.options.fields import option
from cmtool.options.types import Spec, at_least, matches
from cmtool.settings.shared import EVALUATION, RUN, MachineOptions

EVERY = r"\s*(\d{1,12})\s*(k?)(?:img)?\s*"


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions(MachineOptions):
    """When, with what and against what the models of a run are measured while it trains."""

    eval_every: str = option(
        "0",
        help="measure the EMAs each time N more images have been seen, such as 50000, 5000img or 50kimg; 0: never",
        check=matches(EVERY, "a number of images, such as 50000, 5000img or 50kimg"),
        metavar="N",
        section=EVALUATION,
    )
    eval_metrics: tuple[Spec, ...] = option(
        (Spec(name="fid"),),
        key="eval",
        help="what to measure, with commas between; the best checkpoint is kept by the first",
        group="metrics",
        listed=True,
        metavar="NAME,NAME",
        section=EVALUATION,
        shown="fid",
    )
    eval_features: Spec | None = option(
        None,
        help="features that metrics compare: small needs no download and gives FD-small, inception gives FID",
        group="features",
        section=EVALUATION,
        shown="small; points of points",
    )
    eval_n: int | None = option(
        None,
        help="images of each measurement, always of the same seeds",
        check=at_least(2),
        section=EVALUATION,
        shown="1000, or 5 for each feature where these are more",
    )
    eval_ref: str | None = option(
        None,
        help="images or statistics to compare with, as of fid; their statistics are kept in the run directory",
        metavar="REF",
        section=EVALUATION,
        shown="the training data",
        path=True,
    )
    eval_ema: int | str | None = option(
        None,
        help="EMAs to measure, as --ema calls them",
        check=EMA_SPECS,
        metavar="TRACKS",
        section=EVALUATION,
        shown="all",
    )
    eval_steps: int | None = option(
        None,
        help="NFE of a consistency model, steps of a score model's solver",
        check=at_least(1, 10**5),
        section=EVALUATION,
        shown="as sample",
    )
    eval_solver: Spec | None = option(
        None,
        help="ODE solver of a score model",
        group="solvers",
        section=EVALUATION,
        default_name="heun",
    )
    loggers: tuple[Spec, ...] = option(
        (),
        help="where the figures go besides metrics.jsonl, with commas between",
        group="loggers",
        listed=True,
        metavar="NAME,NAME",
        section=RUN,
        shown="none",
    )

    @property
    def eval_interval(self) -> int:
        """The images between two evaluations, 0 for none."""
        found = re.fullmatch(EVERY, self.eval_every)
        return int(found[1]) * (1000 if found[2] else 1) if found else 0

    def eval_due(self, images: int, batch: int, total: int) -> bool:
        """Whether the step of ``batch`` images that ended at ``images`` of ``total`` is one after which is measured."""
        every = self.eval_interval
        return every > 0 and (images // every > (images - batch) // every or images >= total)
