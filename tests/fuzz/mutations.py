"""Files changed by chance: bytes anywhere, and numbers, texts and fields where a format has them. All seeded."""

import hashlib
import io
import json
import random
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

__all__ = ["ODD", "bytes_of", "document", "member", "png_chunk", "sealed_document", "table", "words"]

Change = Callable[[bytes, random.Random], bytes]
SIZES = (0, 1, 7, 255, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, (1 << 62) + 1, (1 << 63) - 1, (1 << 64) - 1)
NUMBERS = (b"0", b"-1", b"1e999", b"nan", b"9" * 30, b"9" * 5000, b"0.5", b"1e-400", b"", b"007", b"0x10", b"[1]")
TEXTS = (
    *(b"", b"\x1b[2J\x1b]0;x\x07", b"\xff\xfe", b"\\ud800", b"a" * 5000, b"../../x", b"\0", b"a\nb", b"~x/y", b"None"),
    *("\u202e\u2066".encode(), b"%s%n{0}", b"-", b"*", b"!!python/object/apply:os.system [x]"),
)
NEST: Any = []
for _ in range(200):
    NEST = [NEST]
ODD: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 0.5, 1e308, float("nan"), float("inf"), 10**30, 10**400, 2**63, 1 << 40),
    *("", "x", "\x1b[31m", "\ud800", "a" * 5000, "../x", "nan", "1e9"),
    *([], {}, [[]], [1] * 500, ["x", 1, None], {"a": {"b": []}}, {"name": "unet"}, NEST),
)


def bytes_of(data: bytes, dice: random.Random) -> bytes:
    """One change of bytes, mostly near an end, where tables, directories and pickles stand."""
    made = bytearray(data or b"\0")
    reach = len(made) if dice.random() < 0.3 else min(len(made), 3000)
    at = dice.randrange(reach) if dice.random() < 0.5 else len(made) - 1 - dice.randrange(reach)
    match dice.randrange(9):
        case 0:
            del made[at:]
        case 1:
            del made[at : at + dice.randrange(1, 40)]
        case 2:
            start = dice.randrange(len(made))
            made[at:at] = made[start : start + dice.randrange(1, 400)]
        case 3:
            made[at : at + dice.choice((16, 512, 4096))] = bytes(dice.choice((16, 512, 4096)))
        case 4:
            width, order = dice.choice("HIQ"), dice.choice("<>")
            raw = struct.pack(order + width, dice.choice(SIZES) % (1 << (8 * struct.calcsize(width))))
            made[at : at + len(raw)] = raw
        case 5:
            made += dice.randbytes(dice.randrange(1, 100))
        case _:
            for i in range(dice.randrange(1, 6)):
                made[(at + i * dice.randrange(9)) % len(made)] = dice.randrange(256)
    return bytes(made)


def words(data: bytes, dice: random.Random) -> bytes:
    """A number or a text that stands in the file as such becomes an odd one."""
    numbers, texts = re.compile(rb"-?\d+(?:\.\d+)?(?:e-?\d+)?"), re.compile(rb"[A-Za-z_][A-Za-z_0-9./:-]{1,40}")
    pattern, odd = (numbers, NUMBERS) if dice.random() < 0.5 else (texts, TEXTS + NUMBERS)
    start = dice.randrange(max(1, min(len(data), 4000)))
    found = pattern.search(data, start) or pattern.search(data)
    if not found:
        return bytes_of(data, dice)
    return data[: found.start()] + dice.choice(odd) + data[found.end() :]


def changed(value: Any, dice: random.Random, depth: int = 0) -> Any:
    """A document with one part replaced, taken out, doubled or renamed."""
    if not isinstance(value, dict | list) or not value or (depth and dice.random() < 0.25):
        return dice.choice(ODD)
    made: Any = value.copy()
    key = dice.choice(sorted(made)) if isinstance(made, dict) else dice.randrange(len(made))
    match dice.randrange(8):
        case 0:
            made.pop(key)
        case 1 if isinstance(made, dict):
            made[dice.choice(("x", "\x1b[1m", "", "name", "a" * 300))] = made.pop(key)
        case 2 if isinstance(made, list):
            made.append(made[key])
        case _:
            made[key] = changed(made[key], dice, depth + 1)
    return made


