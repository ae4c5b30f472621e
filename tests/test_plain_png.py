"""The short way through a common PNG gives what Pillow gives, and leaves everything else to it."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from cmtool import png
from cmtool.errors import BadFile
from cmtool.pictures import decode

RANDOM = np.random.default_rng(0)
COLOUR = RANDOM.integers(0, 256, (9, 7, 3)).astype(np.uint8)
GREY = COLOUR[..., 0].copy()
MOST = 1000


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def written(rows: np.ndarray, kind: int = 2, extra: bytes = b"", cuts: int = 1, **header: int) -> bytes:
    """A PNG by hand: rows of uint8 [H, W, C], each with another of the five filters."""
    height, width = rows.shape[:2]
    head = {"width": width, "height": height, "depth": 8, "kind": kind, "packing": 0, "filter": 0, "interlaced": 0}
    values = rows.astype(int)
    left = np.pad(values, ((0, 0), (1, 0), (0, 0)))[:, :-1]
    up = np.pad(values, ((1, 0), (0, 0), (0, 0)))[:-1]
    corner = np.pad(values, ((1, 0), (1, 0), (0, 0)))[:-1, :-1]
    rough = left + up - corner
    distances = np.stack([abs(rough - side) for side in (left, up, corner)])
    paeth = np.choose(distances.argmin(0), [left, up, corner])  # the first of those that are as near, as specified
    guesses = [0 * values, left, up, (left + up) // 2, paeth]
    packed = zlib.compress(
        b"".join(
            bytes([y % 5]) + ((values - guesses[y % 5])[y] % 256).astype(np.uint8).tobytes() for y in range(height)
        )
    )
    size = -(-len(packed) // cuts)
    body = b"".join(chunk(b"IDAT", packed[i : i + size]) for i in range(0, len(packed), size))
    start = chunk(b"IHDR", struct.pack(">IIBBBBB", *(head | header).values()))
    return png.SIGNATURE + start + extra + body + chunk(b"IEND", b"")


def saved(pixels: np.ndarray, mode: str | None = None, **options) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(buffer, "PNG", **options)
    return buffer.getvalue()


def result(data: bytes):
    """Pixels, or the sentence about the damage."""
    try:
        pixels = decode(data, "x")
    except BadFile as error:
        return error.message
    return pixels.shape, zlib.crc32(pixels)


@pytest.mark.parametrize("cuts", [1, 3])
def test_every_filter_is_undone(cuts):
    assert np.array_equal(png.decode_plain(written(COLOUR, cuts=cuts), MOST), COLOUR)
    assert np.array_equal(png.decode_plain(written(GREY[..., None], kind=0, cuts=cuts), MOST), GREY)


def test_pixels_are_the_callers_own():
    found = png.decode_plain(saved(COLOUR), MOST)
    assert found is not None and found.flags.writeable and found.flags.c_contiguous


def test_what_pillow_writes_is_read():
    for level in (0, 1, 9):
        assert np.array_equal(png.decode_plain(saved(COLOUR, compress_level=level), MOST), COLOUR)
        assert np.array_equal(png.decode_plain(saved(GREY, compress_level=level), MOST), GREY)
    profile = saved(COLOUR, icc_profile=b"a profile")
    assert b"iCCP" in profile and np.array_equal(png.decode_plain(profile, MOST), COLOUR)
    assert np.array_equal(png.decode_plain(saved(COLOUR, dpi=(72, 72)), MOST), COLOUR)


def texts() -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text("Raw profile type exif", "turned")
    return info


def exif() -> Image.Exif:
    turned = Image.Exif()
    turned[0x0112] = 6
    return turned


OTHERS = {
    "palette": saved(COLOUR, "P"),
    "one bit": saved(GREY, "1"),
    "transparent": saved(COLOUR, "RGBA"),
    "grey and opacity": saved(GREY, "LA"),
    "one colour transparent": saved(COLOUR, transparency=(1, 2, 3)),
    "16 bits": saved(GREY.astype(np.uint16)),
    "a text": saved(COLOUR, pnginfo=texts()),
    "EXIF": saved(COLOUR, exif=exif()),
    "interlaced": written(COLOUR, interlaced=1),
    "an unknown chunk": written(COLOUR, extra=chunk(b"abCd", b"?")),
    "a second header": written(COLOUR, extra=written(COLOUR)[8:33]),
    "another packing": written(COLOUR, packing=1),
    "no pixels": written(COLOUR, width=0),
    "more pixels than allowed": written(COLOUR, width=MOST),
    "cut": saved(COLOUR)[:-1],
    "no end": saved(COLOUR)[:-12],
    "a wrong checksum": saved(COLOUR)[:-1] + b"?",
    "far too few rows": written(COLOUR, height=100, width=10),
    "a JPEG": b"\xff\xd8\xff" + bytes(100),
    "nothing": b"",
}


@pytest.mark.parametrize("name", OTHERS)
def test_anything_else_is_left_to_pillow(name):
    assert png.decode_plain(OTHERS[name], MOST) is None


STARTS = {
    "by hand": written(COLOUR),
    "grey": saved(GREY),
    "four pieces": written(COLOUR, cuts=4),
    "more chunks": saved(COLOUR, dpi=(1, 1)),
}


@pytest.mark.parametrize("name", STARTS)
def test_whatever_is_changed_in_a_file_the_result_is_the_same(name, monkeypatch):
    """Cut short, a byte changed, a piece left out or twice, with the checksums mended or not."""
    start, random = STARTS[name], np.random.default_rng(1)
    files = [start]
    for _ in range(60):
        i, j = sorted(random.integers(8, len(start), 2).tolist())
        files += [start[:i], start[:i] + bytes([start[i] ^ 1 << int(random.integers(8))]) + start[i + 1 :]]
        files += [start[:i] + start[j:], start[:j] + start[i:]]
    files.append(start.replace(struct.pack(">II", 7, 9), struct.pack(">II", 7, 20), 1))  # fewer rows than it says
    files += [mended(data) for data in files]
    short = [result(data) for data in files]
    monkeypatch.setattr(png, "decode_plain", lambda data, most: None)
    assert [result(data) for data in files] == short
    assert 4 < sum(isinstance(found, tuple) for found in short) < len(files) - 4


def mended(data: bytes) -> bytes:
    """The same chunks with right checksums, as far as they are whole."""
    out, at = data[:8], 8
    while at + 12 <= len(data) and (end := at + 12 + int.from_bytes(data[at : at + 4], "big")) <= len(data):
        out, at = out + chunk(data[at + 4 : at + 8], data[at + 8 : end - 4]), end
    return out + data[at:]
