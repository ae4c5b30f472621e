import io
import json
import os
import resource
import sys
import tarfile
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from cmtool.errors import BadFile, MissingInput, UsageError, WriteFailed
from cmtool.files.images import keys, open_reader, open_writer
from cmtool.pictures import encode

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (10, 3, 5, 7)).astype(np.uint8)
GREY = RNG.integers(0, 256, (10, 1, 8, 8)).astype(np.uint8)
LABELS = np.arange(10) * 7 % 5


def write(target, images, labels=None, seeds=range(10), sizes=(4, 4, 2)):
    with open_writer(target, len(images), images.shape[1:], labels is not None) as writer:
        start = 0
        for size in sizes:
            part = slice(start, start + size)
            writer.write(list(seeds)[part], images[part], None if labels is None else labels[part])
            start += size


def read(target, size=3, **options):
    batches = list(open_reader(target, size, **options))
    labels = [batch.labels for batch in batches]
    return (
        [name for batch in batches for name in batch.names],
        np.concatenate([batch.images for batch in batches]),
        None if labels[0] is None else np.concatenate(labels),
    )


@pytest.fixture
def piped(monkeypatch):
    """Standard input with some bytes in it, as a pipe."""

    def give(data):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    return give


@pytest.mark.parametrize("target", ["out", "out/", "x.npz", "x.tar", "x.zip", "x.png"])
@pytest.mark.parametrize("images", [COLOUR, GREY], ids=["colour", "grey"])
@pytest.mark.parametrize("labels", [None, LABELS], ids=["plain", "labelled"])
def test_what_is_written_is_read(tmp_path, target, images, labels):
    write(f"{tmp_path}/{target}", images, labels)
    names, found, told = read(tmp_path / target)
    assert np.array_equal(found, images)
    assert found.dtype == np.uint8
    assert found.flags.writeable
    assert len(set(names)) == 10
    assert np.array_equal(told, labels) if labels is not None else told is None
    if labels is not None:
        assert told.dtype == np.int64


def test_tensors_and_seeds_in_any_order(tmp_path):
    seeds = [7, 123456789, 3, 2**40]
    write(tmp_path / "out", torch.from_numpy(COLOUR[:4]), torch.tensor([1, 2, 3, 0]), seeds, (4,))
    assert sorted(os.listdir(tmp_path / "out")) == [
        "00000003.png",
        "00000007.png",
        "1099511627776.png",
        "123456789.png",
        "dataset.json",
    ]
    assert np.array_equal(read(tmp_path / "out")[1], COLOUR[[2, 0, 3, 1]])
    assert read(tmp_path / "out")[2].tolist() == [3, 1, 0, 2]


def test_files_are_equal_byte_for_byte_whatever_the_batches(tmp_path):
    for target in ("x.tar", "x.npz", "x.zip", "x.npy", "x.png"):
        made = []
        for sizes in ((10,), (1,) * 10, (4, 6)):
            write(tmp_path / target, COLOUR, LABELS, sizes=sizes)
            made.append((tmp_path / target).read_bytes())
        assert made[0] == made[1] == made[2]


def test_npz_is_what_numpy_reads(tmp_path):
    write(tmp_path / "x.npz", COLOUR, LABELS)
    with np.load(tmp_path / "x.npz", allow_pickle=False) as file:
        assert sorted(file.files) == ["arr_0", "arr_1"] == keys(tmp_path / "x.npz")
        assert np.array_equal(file["arr_0"], COLOUR.transpose(0, 2, 3, 1))
        assert np.array_equal(file["arr_1"], LABELS)
        assert file["arr_1"].dtype == np.int64


def test_points_go_through_npz(tmp_path):
    points = RNG.normal(size=(10, 2)).astype(np.float32)
    write(tmp_path / "p.npz", points, LABELS)
    _, found, told = read(tmp_path / "p.npz")
    assert found.dtype == np.float32
    assert np.array_equal(found, points)
    assert np.array_equal(told, LABELS)
    for target in ("out", "x.tar", "-"):
        with pytest.raises(UsageError, match="points"):
            open_writer(target, 10, (2,))


