"""Streams that were cut anywhere end with the bytes of one that was not; so do those that several processes wrote."""

import contextlib
import io
import os
import resource
import shutil
import tarfile
import zipfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from cmtool.errors import UsageError, WriteFailed
from cmtool.files.images import resuming_writer
from cmtool.files.streams.archive_writer import beside
from cmtool.files.streams.manifest import ImageSettings, hold_manifest
from cmtool.files.streams.reader import images_of
from cmtool.files.streams.zip_writer import ZipWriter
from cmtool.options.hint_words import word_hint

RNG = np.random.default_rng(0)
N = 23
IMAGES = RNG.integers(0, 256, (100, 3, 5, 7)).astype(np.uint8)
LABELS = [int(seed * 7 % 5) for seed in range(100)]
TARGETS = ["out/", "x.tar", "x.zip", "x.npz", "x.npy"]
FILES = TARGETS[1:]


def wanted(n=N, labelled=True, model="a"):
    return ImageSettings(range(n), LABELS[:n] if labelled else None, (3, 5, 7), {"model": model})


class Cut(Exception):
    pass


def write(target, order, shard=1, shards=1, most=None, size=4):
    """Write what is missing, at most ``most`` batches of it; the number of images that were missing."""
    part = order.cut(shard, shards)
    with resuming_writer(str(target), order, shard, shards) as (writer, places):
        for k, start in enumerate(range(0, len(places), size)):
            if k == most:
                raise Cut
            seeds = [part.seeds[i] for i in places[start : start + size]]
            labels = None if part.labels is None else [LABELS[seed] for seed in seeds]
            writer.write(seeds, IMAGES[seeds], labels)
    return len(places)


def tree(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}


def place(tmp_path, name, target):
    (tmp_path / name).mkdir()
    return f"{tmp_path / name}/{target}"


@pytest.fixture(params=TARGETS)
def target(request):
    return request.param


@pytest.mark.parametrize("labelled", [True, False], ids=["labelled", "plain"])
def test_cut_at_every_batch(tmp_path, target, labelled):
    order = wanted(labelled=labelled)
    write(place(tmp_path, "whole", target), order)
    other = place(tmp_path, "cut", target)
    for most in (1, 2, 1, 0, 1):
        with pytest.raises(Cut):
            write(other, order, most=most)
    assert write(other, order) == N - 4 * 5
    assert tree(tmp_path / "cut") == tree(tmp_path / "whole")
    assert write(other, order) == 0
    assert tree(tmp_path / "cut") == tree(tmp_path / "whole")


@pytest.mark.parametrize("target", FILES)
def test_a_part_that_ends_at_any_byte(tmp_path, target):
    """What SIGKILL leaves: the file and its journal both cut, at places of their own."""
    order = wanted(9)
    write(place(tmp_path, "whole", target), order)
    whole = tree(tmp_path / "whole")
    path = Path(place(tmp_path, "cut", target))
    lines = beside(path, "manifest.jsonl")
    data, text = whole[target], whole[lines.name]
    for end in RNG.integers(0, len(data) + 1, 60).tolist():
        beside(path, "part").write_bytes(data[:end])
        beside(lines, "part").write_bytes(text[: RNG.integers(0, len(text) + 1)])
        assert write(path, order) <= 9
        assert tree(tmp_path / "cut") == whole
        path.unlink()
        lines.unlink()


@pytest.mark.parametrize("target", FILES)
def test_killed_between_the_two_new_names(tmp_path, target):
    path = Path(place(tmp_path, "out", target))
    write(path, wanted(model="b"))
    old = path.read_bytes()
    write(path, wanted())
    whole = tree(tmp_path / "out")
    path.rename(beside(path, "part"))
    path.write_bytes(old)  # the target is still the old one, and the manifest the new one
    assert write(path, wanted()) == 0
    assert tree(tmp_path / "out") == whole


def test_another_model_begins_anew_and_leaves_nothing_behind(tmp_path, target):
    order, other = wanted(), wanted(model="b")
    write(place(tmp_path, "whole", target), order)
    path = place(tmp_path, "out", target)
    with pytest.raises(Cut):
        write(path, other, most=3)
    assert write(path, order) == N
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")
    assert write(path, other) == N
    assert write(path, order) == N


def test_an_image_whose_maker_nobody_knows_is_made_again(tmp_path):
    """Killed after the picture of another model took a name, and before its line was written."""
    folder = tmp_path / "out"
    write(folder, wanted())
    before = tree(folder)
    with pytest.raises(Cut):
        write(folder, wanted(model="b"), most=0)
    (folder / "00000003.png").write_bytes(before["00000004.png"])
    with pytest.raises(Cut):
        write(folder, wanted(model="b"), most=0)
    assert write(folder, wanted()) == N
    assert tree(folder) == before
    (folder / "00000007.png").unlink()
    assert write(folder, wanted()) == 1
    assert tree(folder) == before


@pytest.mark.parametrize("target", ["out/", "x.tar", "x.zip"])
def test_more_images_add_to_those_that_are_there(tmp_path, target):
    path = place(tmp_path, "out", target)
    write(path, wanted(9))
    assert write(path, wanted()) == N - 9
    write(place(tmp_path, "whole", target), wanted())
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


@pytest.mark.parametrize("shards", [2, 3, 30])
def test_parts_make_what_one_process_makes(tmp_path, target, shards):
    order = wanted()
    write(place(tmp_path, "whole", target), order)
    path = place(tmp_path, "parts", target)
    for shard in RNG.permutation(shards).tolist():
        if RNG.random() < 0.5:
            with contextlib.suppress(Cut):
                write(path, order, shard + 1, shards, most=0)
        write(path, order, shard + 1, shards)
    assert tree(tmp_path / "parts") == tree(tmp_path / "whole")
    assert write(path, order, 1, shards) == 0
    assert tree(tmp_path / "parts") == tree(tmp_path / "whole")


