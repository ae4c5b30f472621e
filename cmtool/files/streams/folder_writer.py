"""A folder of images that any number of processes fill, some of which may be killed: each image whole or not there.

manifest.jsonl             the images that are there, by seed
manifest.jsonl.part        the lines of a run that is not through
manifest.jsonl.3-of-8      the same of one of eight that fill the folder together; who ends last merges them
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cmtool.files.atomic import holds_open_files, take_lock, write_bytes, write_file
from cmtool.files.streams.folder import FolderSink, read_labels
from cmtool.files.streams.manifest import MANIFEST, ImageSettings, deleted_entry, entries, hold_manifest
from cmtool.files.streams.sink import Writer, stem
from cmtool.label_files import LABELS
from cmtool.text_files import dump_json

__all__ = ["folder_writer", "known"]


@contextlib.contextmanager
def folder_writer(
    root: Path, wanted: ImageSettings, shard: int = 1, shards: int = 1, overwrite: bool = False
) -> Iterator[tuple[Writer, Sequence[int]]]:
    """A writer for what ``root`` lacks, and the places of those images in ``wanted.cut(shard, shards)``.

    An image that is there and has another line (another model, another class) is made anew; with ``overwrite`` those
    of other facts that are not wanted are removed. UsageError while another process writes the same part.
    """
    part = wanted.cut(shard, shards)
    place = root / f"{MANIFEST}.{'part' if shards == 1 else f'{shard}-of-{shards}'}"
    with hold_manifest(place, lambda: _merge(root, wanted, shards)) as journal:

        def record(text: str) -> None:
            with write_file(place):
                journal.write(text.encode())
                journal.flush()

        lines, there = known(root), set(os.listdir(root))
        missing = [
            i
            for i, (seed, line) in enumerate(zip(part.seeds, part.lines(), strict=True))
            if lines.get(seed, ("",))[0] != line or f"{stem(seed)}.png" not in there
        ]
        strangers = wanted.strangers(found for _, found in lines.values()) if overwrite else []
        journal.seek(0, os.SEEK_END)
        # From here on nobody can say whose image is under these names, until its line comes; but none is the user's.
        # The first end of line closes a line that was torn.
        record("\n" + "".join(map(deleted_entry, [*strangers, *(part.seeds[i] for i in missing)])))
        for seed in strangers:
            (root / f"{stem(seed)}.png").unlink(missing_ok=True)
        sink = FolderSink(root, labelled=False)
        writer = Writer(sink, str(root), lambda: None, lambda *batch: record("".join(map(part.line, *batch))))
        try:
            yield writer, missing
        finally:  # also after an error or Ctrl-C: what was generated is kept
            writer.settle()
            writer.close()


def known(root: Path, strict: bool = False) -> dict[int, tuple[str, dict[str, Any]]]:
    """The last line of every seed in the manifest and the journals beside it, and what it says.

    ``strict``: BadFile for a manifest that is none of ours.
    """
    lines = {found["seed"]: (line, found) for line, found in entries(root / MANIFEST, strict)}
    for journal in sorted(root.glob(f"{MANIFEST}.*")):
        lines |= {found["seed"]: (line, found) for line, found in entries(journal)}
    return lines


def _merge(root: Path, wanted: ImageSettings, shards: int) -> None:
    """Bring the journals into the manifest, and the labels into ``dataset.json``, unless other parts are missing.

    A seed without a line stays as such where there is a picture of its name, which may be torn, but is ours.
    """
    lines = known(root)
    pairs = zip(wanted.seeds, wanted.lines(), strict=True)
    if shards > 1 and any(lines.get(seed, ("",))[0] != line for seed, line in pairs):
        return
    names = set(os.listdir(root))
    kept = {
        seed: line
        for seed, (line, _) in sorted(lines.items())
        if line != deleted_entry(seed) or f"{stem(seed)}.png" in names
    }
    if wanted.labels is not None:
        classes = {f"{stem(seed)}.png": found.get("class") for seed, (_, found) in lines.items()}
        labels = {name: label for name, label in read_labels(root / LABELS).items() if name not in classes}
        labels_made = {name: label for name, label in classes.items() if label is not None}
        names_of = {"class_names": list(wanted.classes)} if wanted.classes else {}
        _write(root / LABELS, dump_json({"labels": sorted((labels | labels_made).items()), **names_of}).encode())
    _write(root / MANIFEST, "".join(kept.values()).encode())
    for journal in root.glob(f"{MANIFEST}.*"):
        _remove(journal)


def _write(path: Path, data: bytes) -> None:
    write_bytes(path, data, place=path.with_name(f".{path.name}.part"))


def _remove(journal: Path) -> None:
    """Unless another process is writing it."""
    if holds_open_files():  # where one that is open cannot be removed
        with contextlib.suppress(OSError):
            journal.unlink()
        return
    with contextlib.suppress(FileNotFoundError, BlockingIOError), journal.open("r+b") as file:
        take_lock(file)
        journal.unlink()