def test_tar_is_what_tarfile_reads(tmp_path):
    write(tmp_path / "x.tar", COLOUR, LABELS)
    with tarfile.open(tmp_path / "x.tar") as archive:
        members = archive.getmembers()
        assert [m.name for m in members[:4]] == ["00000000.png", "00000000.cls", "00000001.png", "00000001.cls"]
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {(0, 0, 0, "", "", 0o644)}
        assert [int(archive.extractfile(m).read()) for m in members[1::2]] == LABELS.tolist()
        first = np.asarray(Image.open(archive.extractfile("00000000.png")))
        assert np.array_equal(first, COLOUR[0].transpose(1, 2, 0))
    assert (tmp_path / "x.tar").stat().st_size % tarfile.RECORDSIZE == 0


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_tars_of_other_programs_are_read(tmp_path, format):
    folder = "images-of-some-kind/" * 8  # above the 100 characters of the oldest format
    with tarfile.open(tmp_path / "x.tar", "w", format=format) as archive:
        for i, image in enumerate(COLOUR):
            name = f"./{folder}{i}" if format != tarfile.USTAR_FORMAT else f"./{i}é"
            for suffix, data in ((".cls", b"%d\n" % LABELS[i]), (".png", encode(image)), (".txt", b"a caption")):
                info = tarfile.TarInfo(name + suffix)
                info.size, info.mtime = len(data), 1.5
                archive.addfile(info, io.BytesIO(data))
    names, found, told = read(tmp_path / "x.tar")
    assert np.array_equal(found, COLOUR)
    assert np.array_equal(told, LABELS)
    assert names[3].endswith("3.png" if format != tarfile.USTAR_FORMAT else "3é.png")


def test_a_pipe(tmp_path, piped, capsysbinary):
    write("-", COLOUR, LABELS)
    data = capsysbinary.readouterr().out
    write(tmp_path / "x.tar", COLOUR, LABELS)
    assert data == (tmp_path / "x.tar").read_bytes()
    piped(data)
    _, found, told = read("-")
    assert np.array_equal(found, COLOUR)
    assert np.array_equal(told, LABELS)
    assert sys.stdin.buffer.read() == b""  # the other end is not cut off


def test_a_reader_starts_before_the_writer_has_ended(tmp_path):
    write(tmp_path / "x.tar", COLOUR, LABELS)
    data = (tmp_path / "x.tar").read_bytes()
    ours, theirs = os.pipe()
    with io.TextIOWrapper(os.fdopen(ours, "rb")) as end, pytest.MonkeyPatch.context() as patch:
        os.write(theirs, data[:9000])
        patch.setattr(sys, "stdin", end)
        batches = open_reader("-", 2)
        assert np.array_equal(next(batches).images, COLOUR[:2])
        os.write(theirs, data[9000:])
        os.close(theirs)
        assert sum(len(batch) for batch in batches) == 8


def test_terminals_are_refused(monkeypatch):
    class Terminal(io.TextIOWrapper):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stdout", Terminal(io.BytesIO()))
    monkeypatch.setattr(sys, "stdin", Terminal(io.BytesIO()))
    with pytest.raises(UsageError, match="binary data to a terminal"):
        open_writer("-", 1, (1, 8, 8))
    with pytest.raises(UsageError, match="nothing is piped in"):
        open_reader("-")


def test_a_closed_pipe_passes_and_a_full_device_does_not(monkeypatch):
    ours, theirs = os.pipe()
    os.close(ours)
    with os.fdopen(theirs, "wb", buffering=0) as end:
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(end, write_through=True))
        with pytest.raises(BrokenPipeError):
            write("-", COLOUR)
    with open("/dev/full", "wb", buffering=0) as full:
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(full))
        with pytest.raises(WriteFailed, match="cannot write standard output: No space left"):
            write("-", COLOUR)


