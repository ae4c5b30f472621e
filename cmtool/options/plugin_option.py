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

from cmtool.errors import UsageError, closest, unknown_name
from cmtool.options.coerce import coerce, type_words
from cmtool.options.types import Check, Expected

__all__ = ["REQUIRED", "Option", "PluginOption", "default_text", "options_of", "parse_option", "unknown_option"]

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

    @property
    def required(self) -> bool:
        """Whether there is no default."""
        return self.default is REQUIRED

    @property
    def type(self) -> str:
        """What its value is, in a word: ``number``, ``text`` or, where there are few, the choices themselves."""
        return type_words(self.kind)

    @property
    def limits(self) -> str:
        """What its value may be beyond its type: ``from 0 to 1``, ``gap, output``; empty where anything goes."""
        return ", ".join(self.choices) or (self.check.words if self.check else "")


def options_of(factory: Callable[..., Any]) -> Mapping[str, PluginOption]:
    """The options of a factory by name, in the order of its signature."""
    kinds, hints = _hints(factory, include_extras=False), _hints(factory, include_extras=True)
    parameters = inspect.signature(factory).parameters.values()
    return {
        p.name: _option(p, kinds.get(p.name), hints.get(p.name))
        for p in parameters
        if p.kind is inspect.Parameter.KEYWORD_ONLY
    }


def _hints(factory: Callable[..., Any], include_extras: bool) -> Mapping[str, Any]:
    """The annotations; none of a factory of which one cannot be read, such as a name that only type checkers see."""
    try:
        return get_type_hints(factory, include_extras=include_extras)
    except (NameError, TypeError, AttributeError, SyntaxError):
        return {}


def _option(parameter: inspect.Parameter, kind: Any, hint: Any) -> PluginOption:
    said = _find_option(hint) or Option("")
    return PluginOption(parameter.name, parameter.default, kind, said.help, said.check, said.choices)


def _find_option(hint: Any) -> Option | None:
    """The Option of ``Annotated[...]``, also where that is one side of ``... | None``."""
    if get_origin(hint) is not Annotated:
        return next(filter(None, map(_find_option, get_args(hint))), None)
    return next((extra for extra in get_args(hint)[1:] if isinstance(extra, Option)), None)


def default_text(value: Any) -> str:
    """A default as users would write it: ``2``, ``true``, ``0.9,0.99``, ``none``; ``required`` where there is none."""
    if value is REQUIRED:
        return "required"
    if isinstance(value, bool | None):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return ",".join(map(default_text, value))
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)


def unknown_option(what: str, key: str, known: Mapping[str, PluginOption]) -> UsageError:
    """``unknown option of solver 'heun' 'chrun'``, with the nearest name and the list of all as the hint."""
    near = closest(key, known)
    meant = f"did you mean '{near}'? " if near else ""
    listed = ", ".join(f"{name}={default_text(o.default)}" for name, o in known.items())
    return UsageError(f"unknown option of {what} '{key}'", f"{meant}it has {listed or 'no options'}")


def parse_option(option: PluginOption, what: str, value: Any) -> Any:
    """The user's value as the type that the option has; UsageError, in which the option is called ``what``, when it
    is no such value or fails the check. A kind that no text becomes passes: it comes from the program.
    """
    given = value
    try:
        value = value if option.kind is None else coerce(option.kind, value)
    except Expected as error:
        raise UsageError(f"{what} must be {error}, not '{given}'", _help(option)) from error
    except KeyError:
        return value
    if option.choices and value is not None and value not in option.choices:
        raise unknown_name(f"value of {what}", value, option.choices)
    complaint = option.check.complaint(value) if option.check and value is not None else None
    if complaint:
        raise UsageError(f"{what} must be {complaint}, not {given}", _help(option))
    return value


def _help(option: PluginOption) -> str | None:
    """What the option is, for whoever gave it a value that it cannot have."""
    default = "" if option.default in (REQUIRED, None) else f" [{default_text(option.default)}]"
    return f"{option.name}: {option.help}{default}" if option.help else None
