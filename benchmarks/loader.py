"""Images a second through cmtool's loader and through that of the field, in pairs: ``python benchmarks/loader.py``.

Both sides are measured in turn, the other one first each time, and the figure is the median of the ratios of these
pairs, which a busy machine changes little. ``first`` is the time from opening the file to the end of the first epoch,
``steady`` that of the epochs after it. Both sides give batches uint8 [B, C, H, W] with labels, and must have read the
same pictures. JSON goes to standard output.
"""

import argparse
import io
import json
import os
import platform
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from reference_loader import read_batches

from cmtool.datasets.folder import folder
from cmtool.training.batches import EpochOrder
from cmtool.training.cache import Storage, open_cache
from cmtool.training.memory import reading_threads
from cmtool.training.read_ahead import read_parts

CLASSES = 10
SLOWER = 100  # epochs of ours that are measured for one of the other, which takes about as long
Batches = Callable[[], Iterator[torch.Tensor]]


@dataclass(frozen=True)
class Seconds:
    """Of an epoch: the first with the opening of the file, and each of those after it."""

    first: float
    steady: float


def pictures(count: int, side: int) -> Iterator[np.ndarray]:
    """Colour pictures uint8 [side, side, 3], about as compressible as photographs."""
    random = np.random.default_rng(0)
    for _ in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (side // 4, side // 4, 3)).astype(np.uint8))
        fine = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC)).astype(int)
        yield np.clip(fine + random.integers(-6, 7, fine.shape), 0, 255).astype(np.uint8)


def pack(root: Path, images: int, side: int) -> dict[str, Path]:
    """The same pictures in every container, with labels."""
    places = {"zip": root / "it.zip", "tar": root / "it.tar", "npz": root / "it.npz", "folder": root / "it"}
    places["folder"].mkdir()
    pixels, labels = [], {}
    with zipfile.ZipFile(places["zip"], "w") as packed, tarfile.open(places["tar"], "w") as tar:
        for i, image in enumerate(pictures(images, side)):
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, "PNG")
            data, name = buffer.getvalue(), f"{i // 1000:05d}/img{i:08d}.png"
            packed.writestr(name, data)
            labels[name] = i % CLASSES
            for suffix, content in (("png", data), ("cls", b"%d" % (i % CLASSES))):
                info = tarfile.TarInfo(f"{i:08d}.{suffix}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            (places["folder"] / f"{i:08d}.png").write_bytes(data)
            pixels.append(image)
        packed.writestr("dataset.json", json.dumps({"labels": list(labels.items())}))
    np.savez(places["npz"], arr_0=np.stack(pixels), arr_1=np.array(list(labels.values())))
    return places


def ours(path: Path, batch: int, memory: int | None) -> Iterator[torch.Tensor]:
    """Batches of cmtool without end; of ``memory`` 0 the images are streamed, of None they stay."""
    dataset = folder(path)
    cache, order = open_cache(dataset, Storage(most=memory)), EpochOrder(0, len(dataset))
    parts = (order.indices(range(n, n + batch)) for n in count(0, batch))
    with closing(read_parts(cache, parts)) as batches:
        for images, _ in batches:
            yield images


def measure(batches: Batches, steps: int, epochs: int) -> tuple[Seconds, int]:
    """The seconds of an epoch of so many steps, and the sum of all pixels of the first."""
    began, total = time.perf_counter(), 0
    walk = batches()
    for _ in range(steps):
        total += int(next(walk).sum(dtype=torch.int64))
    first = time.perf_counter() - began
    began = time.perf_counter()
    for _ in range(steps * epochs):
        next(walk)
    steady = (time.perf_counter() - began) / epochs
    del walk
    return Seconds(first, steady), total


def compare(mine: Batches, theirs: Batches, kept: bool, options: argparse.Namespace) -> dict[str, float]:
    """Medians of the ratios of pairs, and the rates of both sides, which keep their images or not."""
    steps, pairs = options.images // options.batch, []
    for k in range(options.pairs):
        few = max(1, options.epochs // SLOWER)
        sides = [(mine, options.epochs if kept else few), (theirs, few)]
        found = [measure(*(side, steps, epochs)) for side, epochs in (sides if k % 2 else sides[::-1])]
        (own, sum_of_own), (other, sum_of_other) = found if k % 2 else found[::-1]
        if sum_of_own != sum_of_other:
            raise SystemExit("both sides must read the same pictures, and do not")
        pairs.append((own, other))
    images = steps * options.batch
    return {
        "first_ratio": round(median(b.first / a.first for a, b in pairs), 2),
        "steady_ratio": round(median(b.steady / a.steady for a, b in pairs), 2),
        "first_images_per_second": round(images / median(a.first for a, _ in pairs)),
        "steady_images_per_second": round(images / median(a.steady for a, _ in pairs)),
        "reference_first_images_per_second": round(images / median(b.first for _, b in pairs)),
        "reference_steady_images_per_second": round(images / median(b.steady for _, b in pairs)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Images a second through cmtool's loader and another, in pairs.")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--batch", type=int, default=250, help="a divisor of --images")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument(
        "--epochs", type=int, default=200, help="of ours after the first, a hundredth as many of the other"
    )
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 0], help="processes of the DataLoader")
    parser.add_argument("--containers", nargs="+", default=["zip", "tar", "npz", "folder"])
    options = parser.parse_args()
    if options.images % options.batch:
        parser.error("--batch must be a divisor of --images")
    rows = []
    with tempfile.TemporaryDirectory() as root:
        places = pack(Path(root), options.images, options.side)
        for container in options.containers:
            for kept, workers in ((kept, workers) for kept in (True, False) for workers in options.workers):
                mine = lambda: ours(places[container], options.batch, None if kept else 0)  # noqa: B023, E731
                theirs = lambda: read_batches(places["zip"], options.batch, workers, kept)  # noqa: B023, E731
                row = {"container": container, "cached": kept, "workers": workers}
                rows.append(row | compare(mine, theirs, kept, options))
                print(json.dumps(rows[-1]), file=sys.stderr)
    facts = {"cpus": os.cpu_count(), "threads": reading_threads(), "python": platform.python_version()}
    facts |= {"torch": torch.__version__, "original": bool(os.environ.get("EDM_REPO")), **vars(options)}
    print(json.dumps({**facts, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
