"""What Pillow does not do: pass over too large chunks of a PNG, keep all 16 bits, forgive an EXIF that is damaged."""

import contextlib
import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageOps

__all__ = ["SIGNATURE", "apply_orientation", "decode_16_bit", "decode_plain", "drop_large_chunks", "size_and_kind"]

SIGNATURE = b"\x89PNG\r\n\x1a\n"
TEXT = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
KEPT = (b"XML:com.adobe.xmp", b"Raw profile type exif")  # they can say how a camera was held
LARGEST = 1 << 20  # of a text, as in Pillow
LEAST_RATIO = 1100  # deflate shrinks by 1032 at most: a file that is smaller cannot hold its pixels
GREY, COLOUR, GREY_ALPHA, COLOUR_ALPHA = 0, 2, 4, 6
PLAIN = {GREY: ("L", 1), COLOUR: ("RGB", 3)}  # Pillow's mode, and values of a pixel
SAYS_NOTHING = {b"PLTE", b"gAMA", b"cHRM", b"sRGB", b"pHYs", b"tIME", b"bKGD", b"sBIT", b"iCCP"}  # of these pixels
MODES = {GREY: "grey", COLOUR: "RGB", 3: "palette", GREY_ALPHA: "grey+alpha", COLOUR_ALPHA: "RGBA"}


def drop_large_chunks(data: bytes) -> bytes:
    """The file without texts and profiles, which change no pixel and may be larger than Pillow reads.

    A chunk whose checksum is wrong stays, so that the damage is found.
    """
    dropped, at = [], len(SIGNATURE)
    for start, kind, body in _chunks(data):
        end = start + 12 + len(body)
        if kind in TEXT and _is_whole(data, start, end) and not _is_needed(kind, body):
            dropped.append((at, start))
            at = end
    return b"".join([SIGNATURE, *(data[a:b] for a, b in dropped), data[at:]]) if dropped else data


def size_and_kind(start: bytes) -> tuple[int, int, bool, str] | None:
    """Width, height, whether it is grey, and its mode, from the first 33 bytes; None where they are those of no PNG."""
    if len(start) < 33 or not start.startswith(SIGNATURE) or start[12:16] != b"IHDR":
        return None
    width, height, depth, kind = struct.unpack(">IIBB", start[16:26])
    return width, height, kind in (GREY, GREY_ALPHA), MODES.get(kind, "RGB") + (" 16-bit" if depth == 16 else "")


def decode_plain(data: bytes, most: int) -> np.ndarray | None:
    """The pixels uint8 [H, W] or [H, W, 3] of the common kind of PNG, several times as fast as Pillow opens files.

    That is one of 8 bits, grey or colour, not interlaced, without transparency, animation, texts and EXIF. None for any
    other, for one of more than ``most`` pixels, and where anything is damaged, checksums of all chunks included.
    """
    if len(data) < 33 or not data.startswith(SIGNATURE) or data[8:16] != b"\0\0\0\rIHDR":
        return None
    width, height, depth, kind, packing, filters, interlaced = struct.unpack(">IIBBBBB", data[16:29])
    if depth != 8 or kind not in PLAIN or packing or filters or interlaced or not 0 < width * height <= most:
        return None
    packed = _plain_data(data)
    if packed is None:
        return None
    mode, values = PLAIN[kind]
    if len(packed) < width * height * values // LEAST_RATIO:
        return None
    try:
        image = Image.frombytes(mode, (width, height), packed, "zip", mode, 0)
    except (ValueError, OSError):
        return None
    return np.array(image)


