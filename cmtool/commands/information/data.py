"""What ``info`` says of images: how many, of which sizes, modes and classes, what is damaged or there twice."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cmtool.commands.console import Console
from cmtool.data_paths import expand_paths
from cmtool.pipelines.data_report import DataReport, measure_data
from cmtool.pipelines.numbered_pictures import NumberedPictures, open_pictures
from cmtool.settings import InfoOptions
from cmtool.user_paths import expand_home, files_below

__all__ = ["bytes_of", "describe_data"]

SIZES, CLASSES, NAMED = 6, 20, 4  # sizes, classes and pictures on a line
LISTED = 100  # sizes in the document
UNITS = ("bytes", "kB", "MB", "GB", "TB")


def describe_data(spec: Mapping[str, Any], options: InfoOptions, console: Console) -> None:
    """Look at all images, and print what was found; damaged ones are counted and named, and are no error."""
    pictures = open_pictures({**spec, **(options.data or {})})
    with console.progress(len(pictures), "images", f"info {options.what}") as progress:
        report = measure_data(pictures, options.quick, options.threads, progress.update)
    size = bytes_of(spec.get("source"))
    for remark in pictures.remarks:
        console.say(remark)
    if report.broken:
        console.warn(
            f"{report.broken:,} of {report.images:,} images cannot be read: {report.broken_examples[0].reason}"
        )
    text = "\n".join([_heading(options.what, pictures, report, size), *_lines(report)])
    console.result(_document(options.what, pictures, report, size), text)


def bytes_of(source: str | None) -> int | None:
    """The bytes of a file, of several, or of the files below a folder; None where there is no source."""
    if source is None:
        return None
    whole = Path(expand_home(source))
    paths = [whole] if whole.exists() else [Path(expand_home(part)) for part in expand_paths(source)]
    files = [path / name for path in paths for name in (files_below(path).files if path.is_dir() else [""])]
    return sum(os.stat(file).st_size for file in files)


def _document(name: str, pictures: NumberedPictures, report: DataReport, size: int | None) -> dict[str, Any]:
    found = report.duplicates
    return {
        "data": name,
        "kind": pictures.what,
        "images": report.images,
        "bytes": size,
        "sizes": [{"width": w, "height": h, "images": n} for (w, h), n in report.sizes.most_common(LISTED)],
        "distinct_sizes": len(report.sizes),
        "modes": dict(report.modes.most_common()),
        "classes": report.classes,
        "mean": report.mean,
        "std": report.std,
        "duplicates": found
        and {"images": found.images, "sets": found.sets, "other_label": found.other_label, "groups": found.groups},
        "broken": {"images": report.broken, "examples": [vars(one) for one in report.broken_examples]},
        "fingerprint": report.fingerprint,
        "remarks": list(pictures.remarks),
    }


def _heading(name: str, pictures: NumberedPictures, report: DataReport, size: int | None) -> str:
    return f"{name}: {pictures.what} of {report.images:,} images" + (f", {_bytes(size)}" if size is not None else "")


def _lines(report: DataReport) -> Iterator[str]:
    if report.sizes:
        sizes = Counter({f"{width}x{height}": n for (width, height), n in report.sizes.items()})
        yield _row("sizes", _counts(sizes, SIZES, "sizes"))
        yield _row("modes", _counts(report.modes, SIZES, "modes"))
    if report.classes is not None:
        yield _row("classes", f"{len(report.classes):,}: {_counts(report.classes, CLASSES, 'classes')}")
    if report.mean and report.std:
        mean, std = (" ".join(f"{value:.4f}" for value in values) for values in (report.mean, report.std))
        yield _row("mean", f"{mean} of each channel, in [-1, 1]")
        yield _row("std", std)
    if found := report.duplicates:
        other = f", {found.other_label:,} of them of another class" if found.images and report.classes else ""
        yield _row("duplicates", f"{found.images:,}{other}")
        for group in found.groups[:NAMED]:
            yield _row("", " = ".join([*group[:NAMED], *(["..."] if len(group) > NAMED else [])]))
    yield _row("broken", f"{report.broken:,}")
    for one in report.broken_examples[:NAMED]:
        yield _row("", one.reason)
    if report.fingerprint:
        yield _row("fingerprint", report.fingerprint)


def _row(name: str, text: str) -> str:
    return f"  {name:<12} {text}"


def _counts(count: Mapping[str, int], most: int, what: str) -> str:
    """``cat 12, dog 10``: the most frequent of sizes and modes; the first of what has an order of its own."""
    pairs = count.most_common(most) if isinstance(count, Counter) else list(count.items())[:most]
    more = f", ... ({len(count):,} {what})" if len(count) > most else ""
    return ", ".join(f"{name} {n:,}" for name, n in pairs) + more


def _bytes(size: int) -> str:
    """``999 bytes``, ``28.8 kB``, ``1.25 TB``."""
    power = min((len(str(size)) - 1) // 3, len(UNITS) - 1)
    return f"{size / 1000**power:.3g} {UNITS[power]}"
