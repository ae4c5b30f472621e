"""``.pkl`` files of EDM, of easy consistency tuning (ECT) and of EDM2: a network, and the program text that made it.

The text is neither run nor read: what the network was made with stands beside it as plain values, and that is enough.
Files called "vp" and "ve" differ in the network only; what the network predicts is told by the class around it.
Source: Karras et al. 2022, arXiv 2206.00364, table 1; Geng et al. 2024, arXiv 2406.14548; Karras et al. 2024, arXiv
2312.02696.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from cmtool.core.denoiser import Denoiser, Preconditioning
from cmtool.errors import BadFile, CmtoolError, UsageError, unknown_name
from cmtool.files.checkpoint import digest, load_weights, without_memory
from cmtool.files.header import Header
from cmtool.files.model_format import Format, LoadedModel
from cmtool.files.safe_pickle.sandbox import describe, read_tensors
from cmtool.formats.edm_arguments import process_of, spec_of
from cmtool.options import registry

__all__ = ["edm"]

START = 1 << 20  # bytes at the beginning of a file within which its network begins
LICENCE = "CC BY-NC-SA 4.0"  # of the code that writes such files, and of all that its authors published


@dataclass(frozen=True)
class Kind:
    """What a class around a network means: a name of ``Preconditioning``, the levels that its authors used it for.

    A file may say that its network knows fewer levels than those. A ``bounded`` network gives back its input at the
    lowest of them, the others at 0.
    """

    family: str
    preconditioning: str
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    consistency: bool = False
    levels: tuple[float, ...] = ()
    bounded: bool = False


KINDS = {
    "EDMPrecond": Kind("edm", "edm"),
    "VPPrecond": Kind("edm", "vp-999"),
    "VEPrecond": Kind("edm", "ve-1"),
    "iDDPMPrecond": Kind("edm", "iddpm"),
    "ECMPrecond": Kind("ect", "edm", 0.003, 80.0, True, (0.821,), bounded=True),
    "Precond": Kind("edm2", "edm"),
}
HEAD = "logvar_"  # begins the names of what EDM2 learns its uncertainty with; ECT takes that off the same class
TUNED = Kind("ect", "edm", 0.002, 80.0, True, (1.526,))


def recognize(path: Path) -> bool:
    """A pickle that soon names the function by which EDM's programs restore objects."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            start = file.read(START)
    except OSError:
        return False
    return start[:1] == b"\x80" and b"_reconstruct_persistent_obj" in start


def read_edm(
    path: Path,
    *,
    backbone: Mapping[str, Any] | None = None,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
) -> LoadedModel[Denoiser]:
    """A network of EDM, ECT or EDM2 as a denoiser, with a header.

    Everything is in the file: ``backbone`` may only repeat it, except for the dropout. ``sigma_min`` and ``sigma_max``
    are the levels to sample between, where they should be others than published; of a bounded network, ``sigma_min``
    is that at which it gives back its input, and is the file's. BadFile for a damaged file or one that holds more than
    a network; UsageError for what contradicts it.
    """
    told = describe(path)
    if told["kind"] not in KINDS:
        raise BadFile(f"{path} holds a '{told['kind']}', which is no network of EDM, ECT or EDM2", published_kinds())
    kind = sigma_range(path, kind_of(told), told["attributes"], sigma_min, sigma_max)
    shape, classes, spec = spec_of(path, told)
    contradicts(path, spec, backbone or {})
    spec |= backbone or {}

    inside = "unet." if told["kind"] == "Precond" else "model."
    table = {name.removeprefix(inside): at for name, at in told["tensors"].items() if name.startswith(inside)}
    net = empty(path, spec, shape, classes)
    load_weights(path, net, read_tensors(path, table))
    data = positive(path, told["attributes"], "sigma_data", 0.5)
    boundary = kind.sigma_min if kind.bounded else 0.0
    process = process_of(path, told)
    model = Denoiser(net, replace(Preconditioning.named(kind.preconditioning, data), sigma_min=boundary, **process))
    return LoadedModel(model, header(path, kind, spec, model, shape, classes), path)


