"""What stands where a run is to write, checked before the work: nothing that it did not make is lost or mixed in."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cmtool.errors import Hint, UsageError, WriteFailed
from cmtool.files.output_check import ANOTHER_PLACE, check_place, check_writable
from cmtool.files.streams.folder import read_labels
from cmtool.files.streams.folder_writer import known
from cmtool.files.streams.manifest import MANIFEST, ImageSettings, beside, describe_found, entries
from cmtool.files.streams.reader import items_of
from cmtool.files.streams.sheet import is_sheet
from cmtool.files.streams.sink import stem
from cmtool.label_files import LABELS
from cmtool.pictures import SUFFIXES

__all__ = ["check_file", "check_folder", "check_picture"]

Entry = Mapping[str, Any]


def check_folder(root: Path, wanted: ImageSettings, overwrite: bool) -> list[str]:
    """The remarks about a folder that these images go to.

    UsageError where a picture of the user has the name of one of them, or where images of another model, or made with
    other settings, would stay among them; BadFile for a manifest or labels that are not ours; WriteFailed. With
    ``overwrite`` all of them give way.
    """
    if root.exists() and not root.is_dir():
        raise WriteFailed(f"cannot write {root}: a file is in the way", "choose another place")
    check_writable(root)
    if not root.is_dir():
        return []
    read_labels(root / LABELS)
    lines = {seed: found for seed, (_, found) in known(root, strict=not overwrite).items()}
    names, ours = set(os.listdir(root)), {f"{stem(seed)}.png" for seed in lines}
    others = sorted(name for name in names - ours if name.lower().endswith(SUFFIXES) and name[0] != ".")
    if not overwrite:
        taken = {f"{stem(seed)}.png" for seed in wanted.seeds}.intersection(others) if others else ()
        if taken:
            raise UsageError(f"{root / min(taken)} exists, and this command did not make it", ANOTHER_PLACE)
        there = [found for seed, found in lines.items() if f"{stem(seed)}.png" in names]
        _refuse(root, "would stay among these", wanted.strangers(there), there, wanted)
    remarks = _fresh(root, lines.values(), wanted)
    if others:
        some = ", ".join([*others[:3], *(["..."] if len(others) > 3 else [])])
        remarks.append(f"{root} holds {len(others)} other pictures ({some}), which count as images of this folder")
    return remarks


def check_file(target: Path, wanted: ImageSettings, overwrite: bool) -> list[str]:
    """The same for a file of images, of which a run takes up what it can and replaces the rest."""
    check_writable(target)
    if overwrite:
        return []
    manifest, part = beside(target, MANIFEST), beside(target, "part")
    journal = beside(manifest, "part")
    for path, witnesses in ((target, [manifest]), (part, [manifest, journal])):
        if path.is_file() and path.stat().st_size and not any(witness.is_file() for witness in witnesses):
            raise UsageError(f"{path} exists, and this command did not make it", ANOTHER_PLACE)
    finished = [found for _, found in entries(manifest, strict=True)]
    lines = [*finished, *(found for _, found in entries(journal))]
    places = {seed: wanted.label(i) for i, seed in enumerate(wanted.seeds)} if lines else {}
    lost = [found for found in lines if found["seed"] not in places]
    _refuse(target, "would be lost", [found["seed"] for found in lost], lost, wanted)
    remarks = _fresh(target, lines, wanted)
    if remarks and target.is_file() and not part.exists() and sum(1 for _ in items_of(target)) != len(finished):
        raise UsageError(
            f"{target} is another file than its manifest tells of, and this command did not make it", ANOTHER_PLACE
        )
    return remarks


def check_picture(target: Path, wanted: ImageSettings, overwrite: bool) -> list[str]:
    """The same for a sheet of all images, which is always made anew."""
    check_place(target, overwrite=overwrite, ours=is_sheet)
    return []


def _refuse(place: Path, fate: str, seeds: list[int], there: Iterable[Entry], wanted: ImageSettings) -> None:
    if seeds:
        some = set(seeds)
        makers = {_maker(found, wanted) for found in there if found["seed"] in some}
        who = next((maker for maker in ("of another model", "made with other settings") if maker in makers), "more")
        what = "more images" if who == "more" else f"images {who}"
        raise UsageError(
            f"{place} holds {len(seeds):,} {what}, which {fate}",
            Hint("{}, which removes them", ANOTHER_PLACE),
        )


def _fresh(place: Path, there: Iterable[Entry], wanted: ImageSettings) -> list[str]:
    """A remark on images that are replaced by others of the same seeds."""
    makers = [maker for found in there if (maker := _maker(found, wanted))]
    if not makers:
        return []
    return [f"{len(makers):,} images in {place} are {makers[0]} and are made anew"]


def _maker(found: Entry, wanted: ImageSettings) -> str:
    """Who made another image than is wanted: empty where nobody did."""
    facts = describe_found(found)
    if not facts or facts == wanted.plain:
        return ""
    return "of another model" if facts.get("model") != wanted.plain.get("model") else "made with other settings"
