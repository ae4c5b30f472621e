"""What a checkpoint says about itself, readable without torch."""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, get_origin

from cmtool.errors import BadFile
from cmtool.files.container import read_envelope, verify
from cmtool.text_files import dump_json

__all__ = ["FORMAT", "KEY", "Header", "parse", "read_header"]

FORMAT = 2
KEY = "cmtool"  # of the safetensors metadata
KINDS = ("score", "consistency")
DEEPEST, LARGEST, MOST_PIXELS = 12, 1 << 63, 1 << 28


@dataclass(frozen=True)
class Header:
    """All that is needed to use a model, and where it came from.

    ``kind``             "score" (returns the mean of x_0) or "consistency" (returns the end of the ODE)
    ``backbone``         the spec exactly as the factory got it: ``{"name": "unet", "model_channels": 64, ...}``
    ``preconditioning``  the fields of ``core.denoiser.Preconditioning``
    ``data``             ``{"name", "shape": [C, H, W] or [D], "classes": [names], "notice"}``
    ``num_classes``      the number of classes the network takes, 0 for none
    ``sigmas``           descending noise levels: for a consistency model those of the steps after the first that
                         multistep sampling works best with, one fewer than the steps it takes when none are asked for;
                         for a score model that was distilled to a walk of a few of Euler's steps, where each begins
    ``method``           what trained it, ``images`` how many it has seen, ``options`` with which resolved options
    ``parents``          ``[{"path", "sha256"}]`` of teachers, initial weights, and files that it was converted from
    ``parameters``       how many numbers the network has learnt, 0 where it was not counted
    ``average``          how the weights were averaged: ``{"track": "power:0.05"}``, and what it was rebuilt from
    ``sha256``           the seal of the file (``files.envelope``), empty until it is saved; for the file of another
                         program its SHA-256
    """

    kind: str
    backbone: dict[str, Any]
    preconditioning: dict[str, Any]
    data: dict[str, Any]
    num_classes: int
    sigma_min: float
    sigma_max: float
    sigmas: list[float] = field(default_factory=list)
    method: str = ""
    images: int = 0
    options: dict[str, Any] = field(default_factory=dict)
    parents: list[dict[str, str]] = field(default_factory=list)
    licence: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    average: dict[str, Any] = field(default_factory=dict)
    parameters: int = 0
    format: int = FORMAT
    sha256: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        """``(C, H, W)`` of an image or ``(D,)`` of a point."""
        return tuple(self.data["shape"])

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes of the data, in the order of the labels."""
        return tuple(self.data.get("classes", ()))

    @property
    def noncommercial(self) -> bool:
        """Whether the licence is one of Creative Commons that rules out commercial use."""
        return "NC" in re.split("[ -]", self.licence)

    def document(self) -> dict[str, Any]:
        """The header as JSON holds it: a dict of strings, numbers, lists and dicts."""
        return json.loads(dump_json(asdict(self)))


def read_header(path: str | Path, whole: bool = False) -> Header:
    """The header of a checkpoint, without its tensors; ``whole`` also reads the rest of the file to verify its seal.

    MissingInput when there is no such file; BadFile when it is no safetensors file, or holds no header of ours.
    """
    envelope = read_envelope(path, KEY)
    if whole:
        verify(path, envelope)
    return parse(path, envelope.document)


# Format 1 called them otherwise.
NAMES_OF_1 = {"conditional": "num_classes", "levels": "sigmas"}
BACKBONE_OF_1 = {"width": "model_channels", "mults": "channel_mult", "blocks": "num_blocks"}
OPTIONS_OF_1 = {"drop_labels": "label_dropout", "clip": "grad_clip", "decay": "lr_schedule", "guide": "guidance_model"}
# One option stood for two conditions of a network: of a flow map the target noise level, else augmentation.
CONDITION_OF_1 = {True: {"augment": "target_dim"}, False: {"augment": "augment_dim"}}
KEPT_WIDTH = {"mlp", "dit"}  # networks whose option is still called ``width``


def current(document: dict[str, Any]) -> dict[str, Any]:
    """A header of format 1 in the words of format 2; any other as it is."""
    if document.get("format") != 1:
        return document
    found = {NAMES_OF_1.get(key, key): value for key, value in document.items()} | {"format": FORMAT}
    options = found.get("options")
    if isinstance(options, dict):
        found["options"] = {OPTIONS_OF_1.get(key, key): value for key, value in options.items()}
    for place in (found, found.get("options")):
        backbone = place.get("backbone") if isinstance(place, dict) else None
        if isinstance(place, dict) and isinstance(backbone, dict) and backbone.get("name") not in KEPT_WIDTH:
            place["backbone"] = {BACKBONE_OF_1.get(key, key): value for key, value in backbone.items()}
    backbone, preconditioning = found.get("backbone"), found.get("preconditioning")
    if isinstance(backbone, dict) and isinstance(preconditioning, dict):
        condition = CONDITION_OF_1[preconditioning.get("jumps") is True]
        found["backbone"] = {condition.get(key, key): value for key, value in backbone.items()}
    return found


def parse(path: str | Path, document: dict[str, Any]) -> Header:
    """Check a JSON document and make a Header of it; BadFile names what is wrong with the file at ``path``."""
    document = current(document)
    if document.get("format") != FORMAT:
        raise BadFile(
            f"{path} has header format {document.get('format')}, but this cmtool reads format {FORMAT}",
            "install a version of cmtool that matches it",
        )
    try:
        header = Header(**document)
    except TypeError as error:
        raise BadFile(f"{path} has a header that cannot be read: {str(error).partition(' ')[2]}") from None
    wrong = [f.name for f in fields(Header) if not _fits(getattr(header, f.name), f.type)]
    if header.kind not in KINDS:
        wrong.append("kind")
    if not wrong:
        wrong = [place for place, fine in _contents(header) if not fine]
    if wrong:
        raise BadFile(f"{path} has a header that cannot be read: '{wrong[0]}' is not what it should be")
    return header


def _fits(value: Any, annotation: Any) -> bool:
    wanted = get_origin(annotation) or annotation
    if wanted in (int, float):
        return isinstance(value, int if wanted is int else int | float) and not isinstance(value, bool)
    return isinstance(value, wanted)


def _contents(header: Header) -> Iterator[tuple[str, bool]]:
    """What stands inside the fields, and whether it can be."""
    data, names = header.data, header.data.get("classes", [])
    yield from ((f.name, _plain(getattr(header, f.name))) for f in fields(Header))
    yield "data.shape", _is_shape(data.get("shape"))
    yield "data.classes", _are(str, names) and (not names or header.num_classes in (0, len(names)))
    yield "data.name", all(isinstance(data.get(key, ""), str) for key in ("name", "notice"))
    yield "backbone.name", isinstance(header.backbone.get("name", ""), str)
    yield "conditional", 0 <= header.num_classes < LARGEST
    yield "images", header.images >= 0 and header.parameters >= 0
    yield "sigma_max", 0 < header.sigma_min < header.sigma_max
    yield "sigmas", _are(int | float, header.sigmas) and all(level > 0 for level in header.sigmas)
    yield "parents", _are(dict, header.parents) and all(_are(str, list(parent.values())) for parent in header.parents)
    yield "versions", _are(str, list(header.versions.values()))
    yield "average.track", isinstance(header.average.get("track", ""), str)


def _are(kind: Any, values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(v, kind) and not isinstance(v, bool) for v in values)


def _plain(value: Any, depth: int = 0) -> bool:
    """Texts, finite numbers, and not too deep a nest of them."""
    if isinstance(value, dict | list):
        inside = value.values() if isinstance(value, dict) else value
        return depth < DEEPEST and all(_plain(item, depth + 1) for item in inside)
    return not isinstance(value, int | float) or abs(value) < LARGEST


def _is_shape(value: Any) -> bool:
    sides = isinstance(value, list) and len(value) in (1, 3) and all(type(side) is int and side > 0 for side in value)
    return sides and math.prod(value) < MOST_PIXELS
