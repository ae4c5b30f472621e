"""Recipes that ship with the program: one YAML file each, with facts about it and the options it sets.

A preset says what it is ``about`` and for which ``command``. A published one names its ``source``, the arithmetic that
an image ``cost``s (``gflop``, forward and backward, and what was ``counted``; a teacher's training is not), the ``fid``
to expect by the number of evaluations, those of them that were ``recalled`` and not verified, and the noise level in
the ``middle`` of two steps.
"""

from importlib import resources

from cmtool.errors import unknown_name

__all__ = ["FACTS", "names", "read"]

SUFFIX = ".yaml"
FACTS = ("about", "command", "source", "cost", "fid", "recalled", "middle")  # keys that are no options


def names() -> list[str]:
    """The presets there are, sorted."""
    files = (entry.name for entry in resources.files(__name__).iterdir())
    return sorted(name.removesuffix(SUFFIX) for name in files if name.endswith(SUFFIX))


def read(name: str) -> str:
    """The text of a preset; UsageError with the nearest name when there is none."""
    if name not in names():
        raise unknown_name("preset", name, names())
    return (resources.files(__name__) / f"{name}{SUFFIX}").read_text("utf-8")
