"""What a plugin says of itself, read from its source text: nothing is imported, so that lists and completion are fast.

What cannot be read this way (a factory made by a call, help put together at run time) is missing from the answer;
``registry.get`` and ``options_of`` know it for certain, and need the libraries of the plugin.
"""

import ast
import importlib.util
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

__all__ = ["PluginSource", "SourceOption", "read_source"]

LARGEST, FARTHEST = 1_000_000, 8  # bytes of a file; modules that a name is followed through


@dataclass(frozen=True)
class SourceOption:
    """An option as it is written in a signature; ``default`` is its source text, "" where there is none."""

    name: str
    default: str = ""
    help: str = ""
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class PluginSource:
    """The docstring of a factory and its options."""

    docstring: str = ""
    options: tuple[SourceOption, ...] = ()


def read_source(target: str) -> PluginSource | None:
    """What ``target``, ``package.module:factory``, says; None where its source is not found or is no function.

    A constant is what the text below it says, and has the options of the function that it is made of, if any.
    """
    module, _, name = target.partition(":")
    with suppress(OSError, ValueError, SyntaxError, RecursionError, ImportError):
        found = _find(module, name)
        return found and _describe(found)
    return None


@dataclass(frozen=True)
class _Module:
    """The names of a file: what each stands for, and the text below it."""

    name: str
    package: str
    nodes: dict[str, ast.AST]
    texts: dict[str, str]


@dataclass(frozen=True)
class _Found:
    """A name of a module, followed to where it is defined."""

    module: _Module
    name: str
    node: ast.AST


class _UnknownValueError(ValueError):
    """An expression whose value only running it would tell."""


@lru_cache(maxsize=512)
def _read(name: str) -> _Module | None:
    path = _path(name)
    if path is None or path.stat().st_size > LARGEST:
        return None
    nodes: dict[str, ast.AST] = {}
    texts: dict[str, str] = {}
    last = ""
    for statement in ast.parse(path.read_bytes()).body:
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant) and last:
            texts[last] = str(statement.value.value)
        last = ""
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            nodes[statement.name] = statement
        elif isinstance(statement, ast.ImportFrom):
            nodes.update({alias.asname or alias.name: statement for alias in statement.names})
        elif isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value:
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            for target in targets:
                if isinstance(target, ast.Name):
                    nodes[target.id], last = statement.value, target.id
    return _Module(name, name if path.name == "__init__.py" else name.rpartition(".")[0], nodes, texts)


def _path(name: str) -> Path | None:
    """The file of a module; only the finders of its outermost package are asked, which imports nothing."""
    top, *parts = name.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None:
        return None
    if not parts:
        return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    for folder in spec.submodule_search_locations or ():
        for path in (Path(folder, *parts[:-1], f"{parts[-1]}.py"), Path(folder, *parts, "__init__.py")):
            if os.path.isfile(path):
                return path
    return None


def _find(module: str, name: str, hops: int = 0) -> _Found | None:
    """Where a name of a module is defined, through the modules that import it from each other."""
    read = _read(module) if hops < FARTHEST else None
    node = read and read.nodes.get(name)
    if read is None or node is None:
        return None
    if isinstance(node, ast.ImportFrom):
        original = next((alias.name for alias in node.names if name in (alias.asname, alias.name)), name)
        return _find(_absolute(node, read.package), original, hops + 1)
    if isinstance(node, ast.Name) and node.id != name:  # other = name
        return _find(module, node.id, hops + 1)
    return _Found(read, name, node)


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    base = package.split(".")
    return ".".join([*base[: len(base) - node.level + 1], *([node.module] if node.module else [])])


def _describe(found: _Found) -> PluginSource | None:
    text = found.module.texts.get(found.name, "")
    factory = found if isinstance(found.node, ast.FunctionDef) else _unwrap(found)
    if factory is None or not isinstance(factory.node, ast.FunctionDef):
        return PluginSource(text) if text else None
    arguments = factory.node.args
    pairs = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    options = tuple(_option(factory.module, argument, default) for argument, default in pairs)
    return PluginSource(text or ast.get_docstring(factory.node) or "", options)


