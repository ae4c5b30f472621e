"""Checkpoints: the weights of one model and its header in one safetensors file."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from cmtool.core.denoiser import FORMS, TIMES, Denoiser, Preconditioning
from cmtool.errors import BadFile, UsageError, report_damage
from cmtool.files.container import digest, pack
from cmtool.files.header import KEY, Header, parse
from cmtool.files.header_versions import upgrade_tensors
from cmtool.files.model_format import LoadedModel
from cmtool.files.sealed import read_sealed, table_of, write_sealed
from cmtool.options import registry

__all__ = [
    "DTYPES",
    "build_model",
    "check_header",
    "complete_header",
    "digest",
    "load",
    "load_weights",
    "save",
    "without_memory",
]

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
STEPS = 100_000  # of a discrete noise schedule
PARTS = 200_000  # calls of torch that make a network: ten or so for each tensor
LARGEST = 1 << 24  # numbers of a network that are not in its file


def save(path: str | Path, model: Denoiser, header: Header, dtype: torch.dtype | None = None) -> Header:
    """Write the network's weights and the header, and return the header with its seal.

    ``dtype`` is the precision of the parameters in the file, by default their own; buffers, such as frequencies, keep
    theirs, and ``load`` returns all in that of the network. The preconditioning is the model's own. The file appears
    whole or not at all; WriteFailed when it cannot be written.
    """
    header = complete_header(header, model)
    document = _document(path, header)
    weights = model.net.state_dict()
    if dtype:
        weights |= {name: parameter.to(dtype) for name, parameter in model.net.named_parameters()}
    return replace(header, sha256=write_sealed(path, weights, KEY, document))


def check_header(header: Header, model: Denoiser) -> None:
    """BadFile or UsageError where ``save`` would refuse, or ``load`` not read back; to be asked before training."""
    pack(table_of(model.net.state_dict()), KEY, _document("the model", complete_header(header, model)))


def _document(path: str | Path, header: Header) -> dict[str, Any]:
    """What is stored of a header; BadFile where it could not be read."""
    document = header.document()
    parse(path, document)
    del document["sha256"]
    return document


def complete_header(header: Header, model: Denoiser) -> Header:
    """The header with what only the model itself knows, and without the seal of another file."""
    size = sum(parameter.numel() for parameter in model.net.parameters())
    return replace(header, preconditioning=asdict(model.preconditioning), parameters=size, sha256="")


def load(path: str | Path, device: str | torch.device = "cpu") -> LoadedModel[Denoiser]:
    """The model of a checkpoint, in eval mode, and its header.

    Every bit of the file is verified and every weight has its place. MissingInput when there is no such file; BadFile
    when it is damaged, is no checkpoint, or needs a network that is not installed.
    """
    tensors, document = read_sealed(path, KEY)
    header = parse(path, document)
    return build_model(path, header, upgrade_tensors(document, tensors), device)


def build_model(
    path: str | Path, header: Header, tensors: dict[str, Tensor], device: str | torch.device = "cpu"
) -> LoadedModel[Denoiser]:
    """The model that a header describes, with these weights; BadFile names ``path`` where they do not fit."""
    preconditioning = _preconditioning(path, header.preconditioning)
    net = _backbone(path, header, tensors)
    load_weights(path, net, tensors)
    return LoadedModel(Denoiser(net, preconditioning).eval().to(device), header, Path(path))


def _backbone(path: str | Path, header: Header, tensors: dict[str, Tensor]) -> nn.Module:
    """The network, made only after it was seen without memory that it is no larger than the tensors."""
    spec = header.backbone, header.shape, header.num_classes
    wrong = f"cannot be used: the network '{header.backbone.get('name')}' refuses its options"
    try:
        with report_damage(path, wrong), torch.random.fork_rng(devices=[]):  # the caller's randomness is not ours
            with without_memory():
                shown = registry.build("backbones", *spec)
            compare(path, shown.state_dict(), tensors)
            if sum(buffer.numel() for buffer in shown.buffers()) > LARGEST + sum(t.numel() for t in tensors.values()):
                raise BadFile(f"{path} cannot be used: its network is larger than its tensors")
            return registry.build("backbones", *spec)
    except UsageError as error:
        raise BadFile(f"{path} cannot be used: {error.message}", error.hint) from error


class _Meter(TorchFunctionMode):
    """Ends the making of a network that has more parts than any."""

    def __init__(self):
        super().__init__()
        self.left = PARTS

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.left -= 1
        if self.left < 0:
            raise ValueError("it has more parts than a network")
        return func(*args, **(kwargs or {}))


@contextmanager
def without_memory() -> Iterator[None]:
    """Networks made inside have shapes and no values, and not more than some ten thousand parts."""
    with _Meter(), torch.device("meta"):
        yield


def _preconditioning(path: str | Path, given: dict[str, Any]) -> Preconditioning:
    try:
        found = Preconditioning(**given)
    except TypeError as error:
        raise BadFile(f"{path} has a preconditioning that cannot be read: {error}") from None
    numbers = [value for key, value in asdict(found).items() if key not in ("time", "form", "jumps")]
    if any(isinstance(n, bool) or not isinstance(n, int | float) or abs(n) > 1e9 for n in numbers):
        raise BadFile(f"{path} has a preconditioning that cannot be read: {', '.join(map(str, numbers))[:60]}")
    if not found.sigma_data > 0 or found.sigma_min < 0 or type(found.jumps) is not bool:
        raise BadFile(f"{path} has a preconditioning that cannot be: sigma_data {found.sigma_data}")
    steps, low, high = found.steps, found.beta_min, found.beta_max
    if type(steps) is not int or not (20 < steps <= STEPS and high < steps and high > abs(low)):
        raise BadFile(f"{path} has a preconditioning that cannot be: {steps} steps, betas {low} to {high}")
    for what, name, known in (("time", found.time, TIMES), ("form", found.form, FORMS)):
        if not isinstance(name, str) or name not in known:
            raise BadFile(f"{path} has an unknown preconditioning {what} '{name}'", f"there are: {', '.join(known)}")
    return found


def load_weights(path: str | Path, net: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Give a network its weights, in its own precision; BadFile names one that has no place, no weight or no fit.

    A network on the device "meta" takes the tensors themselves.
    """
    wanted = net.state_dict()
    compare(path, wanted, tensors)
    given = {name: tensors[name].to(tensor.dtype) for name, tensor in wanted.items()}
    net.load_state_dict(given, assign=any(tensor.is_meta for tensor in wanted.values()))


def compare(path: str | Path, wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    """BadFile that names a tensor which has no place, is missing, or has another shape."""
    for what, names in (("lacks", wanted.keys() - tensors.keys()), ("has an unknown", tensors.keys() - wanted.keys())):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise BadFile(f"{path} does not fit its own network: it {what} tensor '{min(names)}'{more}")
    for name, tensor in wanted.items():
        if tensor.shape != tensors[name].shape:
            shapes = f"{list(tensors[name].shape)} instead of {list(tensor.shape)}"
            raise BadFile(f"{path} does not fit its own network: tensor '{name}' is {shapes}")
