"""Plugins: names are read from package metadata, and only the chosen one is imported.

Built-ins register through the same entry points in our own ``pyproject.toml``. A plugin is a function whose
keyword-only (or defaulted) arguments are its options; the signature is the schema. A checkpoint format is an object,
``files.model_format.Format``, and the function is its ``read``: ask ``factory(group, name)`` wherever options or a
docstring are wanted, and ``get(group, name)`` for the plugin itself.
"""

from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from cmtool.errors import CmtoolError, UsageError, unknown_name
from cmtool.options.plugin_option import options_of, parse_option, unknown_option

__all__ = ["GROUPS", "build", "factory", "get", "names", "options", "parse_spec", "providers", "typed"]

GROUPS = {
    "backbones": "network architecture",
    "formats": "checkpoint format",
    "datasets": "data set",
    "features": "feature extractor",
    "metrics": "metric",
    "assets": "published file",
    "operators": "editing task",
    "solvers": "solver",
    "samplers": "sampler",
    "schedules": "sigma schedule",
    "processes": "process",
    "optimizers": "optimizer",
    "distances": "distance",
    "train_score": "score-training method",
    "distill": "distillation method",
    "train_ct": "consistency-training method",
    "loggers": "logger",
}


def _entries(group: str) -> list[EntryPoint]:
    return list(entry_points(group=f"cmtool.{group}"))


def names(group: str) -> list[str]:
    """The names registered in a group, sorted; nothing is imported."""
    return sorted({entry.name for entry in _entries(group)})


def providers(group: str) -> dict[str, list[EntryPoint]]:
    """Every name of a group with the entry points that claim it, one per distribution."""
    found: dict[str, dict[str, EntryPoint]] = {}
    for entry in _entries(group):
        found.setdefault(entry.name, {})[entry.dist.name if entry.dist else "?"] = entry
    return {name: list(by_dist.values()) for name, by_dist in sorted(found.items())}


def get(group: str, name: str) -> Any:
    """Import the factory called ``name``; UsageError when there is none, or when two packages claim the name."""
    found = providers(group)
    if name not in found:
        raise unknown_name(GROUPS[group], name, found)
    if len(found[name]) > 1:
        owners = " and ".join(sorted(entry.dist.name for entry in found[name] if entry.dist))
        raise UsageError(f"the {GROUPS[group]} '{name}' is provided twice, by {owners}", "uninstall one of them")
    entry = found[name][0]
    try:
        return entry.load()
    except CmtoolError:
        raise
    except Exception as error:  # a plugin may fail in any way; only whoever asked for it sees the error
        owner = entry.dist.name if entry.dist else "?"
        raise UsageError(
            f"the {GROUPS[group]} '{name}' of package {owner} cannot be imported: {type(error).__name__}: {error}",
            f"repair or uninstall {owner}",
        ) from error


def factory(group: str, name: str) -> Callable[..., Any]:
    """The function whose signature holds the options of a plugin, and whose docstring is its help."""
    plugin = get(group, name)
    return plugin.read if group == "formats" else plugin


def options(factory: Any) -> dict[str, Any]:
    """The options of a factory with their defaults: its keyword-only arguments."""
    return {name: option.default for name, option in options_of(factory).items()}


def build(group: str, spec: str | Mapping[str, Any], *args: Any, **given: Any) -> Any:
    """Call the factory that ``spec`` names: ``"unet"`` or ``{"name": "unet", "model_channels": 64}``.

    ``args`` and ``given`` come from the program (``given`` where the factory wants it), the rest of ``spec`` from the
    user, who wins: an option the factory does not have is a UsageError that names the nearest one and lists them all.
    """
    spec = {"name": spec} if isinstance(spec, str) else dict(spec)
    theirs = parse_spec(group, spec)
    make = factory(group, spec["name"])
    allowed = options_of(make)
    missing = [key for key, o in allowed.items() if o.required and key not in {**theirs, **given}]
    if missing:
        raise UsageError(f"{GROUPS[group]} '{spec['name']}' needs the option '{missing[0]}'")
    return make(*args, **{**{k: v for k, v in given.items() if k in allowed}, **theirs})


def parse_spec(group: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    """The options of ``spec`` but for its name, in their types and checked; UsageError as of ``build``."""
    name = spec.get("name")
    if not name:
        raise UsageError(f"a {GROUPS[group]} needs a name", f"there are: {', '.join(names(group))}")
    allowed = options_of(factory(group, name))
    options = {key: value for key, value in spec.items() if key != "name"}
    for key in options:
        if key not in allowed:
            raise unknown_option(f"{GROUPS[group]} '{name}'", key, allowed)
    what = "option '{}' of " + f"{GROUPS[group]} '{name}'"
    return {key: parse_option(allowed[key], what.format(key), value) for key, value in options.items()}


def typed(factory: Any, what: str, key: str, value: Any) -> Any:
    """The user's value of an option of ``factory``, in its type and checked; UsageError calls it ``what``."""
    known = options_of(factory)
    return parse_option(known[key], what, value) if key in known else value
