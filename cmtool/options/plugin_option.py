"""The options of a plugin: they are declared in its signature, each with its help and its check.

    def ect(*, P_mean: Annotated[float, Option("mean of ln sigma")] = -1.1,
               q: Annotated[float, Option("how fast pairs come closer", above(1))] = 2.0) -> Objective: ...

The signature is the schema: keyword-only parameters are options, the annotation is the type, the default the default.
A plugin of another package need not annotate; what it does not say is not checked.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from cmtool.errors import UsageError, unknown_name
from cmtool.options.types import Check, Expected, coerce

__all__ = ["REQUIRED", "Option", "PluginOption", "options_of", "parse_option"]

REQUIRED = inspect.Parameter.empty


@dataclass(frozen=True)
class Option:
    """What a signature cannot say of an option: help for people, a check, the words that it may be."""

    help: str
    check: Check | None = None
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class PluginOption:
    """An option of a plugin as users meet it; ``kind`` is None and ``help`` empty where the plugin does not say."""

    name: str
    default: Any
    kind: Any = None
    help: str = ""
    check: Check | None = None
    choices: tuple[str, ...] = ()


def options_of(factory: Callable[..., Any]) -> Mapping[str, PluginOption]:
    """The options of a factory by name, in the order of its signature."""
    hints = get_type_hints(factory, include_extras=True)
    parameters = inspect.signature(factory).parameters.values()
    return {p.name: _option(p, hints.get(p.name)) for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


def _option(parameter: inspect.Parameter, hint: Any) -> PluginOption:
    kind, *extras = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    said = next((extra for extra in extras if isinstance(extra, Option)), Option(""))
    return PluginOption(parameter.name, parameter.default, kind, said.help, said.check, said.choices)


def parse_option(option: PluginOption, what: str, value: Any) -> Any:
    """The user's value as the type that the option has; UsageError, in which the option is called ``what``, when it
    is no such value or fails the check. A kind that no text becomes passes: it comes from the program.
    """
    try:
        value = value if option.kind is None else coerce(option.kind, value)
    except Expected as error:
        raise UsageError(f"{what} must be {error}, not '{value}'") from error
    except KeyError:
        return value
    if option.choices and value not in option.choices:
        raise unknown_name(f"value of {what}", str(value), option.choices)
    complaint = option.check.complaint(value) if option.check and value is not None else None
    if complaint:
        raise UsageError(f"{what} must be {complaint}, not {value}")
    return value
