"""Pickles as data: what a stream of opcodes describes, without making any of it.

A pickle is a program, and its usual reader imports and calls whatever the program names. Here nothing can be called:
a name stays a name, a call becomes a record of what would have been called with what, and bytes become the place in the
file where they stand. Names that are not in ``ALLOWED`` end the reading, and so do more than ``STEPS`` opcodes.

This file and ``persistent`` know only the standard library: they run in a process of their own (``apart``).
Source: the table of opcodes in Python's module ``pickletools``.
"""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NamedTuple

__all__ = ["ALLOWED", "Machine", "Name", "Record", "Refused", "Span"]

STEPS = 1_000_000  # the pickles of the largest published networks have about 60,000

ALLOWED = {
    "builtins.getattr",  # a method of an object, such as EDM's losses keep
    "builtins.set",
    "collections.OrderedDict",
    "dnnlib.util.EasyDict",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_tensor_v2",
    "torch.Size",
    "torch.device",
    "torch.storage._load_from_bytes",
    "torch_utils.persistence._reconstruct_persistent_obj",
    *(f"torch.nn.modules.container.{kind}" for kind in ("ModuleDict", "ModuleList", "Sequential")),
    *(f"torch.{kind}" for kind in ("float16", "float32", "float64", "bfloat16", "int64", "uint8", "bool")),
    *(f"torch.{kind}Storage" for kind in ("BFloat16", "Bool", "Byte", "Double", "Float", "Half", "Int", "Long")),
    *("numpy.dtype", "numpy.ndarray"),
    *(f"numpy.{core}.multiarray.{what}" for core in ("core", "_core") for what in ("scalar", "_reconstruct")),
}


class Refused(Exception):
    """The file holds what no file of this kind needs."""


class Name(str):
    """What a pickle would import."""


class Span(NamedTuple):
    """``size`` bytes of the file, from ``start``."""

    start: int
    size: int


@dataclass(eq=False)
class Record:
    """A call that was not made: the name, the arguments, and what would have been given to the object later."""

    name: str
    args: Any
    state: Any = None
    items: dict[Any, Any] = field(default_factory=dict)
    entries: list[Any] = field(default_factory=list)


class Machine:
    """The stack and the memo of one pickle; ``file`` stands at its beginning, and after ``run`` behind its end."""

    def __init__(self, file: BinaryIO):
        self.file = file
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        """The object that the pickle describes; Refused, or any error of a broken stream."""
        for count, (opcode, argument, position) in enumerate(pickletools.genops(self.file)):
            if count > STEPS:
                raise Refused(f"its pickle has more than {STEPS:,} steps")
            if isinstance(argument, bytes):
                argument = Span(self.file.tell() - len(argument), len(argument))
            elif opcode.name not in TABLE:
                raise Refused(f"its pickle uses {opcode.name} at byte {position}")
            TABLE[opcode.name](self, argument)
        return self.stack.pop()

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self, n: int) -> list[Any]:
        """The last ``n`` objects, which must be there."""
        taken = [self.stack.pop() for _ in range(n)]
        return taken[::-1]

    def marked(self) -> list[Any]:
        """What lies above the last mark."""
        height = self.marks.pop()
        taken = self.stack[height:]
        del self.stack[height:]
        return taken

    def name(self, module: Any, word: Any) -> None:
        if not (isinstance(module, str) and isinstance(word, str)):
            raise Refused("it asks for what has no name")
        found = f"{module}.{word}".replace("__builtin__.", "builtins.", 1)
        if found not in ALLOWED:
            raise Refused(f"it asks for '{found[:100]}', which is no part of a network")
        self.push(Name(found))

    def call(self) -> None:
        """REDUCE and NEWOBJ: dictionaries and sets are data; of every other call a record is kept."""
        called, args = self.pop(2)
        if not isinstance(called, Name) or not isinstance(args, tuple):
            raise Refused("it calls what is no name")
        if called in ("collections.OrderedDict", "dnnlib.util.EasyDict") and not args:
            self.push({})
        elif called == "builtins.set":
            self.push(list(*args))
        else:
            self.push(Record(called, args))

    def build(self) -> None:
        (state,) = self.pop(1)
        into = self.stack[-1]
        if isinstance(into, Record):
            into.state = state
        elif not isinstance(into, dict):
            raise Refused("it changes what is no object")

    def store(self, pairs: list[Any]) -> None:
        into = self.stack[-1]
        into = into.items if isinstance(into, Record) else into
        if not isinstance(into, dict) or not all(is_key(key) for key in pairs[::2]):
            raise Refused("it has a dictionary whose keys are no text")
        into.update(zip(pairs[::2], pairs[1::2], strict=True))

    def extend(self, values: list[Any]) -> None:
        into = self.stack[-1]
        into = into.entries if isinstance(into, Record) else into
        if not isinstance(into, list):
            raise Refused("it appends to what is no list")
        into.extend(values)

    def remember(self, index: int | None) -> None:
        self.memo[len(self.memo) if index is None else index] = self.stack[-1]

    def dictionary(self) -> None:
        pairs = self.marked()
        self.push({})
        self.store(pairs)


