"""``convert``: a checkpoint in another format or precision, or with another EMA width; or images packed into a file."""

import time
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Any

import torch

from cmtool.commands.console import Console
from cmtool.core.denoiser import Denoiser
from cmtool.errors import BadFile, MissingInput, UsageError
from cmtool.files.checkpoint import DTYPES, load
from cmtool.files.header import Header, read_header
from cmtool.files.model_files import check_weights, format_of, open_any, parent_record, writer
from cmtool.files.model_format import LoadedModel
from cmtool.files.output_check import check_place
from cmtool.files.runs import stored_averages
from cmtool.files.sharded_states import MANIFEST, is_sharded, open_average
from cmtool.options import registry
from cmtool.options.data_spec import data_spec
from cmtool.options.ema_spec import EMASpec, parse_ema_specs
from cmtool.options.fields import option_fields
from cmtool.pipelines.image_sets import is_model
from cmtool.pipelines.inputs import checkpoint_path, dataset_facts, open_dataset
from cmtool.pipelines.pack_data import check_room, estimate_bytes, pack_data
from cmtool.settings import ConvertOptions
from cmtool.settings.files import PACKED
from cmtool.training.posthoc_ema import EMAMix, solve_mix

__all__ = ["rebuild_ema", "run"]

DEFAULTS = {name: declared.default for name, declared in option_fields(ConvertOptions).items()}


def run(options: ConvertOptions, console: Console) -> None:
    """Write what the suffix of the target asks for: images in an archive, or else a checkpoint."""
    check_kind(options)
    if options.packs_images:
        pack_images(options, console)
    else:
        convert_checkpoint(options, console)


def check_kind(options: ConvertOptions) -> None:
    """UsageError where images are to become a checkpoint, or a checkpoint images."""
    source, place = options.source, options.place
    if is_sharded(Path(source)) and not options.packs_images:
        return
    if options.packs_images and is_model(source):
        raise UsageError(
            f"{source} is a checkpoint, and {place} is a file of images",
            f"checkpoints go to .safetensors; images come from: cmtool sample -m {quote(source)} -o {place}",
        )
    images = data_spec(source)["name"] in registry.names("datasets")
    run = (Path(source) / "config.yaml").exists()
    if images and not options.packs_images and not run and not is_model(source) and not Path(source).is_file():
        raise UsageError(f"{source} are images, and {place} is no file of images", f"they go to {', '.join(PACKED)}")


def convert_checkpoint(options: ConvertOptions, console: Console) -> None:
    """Write the checkpoint that was asked for."""
    write, source = writer(options.to), Path(options.source)
    if is_sharded(source):
        loaded, sources, about = merge_shards(source, options.ema)
    elif options.ema_width is None:
        sources, about = [checkpoint_path(source)], {}
        loaded = open_any(sources[0], format=options.format, backbone=options.backbone)
    else:
        loaded, sources, about = rebuild_ema(source, options.ema_width, console)
    check_range(loaded.model, options.dtype, options.place)
    header = replace(loaded.header, parents=loaded.header.parents + [parent_record(path) for path in sources])
    check_output(options, sources, header)
    header = write(options.place, loaded.model, header, DTYPES[options.dtype])
    if header.noncommercial:
        console.warn(f"{options.place} inherits the licence {header.licence}: it is not for commercial use")
    document = {"checkpoint": str(options.place), "kind": header.kind, "dtype": options.dtype, **about}
    console.say(f"sample it with: cmtool sample --model {quote(str(options.place))}")
    console.result(document | {"sha256": header.sha256}, str(options.place))


def pack_images(options: ConvertOptions, console: Console) -> None:
    """Write the file, once it is known that there is room for it; it is whole or not there."""
    target, began = options.place, time.monotonic()
    spec = data_options(options)
    check_place(target, [spec.get("source")], overwrite=options.overwrite)
    dataset = open_dataset(spec, console.say)
    if dataset.classes and target.suffix.lower() == ".npy":
        console.warn(f"{target} has no place for labels; .npz, .zip and .tar have")
    elif named(dataset.classes) and target.suffix.lower() != ".zip":
        console.say(f"{target} keeps the numbers of the classes, not their names; a .zip keeps both")
    check_room(target, estimate_bytes(dataset, target))
    with console.progress(len(dataset), "images", f"convert {options.source}") as progress:
        packed = pack_data(dataset, target, options.threads, progress.update)
    console.say(dataset_facts(str(target), dataset))
    console.say(f"train on it with: cmtool train-score --data {quote(str(target))}")
    document = {
        "data": options.source,
        "output": str(target),
        "images": packed.images,
        "shape": list(dataset.shape),
        "classes": list(dataset.classes),
        "bytes": packed.bytes,
        "fingerprint": packed.fingerprint,
        "seconds": round(time.monotonic() - began, 3),
    }
    console.result(document, str(target))


def data_options(options: ConvertOptions) -> dict[str, Any]:
    """The data set that was named, with the options that were given."""
    size = int(options.size) if options.size and options.size.isdecimal() else options.size
    given = {"size": size, "crop": options.crop, "channels": options.channels, "labels": options.labels}
    chosen = {name: value for name, value in given.items() if value != DEFAULTS[name]}
    return {**data_spec(options.source), **(options.data or {}), **chosen}


def named(classes: tuple[str, ...]) -> bool:
    """Whether classes have names that are more than their numbers."""
    return tuple(classes) != tuple(map(str, range(len(classes))))


