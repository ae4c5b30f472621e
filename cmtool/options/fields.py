"""How an option is declared: a field of a frozen dataclass that carries its help, flag and check."""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, get_args, get_origin, get_type_hints

from cmtool.options.types import Check, Spec

__all__ = ["OptionField", "Options", "long_flag", "option", "option_fields"]


class Options:
    """What every options class has besides its fields: the command's name, and keys it refuses with a reason."""

    command: ClassVar[str]
    refused: ClassVar[Mapping[str, tuple[str, str]]] = {}


@dataclass(frozen=True)
class OptionField:
    """Everything about one option that is not its value; ``name`` is the attribute, ``key`` what users write."""

    help: str
    default: Any = MISSING
    flag: str | None = None
    check: Check | None = None
    choices: tuple[str, ...] = ()
    metavar: str | None = None
    path: bool = False
    positional: bool = False
    yaml_only: bool = False
    key: str = ""
    group: str | None = None
    listed: bool = False
    section: str = "Input"
    required: tuple[str, str] | None = None
    parse: Callable[[str], Mapping[str, Any]] | None = None
    default_name: str | None = None
    shown: str | None = None
    name: str = ""
    kind: Any = str

    @property
    def long(self) -> str:
        """The flag that needs no explanation."""
        return long_flag(self.key)

    @property
    def placeholder(self) -> str:
        """What stands for the value in the help."""
        kinds = [kind for kind in (self.kind, *get_args(self.kind)) if kind in _PLACEHOLDERS]
        return "|".join(self.choices) or self.metavar or (_PLACEHOLDERS[kinds[0]] if kinds else "VALUE")

    @property
    def plugin(self) -> bool:
        """Whether the value is a name with options of its own."""
        return Spec in (self.kind, *get_args(self.kind)) and not self.plugins

    @property
    def plugins(self) -> bool:
        """Whether the value is several names, each with options of its own."""
        return get_origin(self.kind) is tuple and Spec in get_args(self.kind)

    @property
    def default_plugin(self) -> str:
        """The plugin whose options are meant where none is named; "" where that depends on more."""
        return self.default.name if isinstance(self.default, Spec) else self.default_name or ""

    @property
    def switch(self) -> bool:
        """Whether it is turned on and off by flags without a value."""
        return bool in (self.kind, *get_args(self.kind))

    @property
    def several(self) -> bool:
        """Whether it takes words with commas between them."""
        return any(get_origin(kind) is tuple for kind in (self.kind, *get_args(self.kind)))

    @property
    def scalar(self) -> bool:
        """Whether an environment variable may set it."""
        return not self.positional and not self.yaml_only and set(get_args(self.kind) or [self.kind]) <= _SCALARS


_PLACEHOLDERS = {int: "N", float: "X", Path: "FILE", Spec: "NAME"}
_SCALARS = {int, float, bool, str, Path, type(None)}


def long_flag(key: str) -> str:
    """``--micro-batch`` for ``micro_batch``; a key of one letter has only its short flag."""
    return f"--{key.replace('_', '-')}" if len(key) > 1 else f"-{key}"


def option(default: Any = MISSING, *, help: str, **about: Any) -> Any:
    """Declare a field of an options class; the type is the field's annotation.

    ``flag`` is a short flag, ``check`` a predicate, ``choices`` the words allowed, ``group`` the plugins a Spec names
    (``listed`` in the help), ``parse`` turns the text of a Spec into its mapping, ``path`` says that a text may name a
    file or folder, ``required`` is (sentence, hint) for when it is not given, ``default_name`` is the plugin that the
    default None stands for, ``shown`` says what else the default None means, ``key`` is what users write where the
    attribute cannot be called so, ``section`` is its heading in the help.
    """
    metadata = {"option": (default, {"help": help, **about})}
    if isinstance(default, dict):  # a dataclass refuses a mutable default, and ours is never changed
        return field(default_factory=lambda: Spec(default), kw_only=True, metadata=metadata)
    return field(default=default, kw_only=True, metadata=metadata)


def option_fields(cls: type[Options]) -> dict[str, OptionField]:
    """The options of a class by key, in the order of declaration."""
    kinds = get_type_hints(cls)
    found = (_option_field(f, kinds[f.name]) for f in fields(cls))  # type: ignore[arg-type]
    return {declared.key: declared for declared in found}


def _option_field(f: Field[Any], kind: Any) -> OptionField:
    default, about = f.metadata["option"]
    return OptionField(default=default, name=f.name, kind=kind, **{"key": f.name, **about})
