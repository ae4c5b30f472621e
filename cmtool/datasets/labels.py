"""Which class each picture is of: by ``dataset.json``, the place itself, the folder, or the name of the file."""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cmtool.datasets.storage import ImageStorage, list_some, show_path
from cmtool.errors import BadFile, Hint, Setting, UsageError, encodable, unknown_name
from cmtool.label_files import LABELS as LIST
from cmtool.label_files import match_labels

__all__ = ["EACH", "LABELS", "MORE", "LabelledPictures", "find_labels"]

LABELS = ("auto", "filename-prefix", "folder", "none")
WITHOUT = Hint("or learn without classes: {}", Setting("data.labels", "none"))
MOST = 100_000  # classes
MORE, EACH = 1 << 20, 512  # bytes that dataset.json may have, and more for each image
EDM_PART = re.compile(r"\d{5}/img\d{8}\.\w+")


@dataclass(frozen=True)
class LabelledPictures:
    """The label of each picture, or None for all; the names of the classes; what there is to say about them."""

    labels: list[int] | None = None
    classes: tuple[str, ...] = ()
    remarks: list[str] = field(default_factory=list)


def find_labels(place: ImageStorage, way: str) -> LabelledPictures:
    """``auto`` takes ``dataset.json``, then what the place says of itself, then the first folders.

    BadFile for labels that are damaged or belong to other files; UsageError where some pictures lie in folders of
    classes and others beside them, or have no label where all should have one.
    """
    if way not in LABELS:
        raise unknown_name("way to label", way, LABELS)
    if way == "none":
        return LabelledPictures()
    if way == "filename-prefix":
        return _name_classes([_before(place, i, "_") for i in range(len(place.names))])
    if way == "folder":
        return _name_classes([_before(place, i, "/") for i in range(len(place.names))], _empty(place))
    if place.text is not None:
        return _from_json(place, place.text)
    if len(place.labels):
        return _number(place, place.labels, place.class_names, place.name)
    return _from_folders(place)


def _name_classes(names: Sequence[str], remarks: Sequence[str] = ()) -> LabelledPictures:
    """Classes in the order of their names; 10 comes after 9."""
    names = [unicodedata.normalize("NFC", name) for name in names]  # macOS takes letters apart
    plain = all(name.isascii() and name.isdigit() for name in names)
    classes = tuple(sorted(set(names), key=lambda name: (int(name[:18]) if plain else 0, name)))
    numbers = {name: k for k, name in enumerate(classes)}
    return LabelledPictures([numbers[name] for name in names], tuple(_distinct(list(classes))), list(remarks))


def _before(place: ImageStorage, index: int, mark: str) -> str:
    name = place.names[index]
    text = name if mark == "/" else name.rpartition("/")[2]
    if mark not in text:
        why = "it lies in no folder of a class" if mark == "/" else "its name has no '_'"
        raise UsageError(f"{place.call(index)} has no label: {why}", "labels can be: " + ", ".join(LABELS))
    return text.split(mark)[0]


def _from_folders(place: ImageStorage) -> LabelledPictures:
    inside = {name.partition("/")[0] for name in place.names if "/" in name}
    beside = [i for i, name in enumerate(place.names) if "/" not in name]
    remarks = [*_note_unused(place), *_empty(place)]
    if len(inside) < 2:
        return LabelledPictures(remarks=remarks)
    if beside:
        count = f"{len(beside):,} images lie" if len(beside) > 1 else f"{place.call(beside[0])} lies"
        raise UsageError(
            f"{count} beside the folders of {len(inside)} classes ({list_some(sorted(inside), 4)})"
            " and would have no label",
            Hint("move what is of no class elsewhere, {}", WITHOUT),
        )
    if all(EDM_PART.fullmatch(name) for name in place.names):
        parts = f"no labels: {list_some(sorted(inside), 3)} are EDM's numbered parts, no classes"
        return LabelledPictures(remarks=[*_note_unused(place), parts])
    return _name_classes([_before(place, i, "/") for i in range(len(place.names))], remarks)


