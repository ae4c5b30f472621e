"""``.pkl`` files of EDM, of easy consistency tuning (ECT) and of EDM2: a network, and the program text that made it.

The text is neither run nor read: what the network was made with stands beside it as plain values, and that is enough.
Files called "vp" and "ve" differ in the network only; what the network predicts follows from the class around it.
Source: Karras et al. 2022, arXiv 2206.00364, table 1; Geng et al. 2024, arXiv 2406.14548; Karras et al. 2024, arXiv
2312.02696.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cmtool.core.denoiser import Denoiser, Preconditioning
from cmtool.errors import BadFile
from cmtool.files.checkpoint import digest, load_weights
from cmtool.files.header import Header
from cmtool.files.model_format import Format, LoadedModel
from cmtool.files.safe_pickle.sandbox import describe_network
from cmtool.files.safe_pickle.torch_files import read_tensors
from cmtool.formats.common import (
    SigmaMaxOption,
    SigmaMinOption,
    build_described,
    check_backbone,
    check_sigmas,
    contradiction,
    unknown_data,
)
from cmtool.formats.edm_arguments import process_fields, spec_of

__all__ = ["edm"]

START = 1 << 20  # bytes at the beginning of a file within which its network begins
LICENCE = "CC BY-NC-SA 4.0"  # of the code that writes such files, and of all that its authors published


@dataclass(frozen=True)
class PrecondClass:
    """What a class around a network means: a name of ``Preconditioning``, and the noise levels its authors used.

    A file may say that its network knows a narrower range than that. A ``bounded`` network gives back its input at
    ``sigma_min``, the others at 0. ``sigmas`` are those of the consistency steps after the first.
    """

    family: str
    preconditioning: str
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    consistency: bool = False
    sigmas: tuple[float, ...] = ()
    bounded: bool = False


CLASSES = {
    "EDMPrecond": PrecondClass("edm", "edm"),
    "VPPrecond": PrecondClass("edm", "vp-999"),
    "VEPrecond": PrecondClass("edm", "ve-1"),
    "iDDPMPrecond": PrecondClass("edm", "iddpm"),
    "ECMPrecond": PrecondClass("ect", "edm", 0.003, 80.0, True, (0.821,), bounded=True),
    "Precond": PrecondClass("edm2", "edm"),
}
HEAD = "logvar_"  # begins the names of what EDM2 learns its uncertainty with; ECT takes that off the same class
TUNED = PrecondClass("ect", "edm", 0.002, 80.0, True, (1.526,))


def is_edm(path: Path) -> bool:
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
    backbone: Mapping[str, Any],
    *,
    sigma_min: SigmaMinOption = None,
    sigma_max: SigmaMaxOption = None,
) -> LoadedModel[Denoiser]:
    """Networks of EDM, EDM2 and easy consistency tuning (ECT), as NVIDIA's persistence pickles them.

    Formula: ``D(x, sigma) = c_skip x + c_out F(c_in x, c_noise)``, the preconditioning that the class around the
    network names
    Paper: Karras et al. 2022, arXiv 2206.00364, table 1; Geng et al. 2024, arXiv 2406.14548; Karras et al. 2024, arXiv
    2312.02696.
    Use: for the ``.pkl`` files of these three programs. Everything is in the file: of ``backbone`` only the dropout
    may differ from it. ``sigma_min`` and ``sigma_max`` replace the published noise levels to sample between; the
    boundary of ECT's network is the file's.

    BadFile for a damaged file or one that holds more than a network; UsageError for what contradicts it.
    """
    described = describe_network(path)
    if described["kind"] not in CLASSES:
        raise BadFile(
            f"{path} holds a '{described['kind']}', which is no network of EDM, ECT or EDM2", published_kinds()
        )
    kind = sigma_range(path, class_of_network(described), described["attributes"], sigma_min, sigma_max)
    shape, classes, spec = spec_of(path, described)
    check_backbone(path, spec, backbone)
    spec |= backbone

    prefix = "unet." if described["kind"] == "Precond" else "model."
    table = {name.removeprefix(prefix): at for name, at in described["tensors"].items() if name.startswith(prefix)}
    net = build_described(path, spec, shape, classes)
    load_weights(path, net, read_tensors(path, table))
    data = positive_number(path, described["attributes"], "sigma_data", 0.5)
    boundary = kind.sigma_min if kind.bounded else 0.0
    process = process_fields(path, described)
    model = Denoiser(net, replace(Preconditioning.named(kind.preconditioning, data), sigma_min=boundary, **process))
    return LoadedModel(model, edm_header(path, kind, spec, model, shape, classes), path)


def class_of_network(described: Mapping[str, Any]) -> PrecondClass:
    """Of a class that is known; EDM2's without its learned uncertainty is a consistency model that ECT made of one."""
    tuned = described["kind"] == "Precond" and not any(name.startswith(HEAD) for name in described["tensors"])
    return TUNED if tuned else CLASSES[described["kind"]]


def sigma_range(
    path: Path, kind: PrecondClass, attributes: Mapping[str, Any], sigma_min: float | None, sigma_max: float | None
) -> PrecondClass:
    """With the noise levels that the caller wants, or the network knows; a bounded network's lowest is the file's."""
    if not kind.bounded:
        low, high = (known_sigma(path, attributes, name, getattr(kind, name)) for name in ("sigma_min", "sigma_max"))
        kind = replace(kind, sigma_min=max(low, kind.sigma_min), sigma_max=min(high, kind.sigma_max))
    else:
        kind = replace(kind, sigma_min=positive_number(path, attributes, "sigma_min", kind.sigma_min))
        if sigma_min not in (None, kind.sigma_min):
            raise contradiction(path, "format.sigma_min", sigma_min, kind.sigma_min)
    kind = replace(kind, sigma_min=sigma_min or kind.sigma_min, sigma_max=sigma_max or kind.sigma_max)
    check_sigmas(kind.sigma_min, kind.sigma_max)
    return kind


def positive_number(path: Path, attributes: Mapping[str, Any], name: str, otherwise: float) -> float:
    value = attributes.get(name, otherwise)
    if not 0 < value < 100:
        raise BadFile(f"{path} has the impossible {name}={value}")
    return float(value)


def known_sigma(path: Path, attributes: Mapping[str, Any], name: str, otherwise: float) -> float:
    """An end of what a network knows, which may be 0 or without end."""
    value = attributes.get(name, otherwise)
    if not value >= 0:
        raise BadFile(f"{path} has the impossible {name}={value}")
    return float(value)


def published_kinds() -> str:
    return f"cmtool reads: {', '.join(CLASSES)}"


def edm_header(
    path: Path, kind: PrecondClass, spec: dict[str, Any], model: Denoiser, shape: tuple[int, ...], classes: int
) -> Header:
    """What a converted file will say of it."""
    return Header(
        kind="consistency" if kind.consistency else "score",
        backbone=spec,
        preconditioning=asdict(model.preconditioning),
        data=unknown_data(shape),
        num_classes=classes,
        sigma_min=kind.sigma_min,
        sigma_max=kind.sigma_max,
        sigmas=list(kind.sigmas),
        method=kind.family,
        licence=LICENCE,
        sha256=digest(path),
    )


edm = Format(read_edm, is_edm)
