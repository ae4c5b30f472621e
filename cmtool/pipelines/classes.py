"""Which class each image has: one for all, or a rule that makes a class of a seed."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from cmtool.core.noise import LABEL, Noise
from cmtool.errors import Hint, Setting, UsageError
from cmtool.files.header import Header
from cmtool.pipelines.inputs import class_index
from cmtool.text_files import read_text

__all__ = ["Classes", "class_rule", "labels_of"]

Classes = int | Callable[[int], int] | None

LARGEST = 1 << 26  # bytes of a list of classes


def labels_of(seeds: Sequence[int], num_classes: int, classes: Classes = None) -> Tensor | None:
    """A label for every seed, int64 [N]: the class asked for, or what a rule makes of the seed; None without classes.

    Without either it is ``seed mod num_classes``, so that any run of seeds is balanced.
    """
    if not num_classes:
        return None
    rule = classes if callable(classes) else lambda seed: seed % num_classes if classes is None else classes
    return torch.tensor([rule(seed) for seed in seeds], dtype=torch.long)


def class_rule(header: Header, klass: str | None, rule: str | None) -> Classes:
    """What ``labels_of`` takes: one class for all, a rule that makes a class of a seed, or None, the balanced rule.

    ``uniform`` draws from (seed, LABEL); a file has a class, by name or number, on each line, and seed s has that of
    line s modulo their number. UsageError for both options at once, for a model without classes, and for a line that
    names none.
    """
    if rule is None:
        return class_index(header, klass)
    if klass is not None:
        both = Hint("{} is one class and {} a rule for many", Setting("class"), Setting("classes"))
        raise UsageError(both, "give one of them")
    if not header.num_classes:
        raise UsageError(Hint("this model was trained without classes and takes no {}", Setting("classes")))
    if rule == "balanced":
        return None
    if rule == "uniform":
        return lambda seed: int(Noise([seed]).uniform(LABEL) * header.num_classes)
    listed = _read_classes(header, Path(rule))
    return lambda seed: listed[seed % len(listed)]


def _read_classes(header: Header, path: Path) -> list[int]:
    text = read_text(path, LARGEST, Hint("{} takes balanced, uniform or a file", Setting("classes")))
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
