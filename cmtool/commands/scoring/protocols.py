"""What the tools of published numbers do, by name: the network, the resizing and the rounding that go together."""

from dataclasses import dataclass

from cmtool.assets import find
from cmtool.commands.console import Console
from cmtool.errors import UsageError
from cmtool.options import registry
from cmtool.options.types import Spec
from cmtool.settings import FidOptions

__all__ = ["PROTOCOLS", "Protocol", "features_of"]


@dataclass(frozen=True)
class Protocol:
    """``network`` and ``mode`` of the features ``inception``; the rounding of a model's images is ``core.pixels``."""

    network: str
    mode: str

    def options(self) -> dict[str, str]:
        return {"network": self.network, "mode": self.mode}


PROTOCOLS = {
    "edm": Protocol("torchscript", "legacy_tensorflow"),
    "adm": Protocol("pth", "legacy_tensorflow"),  # the network that shows the spatial features of sFID
    "clean": Protocol("torchscript", "clean"),
    "pytorch-fid": Protocol("pth", "legacy_pytorch"),
}


def features_of(options: FidOptions, console: Console) -> Spec:
    """The features that are asked for, by themselves or through a protocol; UsageError when the two disagree.

    When nothing at all was said, and FID's weights are not here, they are ``small``, and that is said.
    """
    spec = options.features
    if options.protocol is None:
        return spec if options.ref or spec != Spec(name="inception") else _affordable(spec, console)
    wanted = PROTOCOLS[options.protocol].options()
    if spec.name != "inception":
        raise UsageError(
            f"--protocol {options.protocol} measures FID, and the features '{spec.name}' are not Inception's",
            "leave one of them out",
        )
    for key, value in wanted.items():
        if spec.get(key, value) != value:
            raise UsageError(
                f"--protocol {options.protocol} means features.{key}={value}, not {spec[key]}", "leave one of them out"
            )
    return Spec({**spec, **wanted})


def _affordable(spec: Spec, console: Console) -> Spec:
    asset = registry.get("assets", "inception")
    if find(asset):
        return spec
    console.warn("FID's network is not here, so this is FD-small, which is no FID; 'cmtool fetch inception' gets it")
    return Spec(name="small")