def _empty(place: ImageStorage) -> list[str]:
    """What to say of folders that would be classes if pictures lay in them."""
    if not place.empty:
        return []
    those = "the folder has" if len(place.empty) == 1 else f"{len(place.empty):,} folders have"
    return [f"{place.name}: {those} no images, and no class of that name: {list_some(place.empty)}"]


def _note_unused(place: ImageStorage) -> list[str]:
    if not place.unused:
        return []
    which = (
        f"{list_some(place.unused, 3)} is not" if len(place.unused) == 1 else f"{list_some(place.unused, 3)} are not"
    )
    return [f"{place.name}: {which} read: a {LIST} counts where every image lies in its folder"]


def _from_json(place: ImageStorage, text: bytes) -> LabelledPictures:
    title = f"{LIST} of {place.name}"
    if len(text) > MORE + EACH * len(place.names):
        raise BadFile(
            f"{title} is larger than labels of {len(place.names):,} images can be", Hint("remove it, {}", WITHOUT)
        )
    pairs, names = _parse(text, title)
    if pairs is None:
        return LabelledPictures()
    known = match_labels(pairs, place.names, place.labels_in)
    if not any(label is not None for label in known):
        example = show_path(next(iter(pairs), "nothing"))
        raise BadFile(
            f"{title} names other files: {example} is not here",
            Hint("give the folder that it was made for, {}", WITHOUT),
        )
    gone = sum(label is not None for label in pairs.values()) - sum(label is not None for label in known)
    remarks = [f"{title} names {gone:,} files that are not here"] if gone else []
    return _number(place, known, names, title, remarks)


def _parse(text: bytes, title: str) -> tuple[dict[str, Any] | None, dict[int, str]]:
    """Labels by file and names by label; None where it says that there are no labels."""
    try:
        document = json.loads(text.removeprefix(b"\xef\xbb\xbf"))
        pairs, names = document["labels"], document.get("class_names") or {}
        found = None if pairs is None else {str(file).replace("\\", "/"): label for file, label in pairs}
        if pairs is not None and found is not None and len(found) < len(pairs):
            raise ValueError("a file is named twice")
        listed = dict(enumerate(names)) if isinstance(names, list) else {int(k): name for k, name in names.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BadFile(
            f"{title} holds no labels, or is damaged",
            Hint('what is read: {{"labels": [["name.png", 3], ...]}}; remove it, {}', WITHOUT),
        ) from error
    if not all(isinstance(name, str) for name in listed.values()):
        raise BadFile(f"{title} holds class_names that are no text")
    return found or None, listed


def _number(
    place: ImageStorage, numbers: Sequence[Any], names: Mapping[int, str], title: str, remarks: Sequence[str] = ()
) -> LabelledPictures:
    """Classes 0 to the highest label; those without a name are called by their number."""
    missing = [i for i, label in enumerate(numbers) if label is None]
    if missing:
        raise BadFile(
            f"{place.call(missing[0])} has no label in {title}: {len(missing):,} of {len(numbers):,} images have none",
            Hint("mend the labels, {}", WITHOUT),
        )
    wrong = [i for i, label in enumerate(numbers) if type(label) is not int or not 0 <= label < MOST]
    if wrong:
        label = show_path(str(numbers[wrong[0]])[:40])
        raise BadFile(
            f"{place.call(wrong[0])} has the label {label} in {title}, which is no number of a class",
            Hint("classes are numbered from 0, {}", WITHOUT),
        )
    count = max(max(numbers), *(k for k in names if k < MOST), 0) + 1
    classes = [unicodedata.normalize("NFC", names.get(k, str(k))) for k in range(count)]
    return LabelledPictures(list(numbers), tuple(_distinct(classes)), list(remarks))


def _distinct(names: list[str]) -> list[str]:
    """No two classes have one name, and every name is text: bytes that are none are written out."""
    names = list(map(encodable, names))
    count = Counter(names)
    return [f"{name} ({k})" if count[name] > 1 else name for k, name in enumerate(names)]
