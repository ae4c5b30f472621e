"""``cmtool convert``: a model of another program as ours or back, in another precision, or with an average not kept."""

from dataclasses import replace
from pathlib import Path

import torch

from cmtool.commands.console import Console
from cmtool.commands.models import checkpoint
from cmtool.commands.rebuild import rebuilt
from cmtool.core.denoiser import Denoiser
from cmtool.errors import UsageError
from cmtool.files.checkpoint import DTYPES
from cmtool.files.opening import check_weights, open_any, parent, writer
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
    parents = model.header.parents + [parent(path) for path in sources]
    header = write(options.place, model, replace(model.header, parents=parents), DTYPES[options.dtype])
    if header.noncommercial:
        console.warn(f"{options.place} inherits the licence {header.licence}: it is not for commercial use")
    document = {"checkpoint": str(options.place), "kind": header.kind, "dtype": options.dtype, **about}
    console.say(f"sample it with: cmtool sample --model {options.place}")
    console.result(document | {"sha256": header.sha256}, str(options.place))


def check_range(model: Denoiser, dtype: str, path: Path) -> None:
    """UsageError where a weight is too large for the precision; BadFile where one is not finite."""
    check_weights(model, path)
    most = max(float(p.detach().abs().max()) for p in model.net.parameters())
    if most > torch.finfo(DTYPES[dtype]).max:
        raise UsageError(f"{path} cannot be {dtype}: the largest weight is {most:.3g}", "use --dtype bf16 or fp32")