def kind_of(told: Mapping[str, Any]) -> Kind:
    """Of a class that is known; EDM2's without its learned uncertainty is a consistency model that ECT made of one."""
    tuned = told["kind"] == "Precond" and not any(name.startswith(HEAD) for name in told["tensors"])
    return TUNED if tuned else KINDS[told["kind"]]


def sigma_range(
    path: Path, kind: Kind, attributes: Mapping[str, Any], sigma_min: float | None, sigma_max: float | None
) -> Kind:
    """With the levels that the caller wants, or the network knows; a bounded network's lowest is the file's."""
    if not kind.bounded:
        low, high = (known_level(path, attributes, name, getattr(kind, name)) for name in ("sigma_min", "sigma_max"))
        kind = replace(kind, sigma_min=max(low, kind.sigma_min), sigma_max=min(high, kind.sigma_max))
    else:
        kind = replace(kind, sigma_min=positive(path, attributes, "sigma_min", kind.sigma_min))
        if sigma_min not in (None, kind.sigma_min):
            raise UsageError(
                f"format.sigma_min={sigma_min} contradicts {path}, whose is {kind.sigma_min}", "leave it out"
            )
    kind = replace(kind, sigma_min=sigma_min or kind.sigma_min, sigma_max=sigma_max or kind.sigma_max)
    if not 0 < kind.sigma_min < kind.sigma_max:
        raise UsageError(
            f"there are no noise levels from {kind.sigma_min} to {kind.sigma_max}", "set format.sigma_max higher"
        )
    return kind


def positive(path: Path, attributes: Mapping[str, Any], name: str, otherwise: float) -> float:
    value = attributes.get(name, otherwise)
    if not 0 < value < 100:
        raise BadFile(f"{path} has the impossible {name}={value}")
    return float(value)


def known_level(path: Path, attributes: Mapping[str, Any], name: str, otherwise: float) -> float:
    """An end of what a network knows, which may be 0 or without end."""
    value = attributes.get(name, otherwise)
    if not value >= 0:
        raise BadFile(f"{path} has the impossible {name}={value}")
    return float(value)


def published_kinds() -> str:
    return f"cmtool reads: {', '.join(KINDS)}"


def contradicts(path: Path, spec: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """UsageError for an option of the network that is none, or not the file's."""
    allowed = registry.options(registry.get("backbones", spec["name"]))
    for key, value in given.items():
        if key not in allowed:
            raise unknown_name(f"option of network architecture '{spec['name']}'", key, allowed)
        if key != "dropout" and key in spec and (list(value) if isinstance(value, tuple) else value) != spec[key]:
            raise UsageError(f"backbone.{key}={value} contradicts {path}, whose is {spec[key]}", "leave it out")


def empty(path: Path, spec: Mapping[str, Any], shape: tuple[int, ...], classes: int) -> torch.nn.Module:
    """The network that the arguments describe, without memory for its weights; BadFile when there is none."""
    try:
        with without_memory():
            return registry.build("backbones", spec, shape, classes)
    except CmtoolError as error:
        raise BadFile(f"{path} cannot be used: {error.message}", error.hint) from error
    except (TypeError, ValueError, RuntimeError) as error:
        raise BadFile(f"{path} describes a network that cannot be: {error}") from error


def header(
    path: Path, kind: Kind, spec: dict[str, Any], model: Denoiser, shape: tuple[int, ...], classes: int
) -> Header:
    """What a converted file will say of it."""
    return Header(
        kind="consistency" if kind.consistency else "score",
        backbone=spec,
        preconditioning=asdict(model.preconditioning),
        data={"name": "unknown", "shape": list(shape), "classes": [], "notice": ""},
        num_classes=classes,
        sigma_min=kind.sigma_min,
        sigma_max=kind.sigma_max,
        sigmas=list(kind.levels),
        method=kind.family,
        licence=LICENCE,
        sha256=digest(path),
    )


edm = Format(read_edm, recognize)
