"""Which class each seed has."""

from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from pathlib import Path

from cmtool.commands.generate import Classes
from cmtool.commands.models import class_index
from cmtool.core.noise import LABEL, Noise
from cmtool.errors import BadFile, MissingInput, UsageError
from cmtool.files.header import Header

__all__ = ["class_rule"]


def class_rule(header: Header, klass: str | None, rule: str | None) -> Classes:
    """What ``labels_of`` takes: one class for all, a rule that makes a class of a seed, or None, the balanced rule.

    ``uniform`` draws from (seed, LABEL); a file has a class, by name or number, on each line, and seed s has that of
    line s modulo their number. UsageError for both options at once, for a model without classes, and for a line that
    names none.
    """
    if rule is None:
        return class_index(header, klass)
    if klass is not None:
        raise UsageError("--class is one class and --classes a rule for many", "give one of them")
    if not header.conditional:
        raise UsageError("this model was trained without classes and takes no --classes")
    if rule == "balanced":
        return None
    if rule == "uniform":
        return lambda seed: int(Noise([seed]).uniform(LABEL) * header.conditional)
    listed = _listed(header, Path(rule))
    return lambda seed: listed[seed % len(listed)]


def _listed(header: Header, path: Path) -> list[int]:
    known: dict[str, int | None] = {}
    found = []
    for number, line in enumerate(map(str.strip, _text(path).split("\n")), 1):
        if line and line not in known:
            try:
                known[line] = class_index(header, line)
            except UsageError as error:
                raise UsageError(f"line {number} of {path}: {error.message}", error.hint) from None
        found += [known[line]] if line else []
    if not found:
        raise UsageError(f"{path} names no classes", "it needs a class, by name or number, on each line")
    return found


def _text(path: Path) -> str:
    """What an editor saved, with any marks of its own: UTF-8, or the UTF-16 of Windows."""
    try:
        data = path.read_bytes()
        return data.decode("utf-16" if data.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else "utf-8-sig")
    except FileNotFoundError:
        raise MissingInput(f"there is no file {path}", "--classes takes balanced, uniform or a file") from None
    except UnicodeDecodeError:
        raise BadFile(f"{path} is not a text file", "it needs a class, by name or number, on each line") from None
    except OSError as error:
        raise MissingInput(f"cannot read classes from {path}: {error.strerror}") from error
