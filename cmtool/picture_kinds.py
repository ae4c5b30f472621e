"""What a file is by its first bytes, and which suffixes are those of pictures that are not read."""

from collections import Counter
from collections.abc import Iterable
from posixpath import splitext

__all__ = ["READABLE_KINDS", "SUFFIXES", "kind_of", "unread_kinds"]

READABLE_KINDS = ("PNG", "JPEG", "WebP", "BMP")
SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp")  # .jfif and .jpe are other names of JPEG
UNREAD = {
    *(".tif", ".tiff", ".gif", ".heic", ".heif", ".hif", ".avif", ".jxl", ".jp2", ".j2k", ".jpx", ".jxr", ".wdp"),
    *(".psd", ".svg", ".svgz", ".ico", ".icns", ".tga", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".pcx", ".exr"),
    *(".hdr", ".dds", ".qoi", ".apng", ".mng", ".dib", ".eps", ".xcf", ".dng", ".nef", ".cr2", ".cr3", ".arw"),
    *(".raf", ".orf", ".rw2", ".raw"),
}
STARTS = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL \r\n\x87\n": "JPEG XL",
    b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"8BPS": "Photoshop",
    b"v/1\x01": "OpenEXR",
    b"#?RADIANCE": "Radiance HDR",
    b"DDS ": "DDS",
    b"qoif": "QOI",
    b"\0\0\1\0": "ICO",
    b"gimp xcf": "XCF",
    b"icns": "ICNS",
    b"%PDF": "PDF",
    b"%!PS": "PostScript",
    b"\x93NUMPY": "numpy array",
    b"PK\3\4": "zip archive",
    b"\x1f\x8b": "gzip file",
    b"BZh": "bzip2 file",
    b"\xfd7zXZ\0": "xz file",
    b"\x28\xb5\x2f\xfd": "zstd file",
    b"7z\xbc\xaf\x27\x1c": "7z archive",
    b"Rar!": "rar archive",
    b"\x89HDF": "HDF5 file",
    b"\x1aE\xdf\xa3": "Matroska video",
    b"version https://git-lfs": "Git LFS pointer",
}
BRANDS = {
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "HEIC"),
}
NETPBM = {
    b"P1": "PBM",
    b"P4": "PBM",
    b"P2": "PGM",
    b"P5": "PGM",
    b"P3": "PPM",
    b"P6": "PPM",
    b"Pf": "PFM",
    b"PF": "PFM",
}
LEAST = 64  # bytes that are enough to tell


def kind_of(data: bytes) -> str | None:
    """``PNG``, ``GIF``, ``HTML page``, ...: what a file is that begins with ``data``, 64 bytes or more; else None."""
    for start, kind in STARTS.items():
        if data.startswith(start):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    if data[4:8] == b"ftyp":
        brands = [data[8:12], *(data[i : i + 4] for i in range(16, LEAST, 4))]
        return next((BRANDS[brand] for brand in brands if brand in BRANDS), "MP4 video")
    if data[:2] == b"BM" and data[14:18] in (b"\x0c\0\0\0", b"\x28\0\0\0", b"\x40\0\0\0", b"\x6c\0\0\0", b"\x7c\0\0\0"):
        return "BMP"
    if data[:2] in NETPBM and data[2:3].isspace():
        return NETPBM[data[:2]]
    return _markup(data[:LEAST].removeprefix(b"\xef\xbb\xbf").lstrip().lower())


def unread_kinds(names: Iterable[str]) -> str | None:
    """``not read: 2 .gif, 1 .tif``, where files among ``names`` are pictures of kinds that are not read; else None."""
    count = Counter(splitext(name)[1].lower() for name in names)
    found = sorted(suffix for suffix in count if suffix in UNREAD)
    return f"not read: {', '.join(f'{count[suffix]:,} {suffix}' for suffix in found)}" if found else None


def _markup(start: bytes) -> str | None:
    if start.startswith((b"<!doctype html", b"<html", b"<head")):
        return "HTML page"
    if start.startswith(b"<svg") or (start.startswith(b"<?xml") and b"<svg" in start):
        return "SVG"
    return "XML file" if start.startswith(b"<?xml") else None
