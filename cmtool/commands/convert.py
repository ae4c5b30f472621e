"""``cmtool convert``: a model of another program as ours or back, in another precision, or with an average not kept."""

from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Any

import torch

from cmtool import registry
from cmtool.commands.console import Console
from cmtool.commands.models import checkpoint
from cmtool.commands.rebuild import rebuilt
from cmtool.core.denoiser import Denoiser
from cmtool.errors import BadFile, MissingInput, UsageError
from cmtool.files.checkpoint import DTYPES
from cmtool.files.header import Header, read_header
from cmtool.files.opening import check_weights, format_of, open_any, parent, writer
from cmtool.files.places import check_place
from cmtool.settings import ConvertOptions

__all__ = ["run"]


def run(options: ConvertOptions, console: Console) -> None:
    """Write the checkpoint that was asked for."""
    write = writer(options.to)
    if options.ema_width is None:
        sources, about = [checkpoint(options.source)], {}
        model = open_any(sources[0], format=options.format, backbone=options.backbone)
    else:
        model, sources, about = rebuilt(options.source, options.ema_width, console)
    check_range(model, options.dtype, options.place)
    header = replace(model.header, parents=model.header.parents + [parent(path) for path in sources])
    check_output(options, sources, header)
    header = write(options.place, model, header, DTYPES[options.dtype])
    if header.noncommercial:
        console.warn(f"{options.place} inherits the licence {header.licence}: it is not for commercial use")
    document = {"checkpoint": str(options.place), "kind": header.kind, "dtype": options.dtype, **about}
    console.say(f"sample it with: cmtool sample --model {quote(str(options.place))}")
    console.result(document | {"sha256": header.sha256}, str(options.place))


def check_output(options: ConvertOptions, sources: list[Path], header: Header) -> None:
    """UsageError where the result would take the place of a source, or of what is no earlier copy of it."""
    place, folder = options.place, options.to != "cmtool"
    if place.is_dir() and not folder:
        raise UsageError(f"{place} is a folder, and a checkpoint is a file", "name a file in it")
    check_place(place, [options.source, *sources], overwrite=options.overwrite, ours=lambda path: is_copy(path, header))
    if folder and place.is_dir() and any(place.iterdir()) and not options.overwrite:
        weights = registry.get("formats", options.to).weights(place) if format_of(place) == options.to else None
        if weights is None or not is_copy(weights, header):
            text = f"{place} is not empty, and is no earlier copy of {sources[0]}"
            raise UsageError(text, "name another place, or --overwrite")


def is_copy(path: Path, header: Header) -> bool:
    """Whether a file is a checkpoint that says the same of itself as ``header``, parents included."""
    try:
        found = read_header(path)
    except (BadFile, MissingInput):
        return False
    return facts(found) == facts(header)


def facts(header: Header) -> tuple[Any, ...]:
    """What is the same of a model and its copy in another precision."""
    lines = [each.get("sha256") for each in header.parents]
    return lines, header.kind, header.method, header.images, list(header.levels), header.average.get("track")


def check_range(model: Denoiser, dtype: str, path: Path) -> None:
    """UsageError where a weight is too large for the precision; BadFile where one is not finite."""
    check_weights(model, path)
    most = max(float(p.detach().abs().max()) for p in model.net.parameters())
    if most > torch.finfo(DTYPES[dtype]).max:
        raise UsageError(f"{path} cannot be {dtype}: the largest weight is {most:.3g}", "use --dtype bf16 or fp32")
