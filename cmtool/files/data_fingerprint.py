"""``data.json`` of a run: by what it knows its data again when they have moved."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from cmtool.errors import BadFile
from cmtool.files.atomic import write_bytes
from cmtool.text_files import dump_json

__all__ = ["Inventory", "read_inventory", "write_inventory"]

NAME = "data.json"
MOST = 200_000  # files that are listed; of more, only the digest of the list is kept
LARGEST = 64 << 20


class Inventoried(Protocol):
    """What is asked of a data set, a ``datasets.Dataset``."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def inventory(self) -> Mapping[str, int] | None: ...

    def __len__(self) -> int: ...


@dataclass(frozen=True)
class Inventory:
    """``{"images", "shape", "classes", "files": {name: number} or null, "sha256"}``.

    The number of a file changes with its contents; the digest is that of the list of them.
    """

    document: Mapping[str, Any]

    @classmethod
    def of(cls, dataset: Inventoried) -> "Inventory":
        files = dataset.inventory or {}
        digest = hashlib.sha256(dump_json(sorted(files.items())).encode()).hexdigest()
        return cls(
            {
                "images": len(dataset),
                "shape": list(dataset.shape),
                "classes": list(dataset.classes),
                "files": dict(files) if len(files) <= MOST else None,
                "sha256": digest,
            }
        )


def write_inventory(folder: Path, dataset: Inventoried) -> None:
    """Keep what the data of a run are."""
    write_bytes(folder / NAME, dump_json(Inventory.of(dataset).document).encode() + b"\n")


def read_inventory(folder: Path) -> Inventory | None:
    """What was kept, or None; BadFile when it is damaged."""
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            document = json.loads(file.read(LARGEST))
        sound = (
            isinstance(document["files"], dict | None)
            and all(isinstance(document[key], list) for key in ("classes", "shape"))
            and all(isinstance(name, str) for name in document["classes"])
            and isinstance(document["images"], int)
            and isinstance(document["sha256"], str)
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        sound, document = False, {}
    if not sound:
        raise BadFile(f"{path} is damaged", "remove it; then nothing tells whether the data are still the same")
    return Inventory(document)
