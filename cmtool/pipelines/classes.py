"""Which class each seed has."""

from pathlib import Path

from cmtool.core.noise import LABEL, Noise
from cmtool.errors import UsageError
from cmtool.files.header import Header
from cmtool.pipelines.inputs import class_index
from cmtool.pipelines.sampling import Classes
from cmtool.text_files import read_text

__all__ = ["class_rule"]

LARGEST = 1 << 26  # bytes of a list of classes


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
    if not header.num_classes:
        raise UsageError("this model was trained without classes and takes no --classes")
    if rule == "balanced":
        return None
    if rule == "uniform":
        return lambda seed: int(Noise([seed]).uniform(LABEL) * header.num_classes)
    listed = _listed(header, Path(rule))
    return lambda seed: listed[seed % len(listed)]


def _listed(header: Header, path: Path) -> list[int]:
    text = read_text(path, LARGEST, "--classes takes balanced, uniform or a file")
    known: dict[str, int | None] = {}
    found = []
    for number, line in enumerate(map(str.strip, text.split("\n")), 1):
        if line and line not in known:
            try:
                known[line] = class_index(header, line)
            except UsageError as error:
                raise UsageError(f"line {number} of {path}: {error.message}", error.hint) from None
        found += [known[line]] if line else []
    if not found:
        raise UsageError(f"{path} names no classes", "it needs a class, by name or number, on each line")
    return found
