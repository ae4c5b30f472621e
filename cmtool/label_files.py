"""``dataset.json``, EDM's list of labels: which of several counts, and which of its names is which picture."""

import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from posixpath import basename, dirname, splitext
from typing import TypeVar

__all__ = ["LABELS", "label_file", "match_labels", "shared_folder"]

LABELS = "dataset.json"
DEEPEST = 16  # folders
T = TypeVar("T")


def label_file(files: Sequence[str], pictures: Sequence[str]) -> tuple[str | None, list[str]]:
    """The path of the list of labels that counts, and those of others.

    It is the one at the top, else the only one in a folder that holds every picture.
    """
    found = [file for file in files if basename(file) == LABELS]
    if LABELS in found:
        return LABELS, []
    whole = [file for file in found if all(name.startswith(f"{dirname(file)}/") for name in pictures)]
    chosen = whole[0] if len(whole) == 1 else None
    return chosen, [file for file in found if file != chosen]


def match_labels(said: Mapping[str, T], pictures: Sequence[str], folder: str = "") -> list[T | None]:
    """For each picture what is ``said`` of its name in a list that lies in ``folder``; None where nothing is.

    Names are those of files below that folder. ``\\`` counts as ``/``, letters count in each of the ways that Unicode
    writes them; a name without its own picture is that of the picture that differs from it in the ending or in case
    alone. Where no name fits at all, all may be written from one folder further up or down.
    """
    names = [_plain(name) for name in said]
    plain = [_plain(name.removeprefix(f"{folder}/") if folder else name) for name in pictures]
    values, found = list(said.values()), _find(names, plain)
    for above in _folders(names):
        if not any(index is not None for index in found):
            found = _find([name.removeprefix(above) for name in names], plain)
    for above in _folders(plain):
        if not any(index is not None for index in found):
            found = _find(names, [name.removeprefix(above) for name in plain])
    return [None if index is None else values[index] for index in found]


def shared_folder(names: Sequence[str]) -> str:
    """``photos/`` where everything lies in it, as when a folder was packed."""
    top = ""
    for _ in range(DEEPEST):
        first = {name[len(top) :].partition("/")[0] for name in names}
        if len(first) != 1 or not all("/" in name[len(top) :] for name in names):
            break
        top += f"{first.pop()}/"
    return top


def _folders(names: Sequence[str]) -> list[str]:
    """``a/``, ``a/b/``, ...: the folders in which all lie."""
    parts = shared_folder(names).split("/")[:-1]
    return ["/".join(parts[: k + 1]) + "/" for k in range(len(parts))]


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name.replace("\\", "/")).removeprefix("./")


def _find(names: Sequence[str], pictures: Sequence[str]) -> list[int | None]:
    """Where each picture stands among the names."""
    exact = {name: k for k, name in enumerate(names)}
    found = [exact.get(name) for name in pictures]
    taken = {index for index in found if index is not None}
    free = {name: k for name, k in exact.items() if k not in taken}
    alone = _unique(free, _strip_suffix)
    others = _unique([name for name, index in zip(pictures, found, strict=True) if index is None], _strip_suffix)
    for place, (name, index) in enumerate(zip(pictures, found, strict=True)):
        key = _strip_suffix(name)
        if index is None and others.get(key) == name and key in alone:
            found[place] = free[alone[key]]
    return found


def _unique(names: Sequence[str] | Mapping[str, int], key: Callable[[str], str]) -> dict[str, str]:
    """Names by a key that no other has."""
    count = Counter(map(key, names))
    return {key(name): name for name in names if count[key(name)] == 1}


def _strip_suffix(name: str) -> str:
    return splitext(name)[0].casefold()
