"""A hundred thousand images stream through a run in memory that does not grow."""

import io
import json
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

COUNT = 100_000
SCRIPT = """
import json, sys, time
from pathlib import Path
from cmtool.datasets.folder import folder
from cmtool.training.batches import BatchConfig, Batches
from cmtool.training.cache import Storage, StreamedImages
from cmtool.training.read_ahead import ReadAhead

def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmRSS")).split()[1])

before = resident()
dataset = folder(sys.argv[1])
batches = Batches(dataset, BatchConfig(250, flip=True), storage=Storage(most=0))
assert isinstance(batches.cache, StreamedImages)
opened, most, total, began = resident(), 0, 0.0, time.monotonic()
with ReadAhead(batches) as ahead:
    for n in range(0, len(dataset), 250):
        batch = ahead.get(n)
        total += float((batch.x.double() + 1).sum())
        most = max(most, resident())
seconds = time.monotonic() - began
print(json.dumps({"count": len(dataset), "classes": len(dataset.classes), "total": total, "opening": opened - before,
                  "epoch": most - opened, "seconds": seconds}))
"""


def pngs() -> tuple[list[bytes], list[int]]:
    """A few pictures of 8 x 8 pixels, and the sum of the pixels of each."""
    files, sums = [], []
    for image in np.random.default_rng(0).integers(0, 256, (100, 8, 8)).astype(np.uint8):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        files.append(buffer.getvalue())
        sums.append(int(image.sum()))
    return files, sums


def zipped(path: Path, files: list[bytes]) -> Path:
    names = [f"{i // 1000:05d}/img{i:08d}.png" for i in range(COUNT)]
    with zipfile.ZipFile(path.with_suffix(".zip"), "w") as archive:
        for i, name in enumerate(names):
            archive.writestr(name, files[i % len(files)])
        archive.writestr("dataset.json", json.dumps({"labels": [[name, i % 10] for i, name in enumerate(names)]}))
    return path.with_suffix(".zip")


def tarred(path: Path, files: list[bytes]) -> Path:
    with path.with_suffix(".tar").open("wb") as out:
        for i in range(COUNT):
            for suffix, data in (("cls", b"%d" % (i % 10)), ("png", files[i % len(files)])):
                info = tarfile.TarInfo(f"{i:08d}.{suffix}")
                info.size = len(data)
                out.write(info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % 512))
        out.write(bytes(1024))
    return path.with_suffix(".tar")


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
@pytest.mark.parametrize("pack", [zipped, tarred])
def test_an_epoch_of_many_images_takes_little_memory(pack, tmp_path):
    files, sums = pngs()
    path = pack(tmp_path / "many", files)
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(path)], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    print(found)
    assert (found["count"], found["classes"]) == (COUNT, 10)
    assert found["total"] == pytest.approx(sum(sums) * COUNT / len(files) / 127.5, rel=1e-6)
    assert found["opening"] < 100_000_000
    assert found["epoch"] < 50_000_000