def merge_shards(folder: Path, ema: str | None) -> tuple[LoadedModel[Denoiser], list[Path], dict[str, Any]]:
    """The model of an EMA in a training state, what it is made of, and which one it is."""
    loaded = open_average(folder, str(parse_ema_specs(ema)[0]) if ema else None)
    return loaded, [folder / MANIFEST], {"average": dict(loaded.header.average)}


def check_output(options: ConvertOptions, sources: list[Path], header: Header) -> None:
    """UsageError where the result would take the place of a source, or of what is no earlier copy of it."""
    place, folder = options.place, options.to != "cmtool"
    if place.is_dir() and not folder:
        raise UsageError(f"{place} is a folder, and a checkpoint is a file", "name a file in it")
    check_place(place, [options.source, *sources], overwrite=options.overwrite, ours=lambda path: is_copy(path, header))
    taken = folder and place.is_dir() and any(place.iterdir()) and not options.overwrite
    if taken and not (format_of(place) == options.to and is_copy(place, header)):
        text = f"{place} is not empty, and is no earlier copy of {sources[0]}"
        raise UsageError(text, "name another place, or --overwrite")


def is_copy(path: Path, header: Header) -> bool:
    """Whether a file or folder holds a model that says the same of itself as ``header``, parents included."""
    try:
        found = open_any(path).header if path.is_dir() else read_header(path)
    except (BadFile, MissingInput, UsageError):
        return False
    return facts(found) == facts(header)


def facts(header: Header) -> tuple[Any, ...]:
    """What is the same of a model and its copy in another precision."""
    lines = [each.get("sha256") for each in header.parents]
    return lines, header.kind, header.method, header.images, list(header.sigmas), header.average.get("ema")


def check_range(model: Denoiser, dtype: str, path: Path) -> None:
    """UsageError where a weight is too large for the precision; BadFile where one is not finite."""
    check_weights(model, path)
    most = max(float(p.detach().abs().max()) for p in model.net.parameters())
    if most > torch.finfo(DTYPES[dtype]).max:
        raise UsageError(f"{path} cannot be {dtype}: the largest weight is {most:.3g}", "use --dtype bf16 or fp32")


MAX_RESIDUAL = 0.05  # of the residual: beyond it the profile is another one


def rebuild_ema(run: Path, width: float, console: Console) -> tuple[LoadedModel[Denoiser], list[Path], dict[str, Any]]:
    """The model with the power average of ``width`` at the last stored moment, the files it is made of, and how well.

    MissingInput or UsageError where the run holds nothing to make it of; BadFile when a file is damaged.
    """
    parts = stored_power_emas(run)
    times = [header.images for _, header, _ in parts]
    mix = solve_mix(times, [track.value for _, _, track in parts], max(times), width)
    if mix.residual > MAX_RESIDUAL:
        text = f"the stored averages cannot make width {width:g} well: what they make is {mix.residual:.0%} off"
        console.warn(f"{text}; more of them, or of other widths, would (--ema, --ema-snapshots)")
    paths = [path for path, _, _ in parts]
    loaded = blend(paths, mix, times.index(max(times)))
    about = description(width, parts, mix)
    loaded = replace(loaded, header=replace(loaded.header, average=about, images=max(times)))
    console.say(f"made of {len(parts)} stored averages, residual {mix.residual:.2g}")
    return loaded, paths, {"average": about}


def stored_power_emas(run: Path) -> list[tuple[Path, Header, EMASpec]]:
    """The power averages of a run, each moment and width once."""
    if not run.is_dir():
        raise UsageError(f"--ema-width needs a run directory, and {run} is none", "name the folder that training made")
    known: dict[tuple[int, EMASpec], tuple[Path, Header, EMASpec]] = {}
    for path, header in stored_averages(run):
        for track in parse_ema_specs(header.average["ema"]) if header.average else ():
            if track.form == "power" and header.images:
                known.setdefault((header.images, track), (path, header, track))
    if not known:
        raise MissingInput(f"{run} holds no power averages", "train with --ema 1500,power:0.05,power:0.1")
    return [known[key] for key in sorted(known, key=lambda key: (key[0], key[1].value))]


def blend(paths: list[Path], mix: EMAMix, newest: int) -> LoadedModel[Denoiser]:
    """The sum of the parameters, in float64, in the place of those of the newest; buffers are that one's."""
    loaded = load(paths[newest])
    sums = [torch.zeros_like(p, dtype=torch.float64) for p in loaded.model.parameters()]
    for path, weight in zip(paths, mix.weights.tolist(), strict=True):
        for total, part in zip(sums, load(path).model.parameters(), strict=True):
            total.add_(part.detach(), alpha=weight)
    with torch.no_grad():
        for parameter, total in zip(loaded.model.parameters(), sums, strict=True):
            parameter.copy_(total)
    return loaded


def description(width: float, parts: list[tuple[Path, Header, EMASpec]], mix: EMAMix) -> dict[str, Any]:
    """What the header says about it."""
    made_of = [
        {"path": str(path), "ema": str(track), "images": header.images, "weight": weight}
        for (path, header, track), weight in zip(parts, mix.weights.tolist(), strict=True)
    ]
    figures = {"residual": mix.residual, "condition": mix.condition, "gain": mix.gain}
    return {"ema": str(EMASpec("power", width)), **figures, "made_of": made_of}
