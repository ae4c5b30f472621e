import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from cmtool.errors import BadFile, MissingInput
from cmtool.pictures import decode, encode, planes, with_channels

COLOURS = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
GREYS = COLOURS[..., 0].copy()


def file_of(image, format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, format=format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("format", ["PNG", "BMP"])
def test_lossless_formats_keep_every_pixel(format):
    assert np.array_equal(decode(file_of(Image.fromarray(COLOURS), format)), COLOURS)
    assert np.array_equal(decode(file_of(Image.fromarray(GREYS), format)), GREYS)


def test_webp_and_jpeg():
    assert np.array_equal(decode(file_of(Image.fromarray(COLOURS), "WEBP", lossless=True)), COLOURS)
    smooth = np.add.outer(np.arange(16), np.arange(16)).astype(np.uint8) * 8
    assert np.abs(decode(file_of(Image.fromarray(smooth), "JPEG", quality=95)).astype(int) - smooth).max() <= 2


def test_sixteen_bits_are_rounded():
    deep = np.array([[0, 128, 129, 257, 65535, 65406, 65407]], dtype=np.uint16)
    assert decode(file_of(Image.fromarray(deep))).tolist() == [[0, 0, 1, 1, 255, 254, 255]]


def test_one_bit_and_palettes():
    black = Image.fromarray(GREYS > 99).convert("1")
    assert np.array_equal(decode(file_of(black)), np.where(GREYS > 99, 255, 0))
    palette = Image.fromarray(COLOURS).quantize(8)
    assert np.array_equal(decode(file_of(palette)), np.asarray(palette.convert("RGB")))


def test_what_is_transparent_lies_on_white():
    pixels = np.zeros((1, 3, 4), dtype=np.uint8)
    pixels[0, :, 0], pixels[0, :, 3] = 200, [0, 51, 255]
    expected = [[[255, 255, 255], [244, 204, 204], [200, 0, 0]]]  # a c + (1 - a) 255 with a = 0, 0.2, 1
    assert decode(file_of(Image.fromarray(pixels))).tolist() == expected
    grey = Image.fromarray(np.array([[[200, 0], [200, 51], [200, 255]]], dtype=np.uint8))
    assert decode(file_of(grey)).tolist() == [[255, 244, 200]]


def test_cmyk_becomes_rgb():
    ink = np.zeros((8, 8, 4), dtype=np.uint8)
    ink[..., 1] = 255  # magenta
    red, green, blue = decode(file_of(Image.fromarray(ink, mode="CMYK"), "JPEG", quality=100))[4, 4]
    assert (red > 250, green < 5, blue > 250) == (True, True, True)


@pytest.mark.parametrize(
    ("orientation", "turned"), [(3, np.rot90(COLOURS, 2)), (6, np.rot90(COLOURS, -1)), (1, COLOURS)]
)
def test_exif_rotation_is_applied(orientation, turned):
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(decode(file_of(Image.fromarray(COLOURS), exif=exif)), turned)


def test_encode_is_the_inverse_and_deterministic():
    for image in (planes(COLOURS), planes(GREYS)):
        assert np.array_equal(planes(decode(encode(image))), image)
        assert encode(image, 1) == encode(image.copy(), 1)


def test_with_channels():
    image = planes(COLOURS)
    assert np.array_equal(with_channels(planes(GREYS), 3), np.stack([GREYS] * 3))
    grey = np.asarray(Image.fromarray(COLOURS).convert("L")).astype(int)
    assert np.abs(with_channels(image, 1)[0] - grey).max() <= 1
    assert with_channels(image, 3) is image


def test_sources_are_paths_files_and_bytes(tmp_path):
    (tmp_path / "x.png").write_bytes(encode(planes(COLOURS)))
    for source in (tmp_path / "x.png", str(tmp_path / "x.png"), (tmp_path / "x.png").read_bytes()):
        assert np.array_equal(decode(source), COLOURS)
    with (tmp_path / "x.png").open("rb") as file:
        assert np.array_equal(decode(file, "x"), COLOURS)
    with pytest.raises(MissingInput, match="there is no file"):
        decode(tmp_path / "y.png")
    with pytest.raises(MissingInput, match="Is a directory"):
        decode(tmp_path)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "BMP"])
def test_every_truncation_and_flip_ends_in_a_picture_or_one_sentence(format):
    whole, refused = file_of(Image.fromarray(COLOURS), format), 0
    for length in range(len(whole)):
        flipped = bytearray(whole)
        flipped[length] ^= 1 << length % 8
        for damaged in (whole[:length], bytes(flipped)):
            try:
                decode(damaged)
            except BadFile as error:
                refused += 1
                assert "\n" not in error.message
    assert refused > len(whole) * 0.9


def test_a_png_that_lost_its_end_is_refused():
    whole = encode(planes(COLOURS))
    with pytest.raises(BadFile, match="damaged"):
        decode(whole[:-12])


@pytest.mark.parametrize(
    "content", [b"", b"just some text\n" * 9, b"%PDF-1.4", b"GIF89a" + bytes(50), b"%!PS-Adobe-3.0 EPSF"]
)
def test_other_files_are_no_pictures(content):
    with pytest.raises(BadFile, match="notes is not a picture") as caught:
        decode(content, "notes")
    assert "PNG" in caught.value.hint


@pytest.mark.parametrize("side", [8001, 10_000, 60_000])
def test_a_bomb_is_refused_before_it_is_decoded(side):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND", b"")
    with pytest.raises(BadFile, match="64 million pixels"):
        decode(bomb)
