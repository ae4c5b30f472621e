import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from cmtool.errors import BadFile, MissingInput
from cmtool.pictures import Size, decode, encode, kind_of, planes, size_of_file, unread_kinds, with_channels

COLOURS = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
GREYS = COLOURS[..., 0].copy()


def file_of(image, format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, format=format, **options)
    return buffer.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def sixteen(values, kind, interlaced=0, extra=b""):
    """A PNG of uint16 [H, W, C], written by hand; interlaced as Adam7."""
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, kind, 0, 0, interlaced)
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    rows = b""
    for top, left, down, across in passes if interlaced else [(0, 0, 1, 1)]:
        part = values[top::down, left::across]
        rows += b"".join(b"\0" + row.astype(">u2").tobytes() for row in part if part.shape[1])
    body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


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
    ("content", "named"),
    [
        (b"", "is empty"),
        (b"just some text\n" * 9, "is not a picture"),
        (b"%PDF-1.4", "but a PDF"),
        (b"GIF89a" + bytes(50), "but a GIF"),
        (b"%!PS-Adobe-3.0 EPSF", "but a PostScript"),
        (b"II*\0" + bytes(50), "but a TIFF"),
        (b"\0\0\0\x1cftypheic\0\0\0\0mif1heic", "but a HEIC"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0avifmif1", "but a HEIC"),
        (b"\0\0\0\x1cftypavif\0\0\0\0mif1miaf", "but an AVIF"),
        (b"\0\0\0\x1cftypisom\0\0\0\0isomiso2", "but an MP4 video"),
        (b"\xff\x0a" + bytes(9), "but a JPEG XL"),
        (b"\n<!DOCTYPE html><html>", "but an HTML page"),
        (b"<?xml version='1.0'?><svg width='8'/>", "but an SVG"),
        (b"version https://git-lfs.github.com/spec/v1\n", "but a Git LFS pointer"),
        (b"P6 8 8 255 " + bytes(192), "but a PPM"),
        (b"PK\3\4" + bytes(40), "but a zip archive"),
        (b"\x89PNG\r\n\x1a\n", "begins as a PNG, and is none"),
    ],
)
def test_other_files_are_no_pictures_and_named_for_what_they_are(tmp_path, content, named):
    (tmp_path / "notes.png").write_bytes(content)
    for wrong in (lambda: decode(content, "notes"), lambda: size_of_file(tmp_path / "notes.png", "notes")):
        with pytest.raises(BadFile, match=f"^notes .*{named}") as caught:
            wrong()
    assert caught.value.hint is None or "PNG" in caught.value.hint or "git lfs pull" in caught.value.hint


def test_kinds_that_pillow_writes_are_known():
    image = Image.fromarray(COLOURS)
    kinds = {"GIF": "GIF", "TIFF": "TIFF", "ICO": "ICO", "PPM": "PPM", "DDS": "DDS", "JPEG2000": "JPEG 2000"}
    kinds |= {"PNG": "PNG", "JPEG": "JPEG", "WEBP": "WebP", "BMP": "BMP", "PDF": "PDF"}
    assert {format: kind_of(file_of(image, format)[:64]) for format in kinds} == kinds
    assert kind_of(b"BM25 is a ranking function") is None


def test_pictures_that_are_not_read_are_counted():
    names = ["a.png", "b.GIF", "c/d.gif", "e.tif", "notes.txt", "f.jfif"]
    assert unread_kinds(names) == "not read: 2 .gif, 1 .tif"
    assert unread_kinds(["a.png", "b.txt"]) is None


def text(keyword, zip=False, length=2_000_000):
    info = PngImagePlugin.PngInfo()
    info.add_itxt(keyword, "x" * length, zip=zip)
    info.add_text("comment", "y" * length, zip=not zip)
    return info


@pytest.mark.parametrize(
    "options",
    [
        {"pnginfo": text("XML:com.adobe.xmp", zip=True)},
        {"pnginfo": text("workflow")},
        {"icc_profile": bytes(3_000_000)},
        {"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0" + bytes(2_000_000)},
    ],
)
def test_texts_and_profiles_of_any_size_are_passed_over(options):
    assert np.array_equal(decode(file_of(Image.fromarray(COLOURS), **options)), COLOURS)