@pytest.mark.parametrize("target", ["x.gif", "x.jpg", "x.v2"])
def test_unknown_kinds_are_refused(tmp_path, target):
    with pytest.raises(UsageError, match="cannot write images") as caught:
        open_writer(tmp_path / target, 1, (1, 8, 8))
    assert ".npz" in caught.value.hint
    (tmp_path / "x.txt").write_text("hello")
    with pytest.raises(UsageError, match="cannot read images"):
        open_reader(tmp_path / "x.txt")
    with pytest.raises(MissingInput):
        open_reader(tmp_path / "x.gif")


def test_a_single_picture_and_its_channels(tmp_path):
    (tmp_path / "x.png").write_bytes(encode(GREY[0]))
    _, found, told = read(tmp_path / "x.png")
    assert np.array_equal(found, GREY[:1])
    assert told is None
    assert np.array_equal(read(tmp_path / "x.png", channels=3)[1], GREY[:1].repeat(3, 1))
    write(tmp_path / "g.npz", GREY)
    assert np.array_equal(read(tmp_path / "g.npz", channels=3)[1], GREY.repeat(3, 1))


def test_a_folder_is_read_in_the_order_of_its_paths(tmp_path):
    for name, image in (("b/x.png", COLOUR[2]), ("a/y.PNG", COLOUR[0]), ("a/z.png", COLOUR[1]), ("c.png", COLOUR[3])):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(encode(image))
    for name in ("notes.txt", ".hidden.png", "a/._y.png"):
        (tmp_path / name).write_text("no picture")
    (tmp_path / "dataset.json").write_text('{"labels": [["a/y.PNG", 4], ["b/x.png", 2], ["a/z.png", 0], ["c.png", 1]]}')
    names, found, told = read(tmp_path)
    assert [name.removeprefix(f"{tmp_path}/") for name in names] == ["a/y.PNG", "a/z.png", "b/x.png", "c.png"]
    assert np.array_equal(found, COLOUR[:4])
    assert told.tolist() == [4, 0, 2, 1]


def test_grey_among_colour(tmp_path):
    for name, image in (("a", COLOUR[0]), ("b", COLOUR[1][:1])):
        (tmp_path / f"{name}.png").write_bytes(encode(image))
    assert np.array_equal(read(tmp_path)[1][1], COLOUR[1][:1].repeat(3, 0))
    (tmp_path / "0.png").write_bytes(encode(COLOUR[2][:1]))
    with pytest.raises(BadFile, match=r"a\.png is in colour, but .*0\.png is grey"):
        read(tmp_path)
    assert read(tmp_path, channels=1)[1].shape == (3, 1, 5, 7)


def test_mixed_sizes_name_both(tmp_path):
    (tmp_path / "a.png").write_bytes(encode(COLOUR[0]))
    (tmp_path / "b.png").write_bytes(encode(GREY[0]))
    with pytest.raises(BadFile, match=r"b\.png is 8x8, but .*a\.png is 7x5") as caught:
        read(tmp_path, 1)
    assert "resize" in caught.value.hint


def test_a_text_file_called_png_is_named(tmp_path):
    (tmp_path / "a.png").write_text("just text\n" * 10)
    with pytest.raises(BadFile, match=r"a\.png is not a picture"):
        read(tmp_path)


def test_an_empty_folder_has_nothing(tmp_path):
    with pytest.raises(MissingInput, match="no pictures"):
        open_reader(tmp_path)


def test_labels_of_an_earlier_call_are_kept(tmp_path):
    write(tmp_path, COLOUR[:4], LABELS[:4], range(4), (4,))
    write(tmp_path, COLOUR[4:], LABELS[4:], range(4, 10), (6,))
    assert np.array_equal(read(tmp_path)[2], LABELS)
    (tmp_path / "dataset.json").write_text("[1, 2]")
    with pytest.raises(BadFile, match="holds no labels"):
        open_reader(tmp_path)


class Stop(Exception):
    pass


@pytest.mark.parametrize("error", [Stop, KeyboardInterrupt, OSError, BrokenPipeError])
def test_what_happens_when_generation_stops(tmp_path, error):
    for target in ("x.npz", "x.tar", "x.zip", "x.npy", "x.png", "out"):
        with pytest.raises(error), open_writer(tmp_path / target, 10, (3, 5, 7), True) as writer:
            writer.write(range(4), COLOUR[:4], LABELS[:4])
            raise error
    assert os.listdir(tmp_path) == ["out"]
    assert np.array_equal(read(tmp_path / "out")[1], COLOUR[:4])
    assert np.array_equal(read(tmp_path / "out")[2], LABELS[:4])


