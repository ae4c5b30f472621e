"""The options of a command as a program gives them: keyword arguments, checked like flags."""

from collections.abc import Mapping
from typing import Any, TypeVar

from cmtool.errors import unknown_name
from cmtool.options.fields import Options, option_fields
from cmtool.options.load import resolve
from cmtool.options.sources import Given

__all__ = ["options_of_call"]

O = TypeVar("O", bound=Options)  # noqa: E741


def options_of_call(cls: type[O], arguments: Mapping[str, Any]) -> O:
    """The options of a command from arguments that are called like them; ``class_`` is the option ``class``.

    An argument that is None was not given. UsageError, which names the argument, for a value that cannot be; neither
    files nor the environment are looked at.
    """
    declared = option_fields(cls)
    given: dict[str, list[Given]] = {key: [] for key in declared}
    for argument, value in arguments.items():
        key = argument.rstrip("_")
        if key not in declared:
            raise unknown_name("argument", argument, declared)
        if value is not None:
            given[key].append(Given(key, value, argument, argument))
    return resolve(cls, given)
