"""Pickles as data: what a stream of opcodes describes, without making any of it.

A pickle is a program, and its usual reader imports and calls whatever the program names. Here nothing can be called:
a name stays a name, a call becomes a record of what would have been called with what, and bytes become the place in the
file where they stand. Names that are not in ``ALLOWED`` end the reading, and so do more than ``STEPS`` opcodes.

This file and those that use it know only the standard library: they run in a process of their own (``sandbox``).
Source: the table of opcodes in Python's module ``pickletools``.
"""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NamedTuple

__all__ = ["ALLOWED", "Name", "Record", "Refusal", "Span", "Unpickler"]

STEPS = 500_000  # the pickles of the largest published networks have about 60,000

LONGEST = 200  # letters of a name

REBUILT = (
    *("tensor", "tensor_v2", "tensor_v3", "parameter", "parameter_with_state", "sparse_tensor", "nested_tensor"),
    *("meta_tensor_no_storage", "qtensor", "wrapper_subclass", "device_tensor_from_numpy"),
    "device_tensor_from_cpu_tensor",
)
TYPES = (
    *("float16", "float32", "float64", "bfloat16", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32"),
    *("uint64", "bool", "complex32", "complex64", "complex128", "qint8", "quint8", "qint32", "per_tensor_affine"),
    *("per_channel_affine", "float8_e4m3fn", "float8_e5m2", "strided", "sparse_coo", "sparse_csr", "jagged"),
)
STORED = (
    *("BFloat16", "Bool", "Byte", "Char", "Double", "Float", "Half", "Int", "Long", "Short", "Untyped"),
    *("ComplexDouble", "ComplexFloat", "QInt8", "QUInt8", "QInt32"),
)

ALLOWED = {
    "builtins.getattr",  # a method of an object, such as EDM's losses keep
    *("builtins.set", "builtins.complex", "builtins.bytearray", "builtins.bytes", "_codecs.encode"),
    *(f"collections.{kind}" for kind in ("OrderedDict", "defaultdict", "Counter")),
    *("dnnlib.util.EasyDict", "argparse.Namespace", "types.SimpleNamespace"),
    *(f"pathlib.{kind}" for kind in ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")),
    *("torch.Size", "torch.device", "torch.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer"),
    *("torch.storage._load_from_bytes", "torch.storage.UntypedStorage", "torch.serialization._get_layout"),
    *("torch._tensor._rebuild_from_type_v2", "torch.nested._internal.nested_tensor.NestedTensor"),
    *(f"torch._utils._rebuild_{kind}" for kind in REBUILT),
    "torch_utils.persistence._reconstruct_persistent_obj",
    *(f"torch.nn.modules.container.{kind}" for kind in ("ModuleDict", "ModuleList", "Sequential")),
    *(f"torch.{kind}" for kind in TYPES),
    *(f"torch.{kind}Storage" for kind in STORED),
    *("numpy.dtype", "numpy.ndarray", *(f"numpy.dtypes.{kind}DType" for kind in ("Float64", "Float32", "Int64"))),
    *(f"numpy.{core}.multiarray.{what}" for core in ("core", "_core") for what in ("scalar", "_reconstruct")),
    *(f"numpy.{core}.numeric._frombuffer" for core in ("core", "_core")),
}


class Refusal(Exception):
    """The file holds what no file of this kind needs; the text says what."""


class Name(str):
    """What a pickle would import."""


class Span(NamedTuple):
    """``size`` bytes of the file, from ``start``; ``text`` of bytes that stand there as UTF-8 of Latin-1."""

    start: int
    size: int
    text: bool = False


class Text(str):
    """A text and the place where it stands: the protocols before 3 write bytes so, and Python 2 had no others."""

    span: Span


@dataclass(eq=False)
class Record:
    """A call that was not made: the name, the arguments, and what would have been given to the object later."""

    name: str
    args: Any
    state: Any = None
    items: dict[Any, Any] = field(default_factory=dict)
    entries: list[Any] = field(default_factory=list)


class Unpickler:
    """The stack and the memo of one pickle; ``file`` stands at its beginning, and after ``load`` behind its end.

    ``base`` is where the file's first byte stands in the file that positions refer to.
    """

    def __init__(self, file: BinaryIO, base: int = 0):
        self.file, self.base = file, base
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.short: dict[Span, str] = {}  # what stands in bytes that may be keys, read as Latin-1
        self.outside: list[Any] = []  # what the pickle knows to stand elsewhere, such as the values of tensors

    def load(self) -> Any:
        """The object that the pickle describes; Refusal, or any error of a broken stream."""
        for count, (opcode, argument, position) in enumerate(pickletools.genops(self.file)):
            if count > STEPS:
                raise Refusal(f"its pickle has more than {STEPS:,} steps")
            if isinstance(argument, bytes | bytearray):
                argument = self.place(bytes(argument))
            elif opcode.name not in TABLE:
                raise Refusal(f"its pickle uses {opcode.name} at byte {position}")
            elif opcode.name == "BINUNICODE":
                argument = Text(argument)
                argument.span = self.span(len(argument.encode("utf-8", "surrogatepass")))._replace(text=True)
            elif opcode.name in STRINGS:  # of Python 2, whose bytes are read as Latin-1
                argument = Text(argument)
                argument.span = self.span(len(argument))
            TABLE[opcode.name](self, argument)
        return self.stack.pop()

    def span(self, size: int) -> Span:
        """The bytes that were read last."""
        return Span(self.base + self.file.tell() - size, size)

    def place(self, data: bytes) -> Span:
        """The place of bytes that were read last; short ones are kept, since Python 3 may have them as keys."""
        found = self.span(len(data))
        if len(data) <= LONGEST:
            self.short[found] = data.decode("latin1")
        return found

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self, n: int) -> list[Any]:
        """The last ``n`` objects, which must be there."""
        taken = [self.stack.pop() for _ in range(n)]
        return taken[::-1]

    def pop_to_mark(self) -> list[Any]:
        """What lies above the last mark."""
        height = self.marks.pop()
        taken = self.stack[height:]
        del self.stack[height:]
        return taken

    def find_name(self, module: Any, word: Any) -> None:
        if not (isinstance(module, str) and isinstance(word, str)) or max(len(module), len(word)) > LONGEST:
            raise Refusal("it asks for what has no name")
        found = f"{module}.{word}".replace("__builtin__.", "builtins.", 1)
        if found not in ALLOWED:
            raise Refusal(f"it asks for '{found[:100]}', which is no part of a network")
        self.push(Name(found))

    def call(self) -> None:
        """REDUCE and NEWOBJ: dictionaries and sets are data; of every other call a record is kept."""
        called, args = self.pop(2)
        if not isinstance(called, Name) or not isinstance(args, tuple):
            raise Refusal("it calls what is no name")
        if called in DICTIONARIES and (not args or called == "collections.defaultdict"):
            self.push({})
        elif called == "builtins.set" and len(args) == 1 and isinstance(args[0], list):
            self.push(args[0])  # not a copy of it, which would take longer than its opcode
        elif called == "_codecs.encode":
            self.push(encode(*args))
            self.short |= {self.stack[-1]: args[0]} if len(args[0]) <= LONGEST else {}
        elif called == "builtins.bytearray" and len(args) == 1 and isinstance(args[0], Span):
            self.push(args[0])
        elif called == "builtins.bytes" and not args:
            self.push(Span(0, 0))
        else:
            self.push(Record(called, args))

    def build(self) -> None:
        (state,) = self.pop(1)
        into = self.stack[-1]
        if isinstance(into, Record):
            into.state = state
        elif not isinstance(into, dict):
            raise Refusal("it changes what is no object")
        elif not isinstance(state, dict) or not all(str(key).startswith("_") for key in state):
            raise Refusal("it gives a dictionary an attribute")  # torch keeps but _metadata there

    def store(self, pairs: list[Any]) -> None:
        into = self.stack[-1]
        into = into.items if isinstance(into, Record) else into
        pairs[::2] = [self.short.get(key, key) if isinstance(key, Span) else key for key in pairs[::2]]
        if not isinstance(into, dict) or not all(is_key(key) for key in pairs[::2]):
            raise Refusal("it has a dictionary whose keys are no text")
        into.update(zip(pairs[::2], pairs[1::2], strict=True))

    def extend(self, values: list[Any]) -> None:
        into = self.stack[-1]
        into = into.entries if isinstance(into, Record) else into
        if not isinstance(into, list):
            raise Refusal("it appends to what is no list")
        into.extend(values)

    def refer(self) -> None:
        """BINPERSID: something that stands outside the pickle."""
        self.outside += self.pop(1)
        self.push(Record("persistent", self.outside[-1]))

    def remember(self, index: int | None) -> None:
        self.memo[len(self.memo) if index is None else index] = self.stack[-1]

    def dictionary(self) -> None:
        pairs = self.pop_to_mark()
        self.push({})
        self.store(pairs)


def encode(text: Any = None, how: Any = None) -> Span:
    """Bytes that the protocols before 3 write as text; nothing is encoded here."""
    if how != "latin1" or not isinstance(text, Text) or not text.span.text:
        raise Refusal("it asks for a text in an encoding")
    return text.span


def is_key(key: Any) -> bool:
    """Text or a small number: those cannot be chosen so that a dictionary becomes slow, or hashing endless."""
    return isinstance(key, str) or (isinstance(key, int) and abs(key) < 1 << 60)


Step = Callable[[Unpickler, Any], Any]
BYTES = {"BINBYTES", "BINBYTES8", "SHORT_BINBYTES", "BYTEARRAY8"}
DICTIONARIES = {"collections.OrderedDict", "collections.defaultdict", "dnnlib.util.EasyDict"}
NUMBERS = ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT")
STRINGS = ("BINSTRING", "SHORT_BINSTRING")
TEXTS = ("STRING", *STRINGS, "UNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINUNICODE")

TABLE: dict[str, Step] = {
    **dict.fromkeys((*BYTES, *NUMBERS, *TEXTS), lambda u, value: u.push(value)),
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), lambda u, _: None),
    "NONE": lambda u, _: u.push(None),
    "NEWTRUE": lambda u, _: u.push(True),
    "NEWFALSE": lambda u, _: u.push(False),
    "EMPTY_TUPLE": lambda u, _: u.push(()),
    "EMPTY_LIST": lambda u, _: u.push([]),
    "EMPTY_DICT": lambda u, _: u.push({}),
    "EMPTY_SET": lambda u, _: u.push([]),
    "TUPLE": lambda u, _: u.push(tuple(u.pop_to_mark())),
    "TUPLE1": lambda u, _: u.push(tuple(u.pop(1))),
    "TUPLE2": lambda u, _: u.push(tuple(u.pop(2))),
    "TUPLE3": lambda u, _: u.push(tuple(u.pop(3))),
    "LIST": lambda u, _: u.push(u.pop_to_mark()),
    "FROZENSET": lambda u, _: u.push(u.pop_to_mark()),
    "DICT": lambda u, _: u.dictionary(),
    "APPEND": lambda u, _: u.extend(u.pop(1)),
    "APPENDS": lambda u, _: u.extend(u.pop_to_mark()),
    "ADDITEMS": lambda u, _: u.extend(u.pop_to_mark()),
    "SETITEM": lambda u, _: u.store(u.pop(2)),
    "SETITEMS": lambda u, _: u.store(u.pop_to_mark()),
    "MARK": lambda u, _: u.marks.append(len(u.stack)),
    "POP": lambda u, _: u.pop(1),
    "POP_MARK": lambda u, _: u.pop_to_mark(),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), lambda u, index: u.remember(index)),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda u, index: u.push(u.memo[index])),
    "GLOBAL": lambda u, words: u.find_name(*words.split(" ", 1)),
    "STACK_GLOBAL": lambda u, _: u.find_name(*u.pop(2)),
    "REDUCE": lambda u, _: u.call(),
    "NEWOBJ": lambda u, _: u.call(),
    "BUILD": lambda u, _: u.build(),
    "BINPERSID": lambda u, _: u.refer(),
}