@pytest.mark.parametrize("target", ["x.npz", "x.tar", "x.zip", "x.npy", "out"])
def test_a_full_disk(tmp_path, target):
    noise = RNG.integers(0, 256, (8, 3, 64, 64)).astype(np.uint8)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (0, 5000, 9000) + (() if target == "out" else (60_000,)):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            with pytest.raises(WriteFailed, match="File too large"):
                write(tmp_path / target, noise, sizes=(4, 4))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_unwritable_places(tmp_path):
    (tmp_path / "file").touch()
    for target in ("file/out", "file/x.npz", "file/x.tar"):
        with pytest.raises(WriteFailed, match="cannot write"):
            write(tmp_path / target, COLOUR)


def damaged_forms(whole):
    pick = np.random.default_rng(1)
    for place in pick.integers(0, len(whole), 150).tolist():
        yield whole[:place]
        yield whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :]


@pytest.mark.parametrize("target", ["x.npz", "x.tar", "x.zip"])
def test_damage_is_refused_or_harmless_but_never_silent(tmp_path, target):
    path = tmp_path / target
    write(path, COLOUR, LABELS)
    _, images, labels = read(path)
    whole = path.read_bytes()
    for damaged in damaged_forms(whole):
        path.write_bytes(damaged)
        try:
            again = read(path)
        except BadFile as error:
            assert "\n" not in error.message
        else:  # a bit that neither the pixels nor the labels depend on, or the text of a name or a label in a tar
            assert np.array_equal(again[1], images)
            assert np.array_equal(again[2], labels) or target == "x.tar"
    for cut in range(0, min(len(whole), len(whole.rstrip(b"\0")) + 500), 50):  # beyond it, tar has only padding
        path.write_bytes(whole[:cut])
        with pytest.raises(BadFile):
            read(path)


def member(archive, name, data=b"", **facts):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in facts.items():
        setattr(info, key, value)
    archive.addfile(info, io.BytesIO(data))


PNG = encode(GREY[0])


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ([("../x.png", PNG, {})], "not safe"),
        ([("a/../../x.png", PNG, {})], "not safe"),
        ([("/etc/x.png", PNG, {})], "not safe"),
        ([("a\nb.png", PNG, {})], "not safe"),
        ([("x.png", b"", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"})], "link or a device"),
        ([("x.png", b"", {"type": tarfile.LNKTYPE, "linkname": "y.png"})], "link or a device"),
        ([("x.png", b"", {"type": tarfile.CHRTYPE})], "link or a device"),
        ([("x.png", b"", {"type": tarfile.FIFOTYPE})], "link or a device"),
        ([("x.png", PNG, {}), ("x.png", PNG, {})], "twice"),
        ([("x.png", PNG, {}), ("x.cls", b"three", {})], "not a label"),
        ([("x.png", PNG, {}), ("x.cls", b"9" * 30, {})], "not a label"),
        ([("x.png", b"text", {})], "not a picture"),
        ([("x.txt", b"text", {})], "no pictures"),
        ([], "no pictures"),
    ],
)
def test_hostile_tars(tmp_path, members, says):
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.GNU_FORMAT) as archive:
        for name, data, facts in members:
            member(archive, name, data, **facts)
    with pytest.raises(BadFile, match=says):
        read(tmp_path / "x.tar")


def test_an_archive_that_goes_on_after_its_end(tmp_path):
    write(tmp_path / "x.tar", GREY)
    whole = (tmp_path / "x.tar").read_bytes()
    (tmp_path / "x.tar").write_bytes(whole + whole)
    with pytest.raises(BadFile, match="goes on after its end"):
        read(tmp_path / "x.tar")


