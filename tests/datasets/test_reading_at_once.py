"""Any number of threads and forked processes read one data set, and see what one reader sees."""

import io
import multiprocessing
import tarfile
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cmtool.datasets import positional
from cmtool.datasets.folder import folder
from cmtool.datasets.positional import Names, PositionalFile

IMAGES = np.random.default_rng(1).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


@pytest.fixture(params=["zip", "deflated", "tar", "npz", "npy", "folder"])
def packed(request, tmp_path) -> Path:
    kind, path = request.param, tmp_path / f"x.{request.param}"
    if kind in ("zip", "deflated"):
        path = tmp_path / "x.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED if kind == "zip" else zipfile.ZIP_DEFLATED) as archive:
            for k, pixels in enumerate(IMAGES):
                archive.writestr(f"{k:03d}.png", png(pixels))
    elif kind == "tar":
        with tarfile.open(path, "w") as archive:
            for k, pixels in enumerate(IMAGES):
                data, info = png(pixels), tarfile.TarInfo(f"{k:03d}.png")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    elif kind == "npz":
        np.savez(path, IMAGES)
    elif kind == "npy":
        np.save(path, IMAGES)
    else:
        path.mkdir()
        for k, pixels in enumerate(IMAGES):
            (path / f"{k:03d}.png").write_bytes(png(pixels))
    return path


def expected(indices):
    return torch.from_numpy(IMAGES[list(indices)].transpose(0, 3, 1, 2).copy())


def test_threads_see_what_one_reader_sees(packed):
    data, ready = folder(packed), threading.Barrier(8)
    orders = [np.random.default_rng(k).permutation(len(data)).tolist() for k in range(8)]

    def read(order):
        ready.wait(60)
        return [torch.equal(data.batch(order)[0], expected(order)) for _ in range(10)]

    with ThreadPoolExecutor(8) as pool:
        assert all(map(all, pool.map(read, orders)))


def read_all(data, answer):
    answer.put([data[i][0].tolist() for i in range(len(data))])


def test_forked_and_spawned_processes_read_on(packed):
    data = folder(packed)
    assert torch.equal(data[0][0], expected([0])[0])
    for way in ("fork", "spawn"):
        context = multiprocessing.get_context(way)
        answer = context.Queue()
        process = context.Process(target=read_all, args=(data, answer))
        process.start()
        assert answer.get(timeout=120) == expected(range(40)).tolist()
        process.join()
    assert torch.equal(data[-1][0], expected([39])[0])


def test_a_batch_is_the_items(packed):
    for options in ({}, {"size": 5}, {"channels": 1}, {"size": "4x6", "crop": "squeeze"}):
        data = folder(packed, **options)
        order = [7, 7, -1, 0, 31]
        assert torch.equal(data.batch(order)[0], torch.stack([data[i][0] for i in order]))


@pytest.mark.parametrize("system", ["posix", "windows"])
def test_a_file_is_read_at_places(tmp_path, monkeypatch, system):
    path = tmp_path / "a"
    path.write_bytes(bytes(range(200)))
    if system == "windows":
        monkeypatch.setattr(positional, "pread", None)
    for kept in (True, False):
        file = PositionalFile(path, kept)
        assert file.read(10, 5) == bytes(range(10, 15))
        assert file.read(190, 50) == bytes(range(190, 200))
        assert file.read(500, 5) == b""
        assert file.size == 200


def test_names_keep_what_they_were_given():
    given = ["", "a/b.png", "\u00e9\U0001f408", "caf\udce9", "x\ny"]
    names = Names(iter(given))
    assert list(names) == given
    assert names[-1] == "x\ny" and names[1:3] == given[1:3]
    with pytest.raises(IndexError):
        names[5]
