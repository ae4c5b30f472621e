"""How a run became better: the same number of every checkpoint and average that it kept, and a curve through them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cmtool.commands.console import Console
from cmtool.files import runs
from cmtool.files.charts import curves
from cmtool.files.output_check import check_place, made_by
from cmtool.files.picture_files import check_target, write_picture
from cmtool.files.runs import CHECKPOINT
from cmtool.pipelines.image_sets import ImageSet, find_images, model_images
from cmtool.settings import FidOptions

__all__ = ["draw", "lines", "place", "sides", "table"]


def sides(options: FidOptions, features: str, console: Console) -> list[ImageSet]:
    """What is to be scored: of a run all that it kept, its own checkpoint first; else the one source."""
    if options.source is None:
        return [model_images(None, options, console)]
    kept = _checkpoints_of(Path(options.source), options.every)
    if len(kept) < 2:
        return [find_images(options.source, features, options, console)]
    check_target(place(options))
    check_place(place(options), overwrite=options.overwrite, ours=made_by("fid"))
    return [model_images(path, options, console) for path in kept]


def _checkpoints_of(run: Path, every: int) -> list[Path]:
    """The checkpoint of a run, and along training every N-th of the others of each average."""
    if not every or not (run / CHECKPOINT).is_file():
        return []
    own, *others = runs.stored_averages(run)
    tracks: dict[str, list[tuple[int, Path]]] = {}
    for path, header in others:
        tracks.setdefault(_ema_name(header.average), []).append((header.images, path))
    return [own[0], *(path for track in tracks.values() for _, path in sorted(track)[::-1][::every][::-1])]


def place(options: FidOptions) -> Path:
    """Where the curve is drawn."""
    return options.chart or Path(str(options.source)) / "fid.png"


def table(sources: Sequence[ImageSet], documents: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each checkpoint: the file, how it was averaged, after how many images, and what was measured."""
    return [
        {
            "path": side.target,
            "track": _ema_name(side.header.average),
            "images": side.header.images,
            **_values(document),
        }
        for side, document in zip(sources, documents, strict=True)
        if side.header
    ]


def draw(options: FidOptions, sources: Sequence[ImageSet], documents: Sequence[dict[str, Any]]) -> None:
    """The first metric over the images seen, a line for each average."""
    rows, metric = table(sources, documents), documents[0]["metric"]
    tracks: dict[str, list[tuple[float, float]]] = {}
    for row in sorted(rows, key=lambda row: row["images"]):
        tracks.setdefault(row["track"], []).append((max(row["images"], 1), max(row[metric], 1e-9)))
    write_picture(place(options), curves(tracks, "images", metric), "fid")


def lines(rows: Sequence[dict[str, Any]], text: str, chart: Path) -> list[str]:
    """What is printed: the run's own numbers, then a line for each checkpoint."""
    metrics = [key for key in rows[0] if key not in ("path", "track", "images")]
    each = [
        "  ".join([f"{row['track']:<16}{row['images']:>12,}", *(f"{row[key]:.6g}" for key in metrics)]) for row in rows
    ]
    return [text, "", f"{'average':<16}{'images':>12}  {'  '.join(metrics)}", *each, f"curve: {chart}"]


def _values(document: dict[str, Any]) -> dict[str, float]:
    return {row["metric"]: row["value"] for row in document["metrics"]}


def _ema_name(average: dict[str, Any]) -> str:
    return average.get("ema", "the model")