def test_a_huge_member_is_refused_before_it_is_read(tmp_path):
    info = tarfile.TarInfo("x.png")
    info.size = 8 << 30
    (tmp_path / "x.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(10240))
    with pytest.raises(BadFile, match="larger than"):
        read(tmp_path / "x.tar")


def npz(path, **arrays):
    np.savez(path, **arrays)
    return path


def test_other_npz_layouts(tmp_path):
    rows = COLOUR.transpose(0, 2, 3, 1)
    assert np.array_equal(read(npz(tmp_path / "a.npz", samples=rows))[1], COLOUR)
    assert np.array_equal(read(npz(tmp_path / "b.npz", arr_0=GREY[:, 0], mu=np.zeros(3)))[1], GREY)
    np.savez_compressed(tmp_path / "c.npz", arr_0=rows, arr_1=LABELS.astype(np.int32))
    assert np.array_equal(read(tmp_path / "c.npz")[1], COLOUR)
    assert np.array_equal(read(tmp_path / "c.npz")[2], LABELS)


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"mu": np.zeros(3), "sigma": np.zeros((3, 3))}, "holds no images, but mu, sigma"),
        ({"arr_0": np.zeros((2, 8, 8, 4), np.uint8)}, r"uint8 \[N, 8, 8, 4\], which are no images"),
        ({"arr_0": np.zeros((2, 8, 8, 3), np.float32)}, "float32"),
        ({"arr_0": np.array([{"a": 1}], dtype=object)}, "not an .npz file, or is damaged"),
        ({"arr_0": np.zeros((2, 8, 8), np.float32)}, r"float32 .*, which are no images"),
        ({"arr_0": np.zeros((2, 8, 8, 3), np.uint8), "arr_1": np.array([0, -1])}, "a label that is no class: -1"),
        ({"arr_0": np.zeros((2, 8, 8, 3), np.uint8), "arr_1": np.zeros(3, np.int64)}, "arr_1 is not their labels"),
        ({"arr_0": np.zeros((2, 8, 8, 3), np.uint8), "arr_1": np.zeros(2)}, "arr_1 is not their labels"),
        ({"arr_0": np.uint8(3)}, "damaged"),
    ],
)
def test_npz_files_that_are_something_else(tmp_path, arrays, says):
    with pytest.raises(BadFile, match=says):
        read(npz(tmp_path / "x.npz", **arrays))


def test_an_array_that_is_there_twice(tmp_path):
    write(tmp_path / "x.npz", GREY)
    with zipfile.ZipFile(tmp_path / "x.npz", "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("arr_0.npy", b"")
    with pytest.raises(BadFile, match="twice"):
        read(tmp_path / "x.npz")


def test_announcing_more_than_comes_is_our_own_mistake(tmp_path):
    with pytest.raises(AssertionError), open_writer(tmp_path / "x.npz", 11, (3, 5, 7)) as writer:
        writer.write(range(10), COLOUR)
    assert os.listdir(tmp_path) == []


def through(path, n, batch):
    with open_writer(path, n, batch.shape[1:], True) as writer:
        for start in range(0, n, len(batch)):
            writer.write(range(start, start + len(batch)), batch, range(len(batch)))
    assert sum(len(again) for again in open_reader(path, len(batch))) == n


@pytest.mark.parametrize(
    ("target", "n"), [("x.npz", 5000), ("x.tar", 1500), pytest.param("x.tar", 5000, marks=pytest.mark.slow)]
)
def test_memory_stays_flat(tmp_path, target, n):
    """Images of 3 kB through writer and reader: megabytes of pixels never stand in memory together."""
    batch = RNG.integers(0, 256, (50, 3, 32, 32)).astype(np.uint8)
    through(tmp_path / target, 100, batch)
    tracemalloc.start()
    try:
        through(tmp_path / target, n, batch)
        assert tracemalloc.get_traced_memory()[1] < 1_200_000 + 250 * n  # names, by which a repeated one is known
    finally:
        tracemalloc.stop()


def test_labels_are_json_that_edm_reads(tmp_path):
    write(tmp_path, GREY[:2], LABELS[:2], range(2), (2,))
    assert json.loads((tmp_path / "dataset.json").read_text()) == {"labels": [["00000000.png", 0], ["00000001.png", 2]]}
