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
from cmtool.files.header_versions import FORMAT, upgrade_header
from cmtool.text_files import dump_json

__all__ = ["FORMAT", "KEY", "Header", "parse", "read_header"]

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
                         for a score model that was distilled to a few of Euler's steps, that at which each begins
    ``method``           what trained it, ``images`` how many it has seen, ``options`` with which resolved options
    ``parents``          ``[{"path", "sha256"}]`` of teachers, initial weights, and files that it was converted from
    ``evaluation``       of the best checkpoint of a run: ``{"metric": "FD-small", "value": 3.2, "n": 1000}``
    ``parameters``       how many numbers the network has learnt, 0 where it was not counted
    ``average``          how the weights were averaged: ``{"ema": "power:0.05"}``, and what it was rebuilt from
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
    evaluation: dict[str, Any] = field(default_factory=dict)
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
        """The header as JSON holds it: a dict of strings, numbers, lists and dicts.

        ``evaluation`` stands there where it says something: versions that do not know it read all other files.
        """
        found = {key: value for key, value in asdict(self).items() if value or key != "evaluation"}
        return json.loads(dump_json(found))


def read_header(path: str | Path, whole: bool = False) -> Header:
    """The header of a checkpoint, without its tensors; ``whole`` also reads the rest of the file to verify its seal.

    MissingInput when there is no such file; BadFile when it is no safetensors file, or holds no header of ours.
    """
    envelope = read_envelope(path, KEY)
    if whole:
        verify(path, envelope)
    return parse(path, envelope.document)


def parse(path: str | Path, document: dict[str, Any]) -> Header:
    """Check a JSON document and make a Header of it; BadFile names what is wrong with the file at ``path``."""
    document = upgrade_header(document)
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
    """The parts of the fields, each by its name, and whether it can be."""
    data, names = header.data, header.data.get("classes", [])
    yield from ((f.name, _plain(getattr(header, f.name))) for f in fields(Header))
    yield "data.shape", _is_shape(data.get("shape"))
    yield "data.classes", _are(str, names) and (not names or header.num_classes in (0, len(names)))
    yield "data.name", all(isinstance(data.get(key, ""), str) for key in ("name", "notice"))
    yield "backbone.name", isinstance(header.backbone.get("name", ""), str)
    yield "num_classes", 0 <= header.num_classes < LARGEST
    yield "images", header.images >= 0 and header.parameters >= 0
    yield "sigma_max", 0 < header.sigma_min < header.sigma_max
    yield "sigmas", _are(int | float, header.sigmas) and all(sigma > 0 for sigma in header.sigmas)
    yield "parents", _are(dict, header.parents) and all(_are(str, list(parent.values())) for parent in header.parents)
    yield "versions", _are(str, list(header.versions.values()))
    yield "average.ema", isinstance(header.average.get("ema", ""), str)


def _are(kind: Any, values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(v, kind) and not isinstance(v, bool) for v in values)


def _plain(value: Any, depth: int = 0) -> bool:
    """Texts, finite numbers, and not too deep a nest of them."""
    if isinstance(value, dict | list):
        items = value.values() if isinstance(value, dict) else value
        return depth < DEEPEST and all(_plain(item, depth + 1) for item in items)
    return not isinstance(value, int | float) or abs(value) < LARGEST


def _is_shape(value: Any) -> bool:
    sides = isinstance(value, list) and len(value) in (1, 3) and all(type(side) is int and side > 0 for side in value)
    return sides and math.prod(value) < MOST_PIXELS