def is_key(key: Any) -> bool:
    """Text or a small number: those cannot be chosen so that a dictionary becomes slow, or hashing endless."""
    return isinstance(key, str) or (isinstance(key, int) and abs(key) < 1 << 60)


Step = Callable[[Machine, Any], Any]
BYTES = {"BINBYTES", "BINBYTES8", "SHORT_BINBYTES"}
NUMBERS = ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT")
TEXTS = ("UNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINUNICODE")

TABLE: dict[str, Step] = {
    **dict.fromkeys((*BYTES, *NUMBERS, *TEXTS), lambda m, value: m.push(value)),
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), lambda m, _: None),
    "NONE": lambda m, _: m.push(None),
    "NEWTRUE": lambda m, _: m.push(True),
    "NEWFALSE": lambda m, _: m.push(False),
    "EMPTY_TUPLE": lambda m, _: m.push(()),
    "EMPTY_LIST": lambda m, _: m.push([]),
    "EMPTY_DICT": lambda m, _: m.push({}),
    "EMPTY_SET": lambda m, _: m.push([]),
    "TUPLE": lambda m, _: m.push(tuple(m.marked())),
    "TUPLE1": lambda m, _: m.push(tuple(m.pop(1))),
    "TUPLE2": lambda m, _: m.push(tuple(m.pop(2))),
    "TUPLE3": lambda m, _: m.push(tuple(m.pop(3))),
    "LIST": lambda m, _: m.push(m.marked()),
    "FROZENSET": lambda m, _: m.push(m.marked()),
    "DICT": lambda m, _: m.dictionary(),
    "APPEND": lambda m, _: m.extend(m.pop(1)),
    "APPENDS": lambda m, _: m.extend(m.marked()),
    "ADDITEMS": lambda m, _: m.extend(m.marked()),
    "SETITEM": lambda m, _: m.store(m.pop(2)),
    "SETITEMS": lambda m, _: m.store(m.marked()),
    "MARK": lambda m, _: m.marks.append(len(m.stack)),
    "POP": lambda m, _: m.pop(1),
    "POP_MARK": lambda m, _: m.marked(),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), lambda m, index: m.remember(index)),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda m, index: m.push(m.memo[index])),
    "GLOBAL": lambda m, words: m.name(*words.split(" ", 1)),
    "STACK_GLOBAL": lambda m, _: m.name(*m.pop(2)),
    "REDUCE": lambda m, _: m.call(),
    "NEWOBJ": lambda m, _: m.call(),
    "BUILD": lambda m, _: m.build(),
    "BINPERSID": lambda m, _: m.push(Record("persistent", m.pop(1)[0])),
}
