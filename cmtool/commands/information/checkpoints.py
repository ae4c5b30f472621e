"""What a checkpoint is, from its header: a summary, a command that samples it, and the averages beside it."""

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cmtool.errors import printable
from cmtool.files.header import Header

__all__ = ["SCORE_FLAGS", "advice", "average_table", "averages", "summarize"]

SCORE_FLAGS = "--solver heun --steps 18"  # what sample does with a score model by default


def summarize(header: Header, command: str) -> str:
    """The lines, as comments of YAML, before the header itself; ``command`` is the advice."""
    return "\n".join(f"# {printable(line)}" for line in _summary_lines(header, command))


def advice(path: str, header: Header, said: Mapping[str, Mapping[str, Any] | None]) -> str:
    """A command that samples the model at the noise levels that suit it; ``said`` is what its file left open."""
    settings = [f"{group}.{key}={value}" for group, given in said.items() for key, value in (given or {}).items()]
    flags = [f"--set {shlex.quote(one)}" for one in settings]
    by_solver = header.kind == "score" and not header.sigmas
    steps = len(header.sigmas) + (1 if header.kind == "consistency" else 0)
    return " ".join(
        [f"cmtool sample --model {shlex.quote(path)}", *flags, SCORE_FLAGS if by_solver else f"--steps {steps}"]
    )


def _summary_lines(header: Header, command: str) -> Iterator[str]:
    size = f", {header.parameters:,} parameters" if header.parameters else ""
    classes = f" of {header.num_classes} classes" if header.num_classes else ""
    makes = "images" if len(header.shape) == 3 else "points"
    sides = "x".join(map(str, header.shape))
    yield f"{header.kind} model for {sides} {makes}{classes}: {header.backbone.get('name')}{size}"
    about = header.preconditioning
    form = ", ".join(f"{key} {about[key]}" for key in ("form", "time", "sigma_data") if key in about)
    yield f"noise levels {header.sigma_min:g} to {header.sigma_max:g}; parameterisation: {form}"
    if header.licence:
        yield f"licence: {header.licence}{', not for commercial use' if header.noncommercial else ''}"
    for parent in header.parents:
        yield f"made from {parent.get('path')} ({str(parent.get('sha256'))[:12]})"
    if chosen := header.evaluation:
        track, n = header.average.get("ema", "?"), chosen.get("n", "?")
        score = f"{chosen.get('metric')} {chosen.get('value')} of {n} images"
        yield f"the best of its run: {score}; EMA {track} at {header.images:,} images"
    sigmas = [header.sigma_max, *header.sigmas] if header.kind == "consistency" else header.sigmas
    yield f"sample it with: {command}" + (f"  (at {', '.join(f'{x:g}' for x in sigmas)})" if sigmas else "")


def averages(run: Path) -> list[dict[str, Any]]:
    """Every average of a run: the file, how it was averaged, and after how many images."""
    from cmtool.files.runs import stored_averages

    return [
        {"path": str(path), "track": header.average.get("ema", "?"), "images": header.images}
        for path, header in stored_averages(run)
    ]


def average_table(kept: list[dict[str, Any]]) -> str:
    rows = [f"  {printable(a['track']):<20}{a['images']:>12,}  {printable(a['path'])}" for a in kept]
    return "\n".join(["\n\naverages (track, images, file)", *rows]) if rows else ""