def _plain_data(data: bytes) -> bytes | None:
    """The compressed pixels; None where a checksum is wrong, the end is missing, or a chunk may change the pixels."""
    view, at, parts, kind = memoryview(data), len(SIGNATURE), [], b""
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(view[at : at + 4], "big")
        before, kind = kind, data[at + 4 : at + 8]
        if end > len(data) or zlib.crc32(view[at + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            return None
        if kind == b"IDAT":
            if parts and before != kind:
                return None
            parts.append(data[at + 8 : end - 4])
        elif kind == b"IEND":
            return b"".join(parts) or None
        elif kind not in SAYS_NOTHING and (kind != b"IHDR" or before):
            return None
        at = end
    return None


def decode_16_bit(data: bytes) -> np.ndarray | None:
    """Values of 16 bits and their opacity, uint16 [H, W, 2 or 4]; None for a file of 8 bits or fewer.

    Pillow keeps the upper 8 bits of colours. The lower ones are read as if the bytes stood in the other order, and
    those of grey with opacity, which Pillow knows in one order only, as four values of 8 bits.
    """
    depth, kind = data[24], data[25]
    if depth != 16 or kind not in (GREY, COLOUR, GREY_ALPHA, COLOUR_ALPHA):
        return None
    if kind == GREY:
        grey = _pixels(data).astype(np.uint16)[..., None]
        return np.dstack([grey, _opacity(data, grey)])
    if kind == GREY_ALPHA:
        bytewise = _pixels(_as_bytes(data)).astype(np.uint16)
        return bytewise[..., 0::2] * 256 + bytewise[..., 1::2]
    values = _pixels(data).astype(np.uint16) * 256 + _pixels(data, swapped=True)
    return values if kind == COLOUR_ALPHA else np.dstack([values, _opacity(data, values)])


def apply_orientation(image: Image.Image) -> None:
    """Turn a picture as its EXIF says; what EXIF cannot be read says nothing."""
    with contextlib.suppress(SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, struct.error):
        image.getexif()
        ImageOps.exif_transpose(image, in_place=True)


def _pixels(data: bytes, swapped: bool = False) -> np.ndarray:
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        if swapped:
            image.tile = [tile._replace(args=_swap(tile.args)) for tile in image.tile]
        apply_orientation(image)
        return np.asarray(image)


def _swap(args: object) -> object:
    if isinstance(args, tuple):
        return tuple(_swap(arg) for arg in args)
    return args.replace(";16B", ";16L") if isinstance(args, str) else args


def _opacity(data: bytes, values: np.ndarray) -> np.ndarray:
    """One colour may stand for full transparency."""
    clear = next((bytes(body) for _, kind, body in _chunks(data) if kind == b"tRNS"), b"")
    if len(clear) != 2 * values.shape[-1]:
        return np.full(values.shape[:2], 65535, np.uint16)
    return np.where((values == np.frombuffer(clear, ">u2")).all(-1), 0, 65535).astype(np.uint16)


def _as_bytes(data: bytes) -> bytes:
    """The same rows, said to be 8 bits of red, green, blue and opacity."""
    head = b"IHDR" + data[16:24] + bytes([8, COLOUR_ALPHA]) + data[26:29]
    return data[:12] + head + struct.pack(">I", zlib.crc32(head)) + data[33:]


def _chunks(data: bytes) -> Iterator[tuple[int, bytes, memoryview]]:
    """Where each chunk starts, its kind and its contents, as far as they are whole."""
    view, at = memoryview(data), len(SIGNATURE)
    while at + 12 <= len(data):
        length = int.from_bytes(view[at : at + 4], "big")
        if at + 12 + length > len(data):
            return
        yield at, bytes(view[at + 4 : at + 8]), view[at + 8 : at + 8 + length]
        at += 12 + length


def _is_whole(data: bytes, start: int, end: int) -> bool:
    view = memoryview(data)
    return zlib.crc32(view[start + 4 : end - 4]) == int.from_bytes(view[end - 4 : end], "big")


def _is_needed(kind: bytes, body: memoryview) -> bool:
    """Whether a text is one of those that are kept, and small."""
    keyword, _, rest = bytes(body[:100]).partition(b"\0")
    if kind == b"iCCP" or keyword not in KEPT or len(body) > LARGEST:
        return False
    if kind == b"tEXt" or (kind == b"iTXt" and rest[:1] != b"\1"):
        return True
    packed = body[len(keyword) + 2 :] if kind == b"zTXt" else _after_languages(body, len(keyword) + 3)
    inflate = zlib.decompressobj()
    try:
        return len(inflate.decompress(packed, LARGEST)) < LARGEST
    except zlib.error:
        return True


def _after_languages(body: memoryview, at: int) -> memoryview:
    text = bytes(body)
    return body[text.find(b"\0", text.find(b"\0", at) + 1) + 1 :]
