"""Recipes that ship with the program: one YAML file each, with a sentence ``about`` it and the options it sets."""

from importlib import resources

from cmtool.errors import unknown

__all__ = ["names", "read"]

SUFFIX = ".yaml"


def names() -> list[str]:
    """The presets there are, sorted."""
    files = (entry.name for entry in resources.files(__name__).iterdir())
    return sorted(name.removesuffix(SUFFIX) for name in files if name.endswith(SUFFIX))


def read(name: str) -> str:
    """The text of a preset; UsageError with the nearest name when there is none."""
    if name not in names():
        raise unknown("preset", name, names())
    return (resources.files(__name__) / f"{name}{SUFFIX}").read_text("utf-8")
