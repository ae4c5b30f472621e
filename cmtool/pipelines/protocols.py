"""What the tools of published numbers do, by name: the network, the resizing and the rounding that go together."""

from cmtool.assets import find
from cmtool.errors import UsageError
from cmtool.options import registry
from cmtool.options.types import Spec
from cmtool.pipelines.reporter import Reporter
from cmtool.settings import FidOptions
from cmtool.settings.scoring import PROTOCOLS

__all__ = ["features_of"]


def features_of(options: FidOptions, console: Reporter) -> Spec:
    """The features that are asked for, by themselves or through a protocol; UsageError when the two disagree.

    When nothing at all was said, and FID's weights are not here, they are ``small``, and that is said.
    """
    spec = options.features
    if options.protocol is None:
        return spec if options.ref or spec != Spec(name="inception") else _affordable(spec, console)
    protocol = PROTOCOLS[options.protocol]
    wanted = {"network": protocol.network, "mode": protocol.mode}
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


def _affordable(spec: Spec, console: Reporter) -> Spec:
    asset = registry.get("assets", "inception")
    if find(asset):
        return spec
    console.warn("FID's network is not here, so this is FD-small, which is no FID; 'cmtool fetch inception' gets it")
    return Spec(name="small")
