"""Evaluation during training: when it is due, where its figures go, and the best checkpoint."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cmtool.commands.console import Console
from cmtool.commands.signals import Stop
from cmtool.commands.training.logs import RunLog
from cmtool.commands.training.saving import Saver
from cmtool.core.denoiser import Denoiser
from cmtool.evaluation.statistics import Statistics
from cmtool.files.best_checkpoint import BEST, read_best, set_aside_best
from cmtool.files.checkpoint import save
from cmtool.files.runs import METRICS
from cmtool.options.ema_spec import EMASpec
from cmtool.pipelines.distributed import is_main_rank, largest_over_ranks, rank_and_world
from cmtool.pipelines.model_evaluator import Evaluation, EvaluationStopped, ModelEvaluator

__all__ = ["EvaluationRun", "last_evaluation"]


class EvaluationRun:
    """What ``--eval-every`` asks for: ``after`` each step, before anything of that step is saved.

    So whatever is saved has been evaluated; only where a signal came first, ``begin`` does it when the run goes on.
    """

    def __init__(self, evaluator: ModelEvaluator, saver: Saver, log: RunLog, console: Console, stop: Stop):
        self.evaluator, self.saver, self.log, self.console, self.stop = evaluator, saver, log, console, stop
        self.options, self.folder = saver.options, saver.folder
        self.reference: Statistics | None = None

    def begin(self) -> None:
        """Before the first step: measure the reference, or read it, and make up for what a signal left undone."""
        self.reference = self.evaluator.measure_reference(self.folder, self.console)
        self.tell_status()
        images = self.saver.job.state.images
        missed = is_main_rank() and last_evaluation(self.folder)[0] < images
        if images and largest_over_ranks(int(missed)):  # which all ranks know alike
            self.after(images)

    def after(self, images: int, asked: bool = False) -> None:
        """Evaluate if it is due after the step that ended at ``images``, unless all ranks were ``asked`` to stop."""
        options = self.options
        unfinished = images < options.images
        if (asked and unfinished) or not options.eval_due(images, options.batch, options.images):
            return
        assert self.reference
        models = self.saver.gather(everywhere=True)
        try:
            found = self.evaluator(models, self.reference, self._stopped, self.console)
        except EvaluationStopped:
            return
        if found.scores and is_main_rank():
            best = self._keep_best(found, models)
            self.log.log(images, found.values())
            self.tell_status()
            self.console.say(_line(found, best))

    def _stopped(self) -> bool:
        """Ranks that measure together see a signal at different times: they go on to the end, as at that of the run."""
        unfinished = self.saver.job.state.images < self.options.images
        return unfinished and self.stop.asked is not None and rank_and_world()[1] == 1

    def _keep_best(self, found: Evaluation, models: Mapping[EMASpec, Denoiser]) -> bool:
        """Keep the best of what was measured, if it is better than the best so far."""
        best, known = found.best(), read_best(self.folder)
        if best is None:
            return False
        metric, track, value = best
        if known and known.evaluation["metric"] == metric and not found.is_better(value, known.evaluation["value"]):
            return False
        set_aside_best(self.folder)
        chosen_by = {"metric": metric, "value": value, "n": found.n}
        save(self.folder / BEST, models[track], self.saver.header(track, evaluation=chosen_by))
        return True

    def tell_status(self) -> None:
        """What ``status.json`` says of it: the last evaluation and the best checkpoint."""
        facts, best, (images, values) = self.saver.facts, read_best(self.folder), last_evaluation(self.folder)
        facts["evaluation"] = {"images": images, **values} if values else None
        about = {"track": best.average.get("ema"), "images": best.images} if best else {}
        facts["best"] = {**best.evaluation, **about} if best else None


def last_evaluation(folder: Path) -> tuple[int, dict[str, Any]]:
    """The images and the figures of the last line of ``metrics.jsonl`` that has any; (-1, {}) without one."""
    path = folder / METRICS
    if path.is_file():
        for text in reversed(path.read_text("utf-8").splitlines()):
            line = json.loads(text)
            if found := {key: value for key, value in line.items() if key.startswith("eval/")}:
                return line["images"], found
    return -1, {}


def _line(found: Evaluation, best: bool) -> str:
    """``5,000 images: FD-small 3.2 (half-life:1500), 3.4 (power:0.05); the best so far``."""
    metrics = [
        f"{metric} {', '.join(f'{value:.5g} ({track})' for track, value in each.items())}"
        for metric, each in found.scores.items()
    ]
    return f"{found.images:,} images: {'; '.join(metrics)}{'; the best so far' if best else ''}"
