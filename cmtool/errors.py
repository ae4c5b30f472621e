"""What can go wrong for a user, and the exit code of each.

    CmtoolError           1    a fault of ours
    ├── LostRank               another rank failed, and says why; the exit code is its own
    ├── UsageError        2    an option, a name or a combination that cannot be
    ├── BadFile          65    a damaged, foreign or untrusted file
    ├── MissingInput     66    a file, folder or device that is not there
    ├── MissingAsset     69    weights that must be fetched first
    ├── Diverged         70    training or a model produced numbers that are not finite
    ├── OutOfMemory      71    not even one image fits
    ├── WriteFailed      74    the disk is full or the place cannot be written
    ├── Preempted        75    stopped by the scheduler; the state is saved, run it again
    └── Interrupted     130    stopped by the user; the state is saved

Each carries one sentence that says what is wrong and, where there is one, a hint that says what would work. A hint
that names an option or a command is a value (``Hint``, ``Setting``, ``Run``): a program reads in it
``num_head_channels=64``, the command line words it as a flag (``options.hint_words``).
"""

import difflib
import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

__all__ = [
    "Advice",
    "BadFile",
    "CmtoolError",
    "Diverged",
    "Hint",
    "Interrupted",
    "LostRank",
    "MissingAsset",
    "MissingInput",
    "OutOfMemory",
    "Preempted",
    "Run",
    "Setting",
    "UsageError",
    "WriteFailed",
    "check_regular",
    "closest",
    "encodable",
    "is_out_of_memory",
    "printable",
    "report_damage",
    "unknown_name",
]


NAMED = object()  # the value of a Setting that names an option without a value
MEMORY_IS_OUT = ("can't allocate memory", "CUDA error: out of memory", "STATUS_ALLOC_FAILED")  # of plain RuntimeErrors
NO_FAULT_OF_THE_DISK = (None, errno.EINVAL)  # what bz2 raises, and a seek to where no file goes


@dataclass(frozen=True)
class Setting:
    """An option by its key, such as ``backbone.num_head_channels``, and a value for it unless it is only named."""

    key: str
    value: Any = NAMED

    def __str__(self) -> str:
        return self.key if self.value is NAMED else f"{self.key}={self.value}"


@dataclass(frozen=True, init=False)
class Run:
    """A command of cmtool to run, with its arguments and options: ``Run("sample", "a.pt", steps=2)``."""

    words: tuple[str, ...]
    settings: tuple[Setting, ...]

    def __init__(self, command: str, *arguments: str, **settings: Any):
        object.__setattr__(self, "words", (command, *arguments))
        object.__setattr__(self, "settings", tuple(Setting(key, value) for key, value in settings.items()))

    def __str__(self) -> str:
        return " ".join(["cmtool", *self.words, *map(str, self.settings)])


@dataclass(frozen=True, init=False)
class Hint:
    """A sentence with a ``{}`` for each part: ``Hint("leave out {}, or try {}", Setting("device"), ...)``."""

    text: str
    parts: tuple["Advice", ...]

    def __init__(self, text: str, *parts: "Advice"):
        object.__setattr__(self, "text", text)
        object.__setattr__(self, "parts", parts)

    @classmethod
    def join(cls, parts: Iterable["Advice"], between: str = " ") -> "Hint":
        """The parts one after the other."""
        parts = tuple(parts)
        return cls(between.join(["{}"] * len(parts)), *parts)

    def __str__(self) -> str:
        return self.text.format(*map(str, self.parts))


Advice: TypeAlias = str | Setting | Run | Hint  # what the hint of an error may be


class CmtoolError(Exception):
    """A sentence for a person; ``hint`` says what to do instead.

    ``message`` is the sentence as programs read it; where it names options, ``sentence`` is for the command line.
    """

    code = 1

    def __init__(self, sentence: Advice, hint: Advice | None = None):
        super().__init__(str(sentence))
        self.sentence, self.message, self.hint = sentence, str(sentence), hint


class UsageError(CmtoolError):
    code = 2


class BadFile(CmtoolError):
    code = 65


class MissingInput(CmtoolError):
    code = 66


class MissingAsset(CmtoolError):
    code = 69


class Diverged(CmtoolError):
    code = 70


class OutOfMemory(CmtoolError):
    code = 71


class WriteFailed(CmtoolError):
    code = 74


class Preempted(CmtoolError):
    code = 75


class Interrupted(CmtoolError):
    code = 130


class LostRank(CmtoolError):
    """Another rank of this run has failed, is gone or silent: the echo of what happened there, and of its exit code."""


def closest(word: object, words: Iterable[str]) -> str | None:
    """The word that was probably meant, or None; what a file has in the place of a word may be a number."""
    near = difflib.get_close_matches(str(word), list(words), n=1, cutoff=0.6)
    return near[0] if near else None


def printable(text: object) -> str:
    """Text of a file on one line, which cannot command a terminal: control characters become escapes (``\\x1b``)."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(text))


def encodable(text: str) -> str:
    """Text that UTF-8 can hold: what stands in it for other bytes, as in a Latin-1 file name, becomes ``\\xe9``."""
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can hold
        return text.encode("utf-8", "backslashreplace").decode("utf-8")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the processor or an accelerator ran out of memory; the classes of torch are known by name."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool({"OutOfMemoryError", "MemoryError"} & names) or any(words in str(error) for words in MEMORY_IS_OUT)


@contextmanager
def report_damage(
    place: object, wrong: str = "is damaged", hint: Advice | None = "copy or make it again"
) -> Iterator[None]:
    """Whatever a parser meets in a broken file becomes a BadFile, ``PLACE is damaged: ...``.

    No list of it exists: lzma and zlib have errors of their own, and a header of zeros divides by zero. MissingInput
    where the system cannot read; our own errors pass, and so does that of torch when the memory is really gone.
    """
    try:
        yield
    except CmtoolError:
        raise
    except Exception as error:
        if "can't allocate memory" in str(error) or "out of memory" in str(error):
            raise
        if isinstance(error, OSError) and error.errno not in NO_FAULT_OF_THE_DISK:
            raise MissingInput(f"cannot read {place}: {error.strerror}") from error
        text = " ".join(printable(error).split())[:200]
        raise BadFile(f"{place} {wrong}: {type(error).__name__}{text and f', {text}'}", hint) from error


def check_regular(path: str | os.PathLike[str], hint: Advice = "give the name of a file") -> None:
    """BadFile for a pipe, a device or a socket: they have no end, or keep whoever opens them waiting."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return  # whoever opens it says why it cannot be
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise BadFile(f"{os.fspath(path)} is a pipe or a device, not a file", hint)


def unknown_name(what: str, word: object, words: Iterable[str]) -> UsageError:
    """``unknown option 'stpes'``, with the nearest name as the hint, or the list of them all."""
    words = sorted(words)
    near = closest(word, words)
    hint = f"did you mean '{near}'?" if near else f"there are: {', '.join(words) or 'none'}"
    return UsageError(f"unknown {what} '{word}'", hint)
