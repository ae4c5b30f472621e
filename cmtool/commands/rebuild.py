"""The average of a width that a run did not keep, from those it has stored."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from cmtool.commands.console import Console
from cmtool.core.denoiser import Denoiser
from cmtool.errors import MissingInput, UsageError
from cmtool.files.averages import found
from cmtool.files.checkpoint import load
from cmtool.files.header import Header
from cmtool.tracks import Track, tracks
from cmtool.training.posthoc import Mix, solve

__all__ = ["rebuilt"]

POOR = 0.05  # of the residual: beyond it the profile is another one


def rebuilt(run: Path, width: float, console: Console) -> tuple[Denoiser, list[Path], dict[str, Any]]:
    """The model with the power average of ``width`` at the last stored moment, the files it is made of, and how well.

    MissingInput or UsageError where the run holds nothing to make it of; BadFile when a file is damaged.
    """
    parts = stored(run)
    times = [header.images for _, header, _ in parts]
    mix = solve(times, [track.value for _, _, track in parts], max(times), width)
    if mix.residual > POOR:
        text = f"the stored averages cannot make width {width:g} well: what they make is {mix.residual:.0%} off"
        console.warn(f"{text}; more of them, or of other widths, would (--ema, --ema-snapshots)")
    paths = [path for path, _, _ in parts]
    model = blended(paths, mix, times.index(max(times)))
    about = description(width, parts, mix)
    model.header = replace(model.header, average=about, images=max(times))
    console.say(f"made of {len(parts)} stored averages, residual {mix.residual:.2g}")
    return model, paths, {"average": about}


def stored(run: Path) -> list[tuple[Path, Header, Track]]:
    """The power averages of a run, each moment and width once."""
    if not run.is_dir():
        raise UsageError(f"--ema-width needs a run directory, and {run} is none", "name the folder that training made")
    known: dict[tuple[int, Track], tuple[Path, Header, Track]] = {}
    for path, header in found(run):
        for track in tracks(header.average["track"]) if header.average else ():
            if track.form == "power" and header.images:
                known.setdefault((header.images, track), (path, header, track))
    if not known:
        raise MissingInput(f"{run} holds no power averages", "train with --ema 1500,power:0.05,power:0.1")
    return [known[key] for key in sorted(known, key=lambda key: (key[0], key[1].value))]


def blended(paths: list[Path], mix: Mix, newest: int) -> Denoiser:
    """The sum of the parameters, in float64, in the place of those of the newest; buffers are that one's."""
    model = load(paths[newest])
    sums = [torch.zeros_like(p, dtype=torch.float64) for p in model.parameters()]
    for path, weight in zip(paths, mix.weights.tolist(), strict=True):
        for total, part in zip(sums, load(path).parameters(), strict=True):
            total.add_(part.detach(), alpha=weight)
    with torch.no_grad():
        for parameter, total in zip(model.parameters(), sums, strict=True):
            parameter.copy_(total)
    return model


def description(width: float, parts: list[tuple[Path, Header, Track]], mix: Mix) -> dict[str, Any]:
    """What the header says about it."""
    made_of = [
        {"path": str(path), "track": str(track), "images": header.images, "weight": weight}
        for (path, header, track), weight in zip(parts, mix.weights.tolist(), strict=True)
    ]
    figures = {"residual": mix.residual, "condition": mix.condition, "gain": mix.gain}
    return {"track": str(Track("power", width)), **figures, "made_of": made_of}