def test_parts_that_grew_from_fewer_images(tmp_path):
    path = place(tmp_path, "parts", "out/")
    for n in (11, N):
        for shard in (2, 1):
            write(path, wanted(n), shard, 2)
    write(place(tmp_path, "whole", "out/"), wanted())
    assert tree(tmp_path / "parts") == tree(tmp_path / "whole")


def test_the_parts_are_cut_evenly():
    for n, shards in ((23, 5), (3, 8), (50_000, 7)):
        parts = [ImageSettings(range(n), None, (1,), {}).cut(k + 1, shards).seeds for k in range(shards)]
        assert [seed for part in parts for seed in part] == list(range(n))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize(("target", "lock"), [("x.tar", "x.tar.part"), ("out/", "out/manifest.jsonl.part")])
def test_two_processes_at_once(tmp_path, target, lock):
    with hold_manifest(tmp_path / lock), pytest.raises(UsageError, match="another process is writing") as caught:
        write(f"{tmp_path}/{target}", wanted())
    assert "--shard" in word_hint(caught.value.hint)
    assert write(f"{tmp_path}/{target}", wanted()) == N


def test_a_full_disk(tmp_path, target):
    """What is there stays, the old file too; with room again the run goes on."""
    path = place(tmp_path, "out", target)
    write(path, wanted(9))
    before = tree(tmp_path / "out")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ({"out/": 100, "x.npy": 1200}.get(target, 3000), hard))
    try:
        with pytest.raises(WriteFailed, match="File too large"):
            write(path, wanted())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    after = tree(tmp_path / "out")
    assert {name: after[name] for name in before} == before
    assert write(path, wanted()) <= N
    write(place(tmp_path, "whole", target), wanted())
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_pictures_and_pipes_have_no_parts(tmp_path, capsysbinary):
    with pytest.raises(UsageError, match="cannot be written in parts"):
        write(tmp_path / "x.png", wanted(), 1, 2)
    assert write(tmp_path / "x.png", wanted()) == N
    assert np.array_equal(next(iter(images_of(tmp_path / "x.png", N))).images, IMAGES[:N])
    write("-", wanted(), 2, 2)
    with tarfile.open(fileobj=io.BytesIO(capsysbinary.readouterr().out)) as archive:
        assert archive.getnames()[::2] == [f"{seed:08d}.png" for seed in range(N // 2, N)]


def test_a_fifo_is_written_through(tmp_path):
    os.mkfifo(tmp_path / "x.tar")
    reader = os.open(tmp_path / "x.tar", os.O_RDONLY | os.O_NONBLOCK)
    write(tmp_path / "x.tar", wanted(4))
    write(tmp_path / "y.tar", wanted(4))
    assert os.read(reader, 1 << 20) == (tmp_path / "y.tar").read_bytes()
    os.close(reader)


def test_a_file_without_its_manifest_is_made_again(tmp_path, target):
    path = place(tmp_path, "out", target)
    write(path, wanted())
    whole = tree(tmp_path / "out")
    for manifest in (tmp_path / "out").rglob("manifest.jsonl"):
        manifest.unlink()
    for manifest in (tmp_path / "out").rglob("*.manifest.jsonl"):
        manifest.unlink()
    assert write(path, wanted()) == N
    assert tree(tmp_path / "out") == whole


def test_zip_is_what_other_programs_read(tmp_path):
    write(tmp_path / "x.zip", wanted())
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        assert names == [*(f"00000/img{seed:08d}.png" for seed in range(N)), "dataset.json"]
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        assert {info.external_attr >> 16 for info in archive.infolist()} == {0o100644}
    if shutil.which("unzip"):
        assert os.system(f"cd {tmp_path} && unzip -qq x.zip -d there") == 0
        assert (tmp_path / "there" / names[3]).read_bytes() == (zipfile.ZipFile(tmp_path / "x.zip").read(names[3]))


def test_a_zip_of_very_many_files_and_of_very_many_bytes(tmp_path):
    """Above 65,535 members and beyond 4 GiB, in a file with a hole."""
    with open(tmp_path / "many.zip", "wb") as file:
        archive = ZipWriter(file)
        for i in range(66_000):
            archive.put(str(i), b"")
        archive.finish()
    with zipfile.ZipFile(tmp_path / "many.zip") as found:
        assert len(found.namelist()) == 66_000
    with open(tmp_path / "large.zip", "w+b") as file:
        archive, size = ZipWriter(file), 5 << 30
        archive.begin("hole", size)
        archive.at += size
        file.seek(archive.at)
        archive.put("last", b"the end")
        archive.finish()
        assert [entry.size for entry in archive.found()] == [size, 7]
    with zipfile.ZipFile(tmp_path / "large.zip") as found:
        assert [info.file_size for info in found.infolist()] == [size, 7]
        assert found.read("last") == b"the end"


def test_manifests_say_what_they_are_told(tmp_path):
    write(tmp_path / "x.tar", wanted(3))
    text = (tmp_path / "x.tar.manifest.jsonl").read_text()
    assert text == "".join(f'{{"seed": {i}, "class": {LABELS[i]}, "model": "a"}}\n' for i in range(3))
    write(tmp_path / "out", wanted(3))
    assert (tmp_path / "out" / "manifest.jsonl").read_text() == text
    assert all(a < b for a, b in pairwise(sorted(os.listdir(tmp_path / "out"))))