def _unwrap(found: _Found) -> _Found | None:
    """The function that a constant is made of: the first of the arguments of the call that is one."""
    if not isinstance(found.node, ast.Call):
        return None
    given = [*found.node.args, *(keyword.value for keyword in found.node.keywords)]
    others = (_find(found.module.name, node.id) for node in given if isinstance(node, ast.Name))
    return next((other for other in others if other and isinstance(other.node, ast.FunctionDef)), None)


def _option(module: _Module, argument: ast.arg, default: ast.expr | None) -> SourceOption:
    shown = ast.unparse(default) if default else ""
    said = _option_call(module, argument.annotation) if argument.annotation else None
    if said is None:
        return SourceOption(argument.arg, shown)
    where, call = said
    given = dict(zip(("help", "check", "choices"), call.args, strict=False))
    given |= {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}
    words, choices = "", ()
    with suppress(_UnknownValueError):
        words = str(_value(where, given["help"])) if "help" in given else ""
    with suppress(_UnknownValueError):
        choices = tuple(map(str, _value(where, given["choices"]))) if "choices" in given else ()
    return SourceOption(argument.arg, shown, words, choices)


def _option_call(module: _Module, node: ast.AST, hops: int = 0) -> tuple[_Module, ast.Call] | None:
    """The ``Option(...)`` of an annotation, and the module in which it stands."""
    if hops > FARTHEST:
        return None
    if isinstance(node, ast.Constant) and isinstance(node.value, str):  # an annotation between quotes
        node = ast.parse(node.value, mode="eval").body
    if isinstance(node, ast.Call):
        return (module, node) if ast.unparse(node.func).split(".")[-1] == "Option" else None
    if isinstance(node, ast.Name):
        found = _find(module.name, node.id)
        return _option_call(found.module, found.node, hops + 1) if found else None
    parts: Sequence[ast.AST] = ()
    if isinstance(node, ast.Subscript):
        parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    elif isinstance(node, ast.BinOp):  # ... | None
        parts = [node.left, node.right]
    return next(filter(None, (_option_call(module, part, hops + 1) for part in parts)), None)


def _value(module: _Module, node: ast.AST, hops: int = 0) -> Any:
    """The value of an expression of constants; _UnknownValueError for any other."""
    if hops > FARTHEST:
        raise _UnknownValueError
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        found = _find(module.name, node.id)
        if found is None:
            raise _UnknownValueError
        return _value(found.module, found.node, hops + 1)
    if isinstance(node, ast.Dict):  # whose keys are meant
        return tuple(_value(module, key, hops + 1) for key in node.keys if key)
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        return tuple(item for part in node.elts for item in _items(module, part, hops))
    if isinstance(node, ast.Call) and ast.unparse(node.func) in ("tuple", "list", "sorted") and len(node.args) == 1:
        items = _value(module, node.args[0], hops + 1)
        return tuple(sorted(items)) if ast.unparse(node.func) == "sorted" else tuple(items)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "join" and node.args:
        return str(_value(module, node.func.value, hops + 1)).join(map(str, _value(module, node.args[0], hops + 1)))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _value(module, node.left, hops + 1) + _value(module, node.right, hops + 1)
    if isinstance(node, ast.JoinedStr):
        return "".join(str(_value(module, part, hops + 1)) for part in node.values)
    if isinstance(node, ast.FormattedValue) and node.format_spec is None:
        return _value(module, node.value, hops + 1)
    raise _UnknownValueError


def _items(module: _Module, node: ast.AST, hops: int) -> Sequence[Any]:
    return _value(module, node.value, hops + 1) if isinstance(node, ast.Starred) else [_value(module, node, hops + 1)]
