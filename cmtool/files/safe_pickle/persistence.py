"""What a pickle of NVIDIA's ``torch_utils.persistence`` says of its network: a short description, as JSON.

The source code that travels in such a file is never looked at. Tensors are not read here; the description says where in
the file each stands. Standard library only: it runs in a process of its own (``sandbox``).
"""

import mmap
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

from cmtool.files.safe_pickle.tensor_layout import SIZES, storage_layout, tensor_places
from cmtool.files.safe_pickle.unpickler import Record, Refusal, Span, Unpickler

__all__ = ["describe"]

DEEP, PARTS, VALUES, LETTERS = 16, 20_000, 10_000, 300

OBJECT = "torch_utils.persistence._reconstruct_persistent_obj"
CONTAINERS = {f"torch.nn.modules.container.{kind}" for kind in ("ModuleDict", "ModuleList", "Sequential")}
CODES = {"f8": "d", "f4": "f", "f2": "e", "i8": "q", "i4": "i", "i2": "h", "i1": "b", "u1": "B", "b1": "?"}


def describe(file: BinaryIO) -> dict[str, Any]:
    """What the file says of its network; Refusal when there is none in it.

    ``kind`` is the class of the outer object, ``inside`` that of its part ``model``, ``arguments`` what it was made
    with, ``attributes`` its own numbers, ``tensors`` {name: [type, start, count, offset, shape, strides]}.
    """
    memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    outer = find_network(Unpickler(memory).load())  # type: ignore[arg-type]
    state = state_of(outer)
    model = (state.get("_modules") or {}).get("model")
    tensors = {name: tensor_place(memory, value) for name, value in named_tensors(outer)}
    if sum(count * SIZES[kind] for kind, _, count, *_ in tensors.values()) > len(memory):
        raise Refusal("its tensors are larger than the file")
    return {
        "kind": class_of(outer),
        "inside": class_of(model) if isinstance(model, Record) else "",
        "arguments": Plain(memory).of(state.get("_init_kwargs") or {}),
        "attributes": {key: value for key, value in state.items() if isinstance(value, int | float)},
        "tensors": tensors,
    }


def find_network(top: Any) -> Record:
    """The averaged network of a training run's dictionary, or the object itself."""
    found = (top.get("ema") or top.get("net")) if isinstance(top, dict) else top
    if not isinstance(found, Record) or found.name != OBJECT:
        raise Refusal("it holds no network under 'ema'")
    if state_of(found).get("_init_args"):
        raise Refusal("its network was made with arguments that have no names")
    return found


def class_of(record: Record) -> str:
    name = record.args[0].get("class_name") if record.name == OBJECT else record.name
    return name[:LETTERS] if isinstance(name, str) else ""


def state_of(module: Any) -> dict[str, Any]:
    if isinstance(module, Record) and module.name == OBJECT:
        (meta,) = module.args
        state = meta.get("state")
    else:
        state = module.state if isinstance(module, Record) and module.name in CONTAINERS else None
    if not isinstance(state, dict):
        raise Refusal("it has a module that is none")
    return state


def named_tensors(outer: Record) -> Iterator[tuple[str, Any]]:
    """The tensors below a module, by name: parameters and buffers, without those that are not to be saved."""
    left, parts = [("", outer)], 0
    while left:
        place, module = left.pop()
        state = state_of(module)
        tensors = {**(state.get("_parameters") or {}), **(state.get("_buffers") or {})}
        inside = {key: value for key, value in (state.get("_modules") or {}).items() if value is not None}
        parts += 1 + len(tensors) + len(inside)
        letters = len(place) + max((len(str(key)) for key in (*tensors, *inside)), default=0)
        if parts > PARTS or place.count(".") > DEEP or letters > LETTERS:
            raise Refusal("it has more parts than a network")
        hidden = state.get("_non_persistent_buffers_set") or ()
        for key, value in tensors.items():
            if value is not None and key not in hidden:
                yield f"{place}{key}", value
        left += [(f"{place}{key}.", value) for key, value in inside.items()]


def tensor_place(memory: mmap.mmap, tensor: Any) -> list[Any]:
    """Where the values of a tensor stand; Refusal unless all of them lie inside its storage."""
    found = tensor_places(tensor, lambda storage: storage_layout(memory, storage))
    if found is None:
        raise Refusal("it has a tensor that is none")
    return found


class Plain:
    """Arguments as JSON has them; Refusal for anything else, and for more than ``VALUES`` of them."""

    def __init__(self, memory: mmap.mmap):
        self.memory, self.left = memory, VALUES

    def of(self, value: Any, depth: int = 0) -> Any:
        self.left -= 1
        if depth > DEEP or self.left < 0:
            raise Refusal("its network has too many arguments")
        if isinstance(value, dict):
            return {str(key)[:LETTERS]: self.of(inside, depth + 1) for key, inside in value.items()}
        if isinstance(value, list | tuple) and not isinstance(value, Span):
            return [self.of(inside, depth + 1) for inside in value]
        if isinstance(value, Record) and value.name.endswith(".multiarray.scalar"):
            return self.number(*value.args)
        if value is None or isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) < LETTERS):
            return value
        raise Refusal("its network has an argument that is no number and no text")

    def number(self, dtype: Record, span: Span) -> Any:
        """A scalar of numpy, little endian as its files are everywhere."""
        code = CODES[dtype.args[0]]
        return struct.unpack(f"<{code}", self.memory[span.start : span.start + span.size])[0]
