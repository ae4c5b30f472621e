"""A file of the package, parsed: what its names are bound to, and which names a definition takes from outside."""

import ast
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
COMPREHENSION = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
Place = tuple[str, str]  # a module and a name in it, "" for the module itself
Scope = (
    ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
)


class Module:
    """A parsed file, and what each name at its top is bound to: its statements, or the place it is imported from."""

    def __init__(self, name: str, path: Path, modules: dict[str, "Module"]):
        self.name, self.path, self.modules, self.package = name, path, modules, path.name == "__init__.py"
        self.text = path.read_text("utf-8")
        self.tree, self.lines = ast.parse(self.text), len(self.text.splitlines())

    @cached_property
    def bound(self) -> dict[str, list[ast.stmt] | Place]:
        found: dict[str, list[ast.stmt] | Place] = {}
        waiting = list(reversed(self.tree.body))
        while waiting:
            node = waiting.pop()
            if isinstance(node, ast.Import | ast.ImportFrom):
                found |= self.imported(node)
            elif isinstance(node, (*FUNCTION, ast.ClassDef)):
                _gather(found, node.name, node)
            elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
                for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                    for part in ast.walk(target):
                        if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                            _gather(found, part.id, node)
            else:  # what stands under if, try, with
                waiting += [n for n in ast.walk(node) if n is not node and isinstance(n, ast.stmt)][::-1]
        return found

    def imported(self, node: ast.Import | ast.ImportFrom) -> dict[str, Place]:
        """The names that an import binds, and where they come from."""
        if isinstance(node, ast.Import):
            return {
                a.asname or a.name.split(".")[0]: (a.name if a.asname else a.name.split(".")[0], "") for a in node.names
            }
        base = node.module or ""
        if node.level:
            parts = self.name.split(".")[: None if self.package else -1]
            base = ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [node.module])])
        whole = {alias: f"{base}.{alias.name}" for alias in node.names}
        return {a.asname or a.name: (f, "") if f in self.modules else (base, a.name) for a, f in whole.items()}

    @cached_property
    def imports(self) -> list[Place]:
        nodes = [node for node in ast.walk(self.tree) if isinstance(node, ast.Import | ast.ImportFrom)]
        plain = [(alias.name, "") for node in nodes if isinstance(node, ast.Import) for alias in node.names]
        return plain + [p for node in nodes if isinstance(node, ast.ImportFrom) for p in self.imported(node).values()]

    def functions(self) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef, bool]]:
        """Every function with its dotted name, and whether its first parameter is the object or the class."""
        waiting: list[tuple[str, ast.AST]] = [("", self.tree)]
        while waiting:
            prefix, node = waiting.pop(0)
            for child in ast.iter_child_nodes(node):
                name = getattr(child, "name", None) if isinstance(child, (*FUNCTION, ast.ClassDef)) else None
                if isinstance(child, FUNCTION):
                    static = any(isinstance(d, ast.Name) and d.id == "staticmethod" for d in child.decorator_list)
                    yield prefix + child.name, child, isinstance(node, ast.ClassDef) and not static
                waiting.append((f"{prefix}{name}." if name else prefix, child))


def _gather(found: dict, name: str, node: ast.stmt) -> None:
    found[name] = [*(found[name] if isinstance(found.get(name), list) else []), node]


class Names(ast.NodeVisitor):
    """The dotted names that a definition takes from outside of itself, with what its own imports bind."""

    def __init__(self, module: Module):
        self.module, self.scopes, self.annotation = module, [], False
        self.found: set[tuple[Place | None, tuple[str, ...]]] = set()

    def _inside(self, node: Scope, nodes: Iterable[ast.AST]) -> None:
        self.scopes.append(self._local(node))
        for inner in nodes:
            self.visit(inner)
        self.scopes.pop()

    def _local(self, scope: Scope) -> dict[str, Place | None]:
        local: dict[str, Place | None] = {}
        if isinstance(scope, COMPREHENSION):
            waiting: list[ast.AST] = [part.target for part in scope.generators]
        else:
            local.update((node.arg, None) for node in ast.walk(scope.args) if isinstance(node, ast.arg))
            waiting = [*scope.body] if isinstance(scope, FUNCTION) else [scope.body]
        while waiting:
            node = waiting.pop()
            if isinstance(node, ast.Import | ast.ImportFrom):
                local |= self.module.imported(node)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                local[node.id] = None
            elif isinstance(node, (*FUNCTION, ast.ClassDef, ast.ExceptHandler, ast.MatchAs, ast.MatchStar)):
                local |= {node.name: None} if node.name else {}
            if not isinstance(node, (*FUNCTION, ast.ClassDef, ast.Lambda, *COMPREHENSION)):
                waiting += ast.iter_child_nodes(node)
        return local

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for outer in (*node.decorator_list, node.args):
            self.visit(outer)
        self._annotated(node.returns)
        self._inside(node, node.body)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self.visit(node.args)
        self._inside(node, [node.body])

    def visit_ListComp(self, node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp) -> None:
        self._inside(node, ast.iter_child_nodes(node))

    visit_SetComp = visit_DictComp = visit_GeneratorExp = visit_ListComp

    def visit_arg(self, node: ast.arg) -> None:
        self._annotated(node.annotation)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self._annotated(node.annotation)
        for part in filter(None, (node.target, node.value)):
            self.visit(part)

    def _annotated(self, node: ast.AST | None) -> None:
        if node:
            before, self.annotation = self.annotation, True
            self.visit(node)
            self.annotation = before

    def visit_Subscript(self, node: ast.Subscript) -> None:
        kind = ast.unparse(node.value).rpartition(".")[2]
        if kind == "Annotated" and isinstance(node.slice, ast.Tuple):  # a type, and values such as an option's help
            self.visit(node.slice.elts[0])
            before, self.annotation = self.annotation, False
            for value in node.slice.elts[1:]:
                self.visit(value)
            self.annotation = before
        elif kind != "Literal":
            self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if self.annotation and isinstance(node.value, str):  # the name of a type that is defined further down
            self.visit(ast.parse(node.value, mode="eval").body)

    def visit_Name(self, node: ast.Name | ast.Attribute) -> None:
        if chain := dotted(node):
            for scope in reversed(self.scopes):
                if chain[0] in scope:
                    if scope[chain[0]]:
                        self.found.add((scope[chain[0]], chain[1:]))
                    return
            self.found.add((None, chain))
        else:
            self.generic_visit(node)

    visit_Attribute = visit_Name


def dotted(node: ast.AST) -> tuple[str, ...]:
    """``a.b.c`` as its parts, () for what does not begin with a name."""
    if isinstance(node, ast.Attribute):
        return (*base, node.attr) if (base := dotted(node.value)) else ()
    return (node.id,) if isinstance(node, ast.Name) else ()


def last(node: ast.AST) -> str:
    """The last part of ``a.b.c``."""
    return (dotted(node) or ("",))[-1]
