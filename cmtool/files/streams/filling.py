"""A folder of images that any number of processes fill, some of which may be killed: each image whole or not there.

manifest.jsonl             the images that are there, by seed
manifest.jsonl.part        the lines of a run that is not through
manifest.jsonl.3-of-8      the same of one of eight that fill the folder together; who ends last merges them
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from cmtool.files.atomic import write_bytes, writing
from cmtool.files.streams.folder import LABELS, FolderSink, labels_out, read_labels
from cmtool.files.streams.manifest import MANIFEST, Wanted, held
from cmtool.files.streams.sink import Writer, stem

__all__ = ["filling"]


@contextlib.contextmanager
def filling(root: Path, wanted: Wanted, shard: int = 1, shards: int = 1) -> Iterator[tuple[Writer, Sequence[int]]]:
    """A writer for what ``root`` lacks, and the places of those images in ``wanted.cut(shard, shards)``.

    An image that is there and has another line (another model, another class) is made anew. UsageError while another
    process writes the same part.
    """
    part = wanted.cut(shard, shards)
    place = root / f"{MANIFEST}.{'part' if shards == 1 else f'{shard}-of-{shards}'}"
    with held(place, lambda: _merge(root, wanted, shards)) as journal:

        def record(text: str) -> None:
            with writing(place):
                journal.write(text.encode())
                journal.flush()

        lines, there = _known(root), set(os.listdir(root))
        missing = [
            i
            for i, (seed, line) in enumerate(zip(part.seeds, part.lines(), strict=True))
            if lines.get(seed) != line or f"{stem(seed)}.png" not in there
        ]
        journal.seek(0, os.SEEK_END)
        # From here on nobody can say whose image is under these names, until its line comes; the first end of line
        # closes a line that was torn.
        record("\n" + "".join(_forgotten(part.seeds[i]) for i in missing if part.seeds[i] in lines))
        sink = FolderSink(root, labelled=False)
        writer = Writer(sink, str(root), lambda: None, lambda *batch: record("".join(map(part.line, *batch))))
        try:
            yield writer, missing
        finally:  # also after an error or Ctrl-C: what was generated is kept
            writer.settle()
            writer.close()


def _known(root: Path) -> dict[int, str]:
    """The last line of every seed in the manifest and the journals beside it; a torn line is none."""
    lines = {}
    for path in [root / MANIFEST, *sorted(root.glob(f"{MANIFEST}.*"))]:
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            for line in filter(lambda line: line.endswith(b"\n"), file):
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    lines[json.loads(line)["seed"]] = line.decode()
    return lines


def _forgotten(seed: int) -> str:
    return json.dumps({"seed": seed}) + "\n"


def _merge(root: Path, wanted: Wanted, shards: int) -> None:
    """Bring the journals into the manifest, and the labels into ``dataset.json``, unless other parts are missing."""
    lines = _known(root)
    pairs = zip(wanted.seeds, wanted.lines(), strict=True)
    if shards > 1 and any(lines.get(seed) != line for seed, line in pairs):
        return
    there = {seed: line for seed, line in sorted(lines.items()) if line != _forgotten(seed)}
    if wanted.labels is not None:
        classes = {f"{stem(seed)}.png": json.loads(line)["class"] for seed, line in there.items()}
        told = {name: label for name, label in classes.items() if label is not None}
        _write(root / LABELS, labels_out(read_labels(root / LABELS) | told))
    _write(root / MANIFEST, "".join(there.values()).encode())
    for journal in root.glob(f"{MANIFEST}.*"):
        _remove(journal)


def _write(path: Path, data: bytes) -> None:
    write_bytes(path, data, place=path.with_name(f".{path.name}.part"))


def _remove(journal: Path) -> None:
    """Unless another process is writing it."""
    with contextlib.suppress(FileNotFoundError, BlockingIOError), journal.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        journal.unlink()
