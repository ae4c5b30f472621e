"""Hints of the lower layers in the words of the command line: the one place where an option becomes a flag."""

import shlex
from typing import Any

from cmtool.errors import NAMED, Advice, Hint, Run, Setting
from cmtool.options.fields import long_flag

__all__ = ["word_hint"]


def word_hint(hint: Advice) -> str:
    """``--overwrite``, ``--set format.kind=score``, ``cmtool fetch vgg16``, or a sentence with such parts in it."""
    if isinstance(hint, Hint):
        return hint.text.format(*map(word_hint, hint.parts))
    if isinstance(hint, Run):
        return " ".join(["cmtool", *map(shlex.quote, hint.words), *map(word_hint, hint.settings)])
    return _word_setting(hint) if isinstance(hint, Setting) else hint


def _word_setting(setting: Setting) -> str:
    key, value = setting.key, setting.value
    if "." in key:
        return f"--set {key if value is NAMED else shlex.quote(f'{key}={_word_value(value)}')}"
    flag = long_flag(key)
    if value is False:
        return f"--no-{flag[2:]}"
    return flag if value is NAMED or value is True else f"{flag} {shlex.quote(_word_value(value))}"


def _word_value(value: Any) -> str:
    """A value as ``--set`` and the flags read it."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