def document(data: bytes, dice: random.Random) -> bytes:
    """A JSON file, or one of its lines, with one part changed."""
    lines = data.splitlines()
    whole = len(lines) < 2 or not lines[0].rstrip().endswith(b"}")
    at = 0 if whole else dice.randrange(len(lines))
    try:
        made = json.dumps(changed(json.loads(data if whole else lines[at]), dice)).encode()
    except (ValueError, RecursionError):
        return bytes_of(data, dice)
    return made if whole else b"\n".join([*lines[:at], made, *lines[at + 1 :]]) + b"\n"


def opened(data: bytes) -> tuple[dict[str, Any], bytes]:
    size = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def closed(table: Any, data: bytes) -> bytes:
    body = json.dumps(table, separators=(",", ":")).encode()
    body += b" " * (-len(body) % 8)
    return len(body).to_bytes(8, "little") + body + data


def resealed(table: dict[str, Any], key: str, held: Any, data: bytes) -> bytes:
    """With an honest seal, which anybody can compute."""
    blank = "0" * 64
    if isinstance(held, dict) and "sha256" in held:
        held["sha256"] = blank
    table["__metadata__"][key] = json.dumps(held)
    made = closed(table, b"")
    return made.replace(blank.encode(), hashlib.sha256(made + data).hexdigest().encode(), 1) + data


def sealed_document(data: bytes, dice: random.Random) -> bytes:
    """Our own safetensors file with one part of its document changed, and sealed again."""
    table, rest = opened(data)
    key = next(key for key in table["__metadata__"] if key.startswith("cmtool"))
    held = json.loads(table["__metadata__"][key])
    seal = held.pop("sha256", None)
    held = changed(held, dice)
    if isinstance(held, dict) and seal:
        held["sha256"] = seal
    return resealed(table, key, held, rest)


def table(data: bytes, dice: random.Random) -> bytes:
    """A safetensors file with one part of its table changed; sealed again where it was ours."""
    held, rest = opened(data)
    metadata = held.pop("__metadata__", None)
    held = changed(held, dice)
    if not isinstance(held, dict) or not isinstance(metadata, dict):
        return closed(held, rest)
    key = next((key for key in metadata if key.startswith("cmtool")), None)
    held = {"__metadata__": metadata, **held}
    return resealed(held, key, json.loads(metadata[key]), rest) if key else closed(held, rest)


def member(data: bytes, dice: random.Random, inside: Change | None = None) -> bytes:
    """A zip in which one entry was changed before it was stored, with right checksums."""
    made, how = io.BytesIO(), dice.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(made, "w", how) as new:
        entries = old.infolist()
        pickles = [entry for entry in entries if entry.filename.endswith("data.pkl")]
        chosen = pickles[0] if pickles and dice.random() < 0.8 else dice.choice(entries)
        for entry in entries:
            text = old.read(entry)
            if entry is chosen:
                text = (inside or dice.choice((bytes_of, words)))(text, dice)
            named = (
                entry.filename if entry is not chosen or dice.random() < 0.9 else dice.choice(("x", "../x", "a/" * 99))
            )
            how = None if pickles and dice.random() < 0.9 else zipfile.ZIP_STORED
            new.writestr(named, text, compress_type=zipfile.ZIP_STORED if pickles else how)
    return made.getvalue()


def png_chunk(data: bytes, dice: random.Random) -> bytes:
    """A PNG with one chunk changed, and right checksums."""
    at, chunks = 8, []
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    i = dice.randrange(len(chunks))
    kind, text = chunks[i]
    chunks[i] = (kind, (words if kind == b"tEXt" and dice.random() < 0.8 else bytes_of)(text, dice))
    made = [len(t).to_bytes(4, "big") + k + t + zlib.crc32(k + t).to_bytes(4, "big") for k, t in chunks]
    return data[:8] + b"".join(made)
