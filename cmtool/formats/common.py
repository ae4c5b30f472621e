"""What the readers of all formats say in the same words: what a file leaves open, and what contradicts it."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from torch import nn

from cmtool.errors import BadFile, CmtoolError, Hint, Setting, UsageError, unknown_name
from cmtool.files.checkpoint import without_memory
from cmtool.files.header import KINDS
from cmtool.options import registry
from cmtool.options.plugin_option import Option
from cmtool.options.types import at_least, positive

__all__ = [
    "EmaOption",
    "KindOption",
    "SideOption",
    "SigmaMaxOption",
    "SigmaMinOption",
    "build_described",
    "build_said",
    "check_agreement",
    "check_backbone",
    "check_sigmas",
    "contradiction",
    "require",
    "unknown_data",
    "whole_network",
]

KindOption = Annotated[str | None, Option("what the network was trained as", choices=KINDS)]
SideOption = Annotated[int | None, Option("side of the images, in pixels", at_least(1, 1 << 16))]
SigmaMinOption = Annotated[float | None, Option("lowest noise level to sample at", positive())]
SigmaMaxOption = Annotated[float | None, Option("highest noise level to sample at", positive())]
EmaOption = Annotated[bool, Option("take the averaged network of a training, not the last one")]


def require(path: Path, common: Mapping[str, Any]) -> None:
    """UsageError where a file leaves something open: ``common`` has it by its key, with a value that is common."""
    if common:
        given = Hint.join(Setting(key, value) for key, value in common.items())
        hint = Hint("write what is true of it into {}, or give it: such as {}", f"{path}.yaml", given)
        raise UsageError(f"{path} does not say {', '.join(common)}", hint)


def contradiction(path: Path, key: str, value: Any, known: Any) -> UsageError:
    """What the user said of ``key`` is not what the file says."""
    return UsageError(f"{key}={value} contradicts {path}, whose is {known}", "leave it out")


def check_agreement(path: Path, group: str, given: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """UsageError for the first of ``given`` that is not as it is ``known`` from the file."""
    for key, value in given.items():
        if key in known and _plain(value) != _plain(known[key]):
            raise contradiction(path, f"{group}.{key}", value, known[key])


def check_backbone(
    path: Path, known: Mapping[str, Any], given: Mapping[str, Any], free: Collection[str] = ("dropout",)
) -> None:
    """UsageError for an option of the network that there is not, or that contradicts what is ``known`` of it.

    Those that are ``free`` may differ from the file.
    """
    factory = registry.factory("backbones", known["name"])
    allowed = registry.options(factory)
    for key, value in given.items():
        if key not in allowed and key != "name":
            raise unknown_name(f"option of network architecture '{known['name']}'", key, allowed)
        found = registry.typed(factory, f"backbone.{key}", key, value)
        if key in known and key not in free and _plain(found) != _plain(known[key]):
            raise contradiction(path, f"backbone.{key}", value, known[key])


def check_sigmas(low: float, high: float) -> None:
    """UsageError unless there are noise levels from ``low`` to ``high``."""
    if not 0 < low < high:
        hint = Hint("set {} higher", Setting("format.sigma_max"))
        raise UsageError(f"there are no noise levels from {low} to {high}", hint)


@contextmanager
def whole_network(path: Path, what: str) -> Iterator[None]:
    """BadFile where an architecture is read of tensors that are missing, or of other shapes."""
    try:
        yield
    except (KeyError, IndexError, ValueError, TypeError, ZeroDivisionError, AttributeError) as error:
        raise BadFile(f"{path} is no whole {what}: {error} is not there or has another shape") from error


def build_said(spec: Mapping[str, Any], shape: tuple[int, ...], classes: int) -> nn.Module:
    """The network that tensors and user describe, without memory for its weights; UsageError for a wrong option."""
    with without_memory():
        return registry.build("backbones", spec, shape, classes)


def build_described(path: Path, spec: Mapping[str, Any], shape: tuple[int, ...], classes: int) -> nn.Module:
    """The network that a file describes, without memory for its weights; BadFile when there is none such."""
    try:
        return build_said(spec, shape, classes)
    except CmtoolError as error:
        raise BadFile(f"{path} cannot be used: {error.message}", error.hint) from error
    except (TypeError, ValueError, RuntimeError) as error:
        raise BadFile(f"{path} describes a network that cannot be: {error}") from error


def unknown_data(shape: tuple[int, ...], name: str = "unknown") -> dict[str, Any]:
    """What a header says of data that a file does not tell of."""
    return {"name": name, "shape": list(shape), "classes": [], "notice": ""}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