def test_profiles_of_jpeg_and_webp_are_passed_over():
    smooth = Image.new("RGB", (16, 16), (200, 100, 50))
    for format, options in (("JPEG", {"quality": 95}), ("WEBP", {"lossless": True})):
        plain = decode(file_of(smooth, format, **options))
        exif = Image.Exif()
        exif[0x010E] = "x" * 60_000
        large = file_of(smooth, format, **options, icc_profile=bytes(2_000_000), exif=exif)
        assert len(large) > 2_060_000
        assert np.array_equal(decode(large), plain)


def test_exif_that_cannot_be_read_turns_nothing():
    for format in ("JPEG", "PNG", "WEBP"):
        smooth = Image.new("RGB", (16, 8), (200, 100, 50))
        assert decode(file_of(smooth, format, exif=b"Exif\0\0" + bytes(600))).shape == (8, 16, 3)


def test_a_rotation_in_a_text_that_pillow_reads_is_kept():
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>', zip=True)
    info.add_text("workflow", "x" * 2_000_000, zip=True)
    assert np.array_equal(decode(file_of(Image.fromarray(COLOURS), pnginfo=info)), np.rot90(COLOURS, -1))


def test_damage_in_a_text_is_found():
    whole = file_of(Image.fromarray(COLOURS), pnginfo=text("workflow", length=2000))
    at = whole.index(b"xxxx")
    with pytest.raises(BadFile, match="damaged"):
        decode(whole[:at] + b"z" + whole[at + 1 :])


@pytest.mark.parametrize("interlaced", [0, 1])
@pytest.mark.parametrize(("kind", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_sixteen_bits_are_rounded_whatever_they_stand_for(kind, channels, interlaced):
    values = np.random.default_rng(1).integers(0, 65536, (5, 7, channels)).astype(np.uint16)
    values[0, :4, 0] = (0, 128, 129, 65535)
    colour = values if kind in (0, 2) else values[..., :-1]
    opacity = np.ones((5, 7, 1)) if kind in (0, 2) else values[..., -1:] / 65535
    expected = (colour * opacity + 65535 * (1 - opacity)) / 257
    found = decode(sixteen(values, kind, interlaced))
    assert np.abs(planes(found) - planes(expected)).max() <= 0.51
    if kind in (0, 2):
        assert np.array_equal(planes(found), planes(np.rint(expected)))


@pytest.mark.parametrize(("kind", "clear"), [(0, (300,)), (2, (300, 301, 302))])
def test_one_value_of_sixteen_bits_can_be_transparent(kind, clear):
    values = np.full((1, 3, len(clear)), 300, np.uint16)
    values[0, 1] = clear
    values[0, 2, -1] = 303
    found = decode(sixteen(values, kind, extra=chunk(b"tRNS", struct.pack(f">{len(clear)}H", *clear))))
    assert (found.reshape(3, -1)[:, 0] == ((1, 255, 1) if kind else (255, 255, 1))).all()


def test_a_file_says_its_size_before_it_is_decoded(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    for format, image, size in (
        ("PNG", Image.fromarray(COLOURS), Size(7, 5, False)),
        ("PNG", Image.fromarray(GREYS), Size(7, 5, True)),
        ("PNG", Image.fromarray(COLOURS).quantize(8), Size(7, 5, False)),
        ("JPEG", Image.fromarray(GREYS), Size(7, 5, True)),
        ("WEBP", Image.fromarray(COLOURS), Size(7, 5, False)),
        ("BMP", Image.fromarray(COLOURS), Size(7, 5, False)),
    ):
        (tmp_path / "x").write_bytes(file_of(image, format))
        assert size_of_file(tmp_path / "x", "x") == size_of_file(file_of(image, format), "x") == size
    with pytest.raises(BadFile, match="wide has more than 64 million pixels"):
        size_of_file(file_of(Image.new("1", (8001, 8001))), "wide")
    with pytest.raises(MissingInput, match="no file"):
        size_of_file(tmp_path / "y", "y")


@pytest.mark.parametrize("side", [8001, 10_000, 60_000])
def test_a_bomb_is_refused_before_it_is_decoded(side):
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND", b"")
    with pytest.raises(BadFile, match="64 million pixels"):
        decode(bomb)
