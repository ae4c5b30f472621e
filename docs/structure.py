"""How the source is cut, in figures, and its layers, in a picture; both are read from the source, which is never run.

    python docs/structure.py [ROOT] [--before OTHER] [--list]     a table of ROOT, or of OTHER and ROOT
    python docs/structure.py [ROOT] --json                        the same of ROOT, to be OTHER later
    python docs/structure.py [ROOT] --picture                     docs/images/layers.svg

ROOT is a checkout, by default the one this file lies in; OTHER is a checkout or the JSON of one. Nothing is known of a
tree but ``pyproject.toml``: the package is that of its script, the plugins are its entry points.

- A file is a ``.py`` of the package. A function is any ``def``, nested ones included, from that line to its last.
- Parameters are the named ones but ``self`` and ``cls``. The keyword-only ones of a plugin's factory are the schema of
  its options: they have a row of their own.
- A mapping of Any is ``dict``, ``Mapping`` or ``MutableMapping`` of some key to ``Any``, in an annotation or elsewhere.
- ``hasattr`` and ``getattr`` count with a constant name, unless they ask a module or what comes from another package.
- A room is a folder of the package; a module at its top is a room by itself. There is an arrow from a room to each
  other one that it imports from, wherever the import stands. The package's own ``__init__`` comes with every import, so
  no arrow leads to it. A cycle is a set of rooms, or modules, that import each other.
- Files to follow a plugin: those that a reader opens until every name is explained. Begin at what the entry point
  names; look up each name there that leads to a definition of the package, through re-exports (which are not counted),
  in annotations, base classes and decorators too, in all methods of a class and all functions inside a function; go on
  from what was found. A method of a value is followed no further than the annotation of the value, and what is chosen
  by name at run time not at all. A training step begins at the function ``train`` of the package's folder ``training``.
  Modules that more than ``KNOWN`` others import are vocabulary, which every reader has: they are not counted and not
  entered. As that rule moves with the tree, the same is also counted with no vocabulary at all.
"""

import argparse
import ast
import json
import re
import sys
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from textwrap import wrap
from xml.sax.saxutils import escape

LONG, SHORT, MANY, KNOWN = 300, 60, 7, 15
FOLLOWED = {"sampler": ("solvers", "samplers"), "objective": ("train_ct", "distill")}  # groups of entry points
MAPPINGS = {"dict", "Mapping", "MutableMapping"}
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
COMPREHENSION = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
Place = tuple[str, str]  # a module and a name in it, "" for the module itself
Graph = dict[str, set[str]]
Scope = (
    ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
)


@dataclass
class Figure:
    label: str
    value: float | None
    name: str = ""
    places: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        value = "-" if self.value is None else f"{self.value:g}"
        return f"{value} ({self.name})" if self.name else value


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


class Tree:
    """All modules of a checkout, by name."""

    def __init__(self, root: Path):
        project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
        self.name = next(iter(project["scripts"].values())).split(":")[0].split(".")[0]
        groups = project.get("entry-points", {})
        self.groups = {group.removeprefix(f"{self.name}."): points for group, points in groups.items()}
        self.modules: dict[str, Module] = {}
        for path in sorted((root / self.name).rglob("*.py")):
            name = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
            self.modules[name] = Module(name, path, self.modules)

    def short(self, module: str) -> str:
        return module.removeprefix(f"{self.name}.")

    def where(self, module: Module, node: ast.expr) -> str:
        return f"{self.short(module.name)}:{node.lineno} {ast.unparse(node)}"

    def find(self, place: Place, chain: tuple[str, ...] = (), seen: frozenset[Place] = frozenset()) -> Place | None:
        """Where ``place.chain`` is defined, a module and a name in it; None outside of the package."""
        (module, name), known = place, self.modules.get(place[0])
        if known is None or place in seen:
            return None
        if not name:
            if not chain:
                return place
            whole = f"{module}.{chain[0]}"
            next_place = (module, chain[0]) if chain[0] in known.bound or whole not in self.modules else (whole, "")
            return self.find(next_place, chain[1:], seen | {place})
        bound = known.bound.get(name)
        return self.find(bound, chain, seen | {place}) if isinstance(bound, tuple) else place if bound else None

    def statements(self, place: Place) -> list[ast.stmt]:
        """The code of a definition."""
        bound = self.modules[place[0]].bound[place[1]]
        return bound if isinstance(bound, list) else []

    def uses(self, place: Place) -> set[Place]:
        """The definitions that a definition speaks of."""
        module = self.modules[place[0]]
        names = Names(module)
        for node in self.statements(place):
            names.visit(node)
        return {found for at, chain in names.found if (found := self.find(at or (module.name, ""), chain)) and found[1]}

    def follow(self, start: Place, known: set[str]) -> list[str]:
        """The modules that a reader opens, those that are known left out."""
        seen, waiting = {start}, [start]
        while waiting:
            new = {p for p in self.uses(waiting.pop()) - seen if p[0] not in known or p[0] == start[0]}
            seen |= new
            waiting += new
        return sorted({self.short(module) for module, _ in seen})

    @cached_property
    def arrows(self) -> Graph:
        """Every module and those that it imports."""
        return {
            m.name: {t for t, _ in m.imports if t in self.modules} - {m.name, self.name} for m in self.modules.values()
        }

    @cached_property
    def vocabulary(self) -> set[str]:
        """The modules from which more than KNOWN others take something, straight or through a re-export."""
        found = {(m.name, at[0]) for m in self.modules.values() for place in m.imports if (at := self.find(place))}
        return {name for name, n in Counter(to for by, to in found if by != to).items() if n > KNOWN}

    def room(self, name: str) -> str:
        folder = name if self.modules[name].package else name.rpartition(".")[0]
        return name if folder == self.name else folder

    @cached_property
    def rooms(self) -> Graph:
        return merged(self.arrows, {name: self.room(name) for name in self.modules})

    @cached_property
    def points(self) -> dict[tuple[str, str], Place | None]:
        """What each entry point names, by group and name."""
        points = {(group, name): at for group, some in self.groups.items() for name, at in some.items()}
        return {
            key: self.find((at.split(":")[0], ""), tuple(at.split(":")[1].split("."))) for key, at in points.items()
        }


def merged(graph: Graph, box: dict[str, str]) -> Graph:
    """The arrows between boxes of nodes."""
    found: Graph = {name: set() for name in box.values()}
    for node, ends in graph.items():
        found[box[node]] |= {box[end] for end in ends} - {box[node]}
    return found


def reach(graph: Graph) -> Graph:
    """All that can be reached from each node."""
    found = {}
    for node in graph:
        seen, waiting = set(), [node]
        while waiting:
            new = graph[waiting.pop()] - seen
            seen |= new
            waiting += new
        found[node] = seen
    return found


def cycles(graph: Graph) -> list[list[str]]:
    """The sets of nodes that reach each other."""
    far = reach(graph)
    return [list(c) for c in sorted({tuple(sorted(m for m in far[n] if n in far[m])) for n in graph if n in far[n]})]


def figures(tree: Tree) -> dict[str, Figure]:
    """All figures of a tree, by a short key."""
    return {**_sizes(tree), **_contracts(tree), **_names(tree), **_rooms(tree), **_reading(tree)}


def _sizes(tree: Tree) -> dict[str, Figure]:
    files = {tree.short(m.name): m.lines for m in tree.modules.values()}
    longest = max(files, key=lambda name: files[name])
    long, short = ([f"{name} {n}" for name, n in files.items() if far(n)] for far in (LONG.__lt__, SHORT.__gt__))
    inits = sum(m.package and m.lines < SHORT for m in tree.modules.values())
    functions = [
        (f"{tree.short(m.name)}:{n}", f, bound) for m in tree.modules.values() for n, f, bound in m.functions()
    ]
    lines = [(f.end_lineno or f.lineno) - f.lineno + 1 for _, f, _ in functions]
    nodes = [tree.statements(at) for at in tree.points.values() if at and at[1]]
    parts = [
        part for some in nodes for node in some for part in ast.iter_child_nodes(node) if isinstance(part, FUNCTION)
    ]
    factories = {id(node) for some in nodes for node in some} | {id(p) for p in parts if p.name == "__init__"}
    many, options = [], []
    for name, f, bound in functions:
        plain, named = len(f.args.posonlyargs) + len(f.args.args) - bound, len(f.args.kwonlyargs)
        if plain + (0 if id(f) in factories else named) > MANY:
            many.append(f"{name} {plain + named}")
        if id(f) in factories and named > MANY:
            options.append(f"{name} {named}")
    return {
        "files": Figure("files", len(files)),
        "file_median": Figure("lines of a file, median", median(files.values())),
        "file_longest": Figure("lines of the longest file", files[longest], f"`{longest}`"),
        "files_long": Figure(f"files of more than {LONG} lines", len(long), places=long),
        "files_short": Figure(f"files of fewer than {SHORT} lines", len(short), f"{inits} are `__init__`", short),
        "function_median": Figure("lines of a function, median", median(lines)),
        "function_longest": Figure(
            "lines of the longest function", max(lines), f"`{functions[lines.index(max(lines))][0]}`"
        ),
        "parameters": Figure(f"functions with more than {MANY} parameters", len(many), places=many),
        "options": Figure(f"plugin factories with more than {MANY} options", len(options), places=options),
    }


def _contracts(tree: Tree) -> dict[str, Figure]:
    loose, asked = [], []
    for module in tree.modules.values():
        nodes = list(ast.walk(module.tree))
        taken = [module.imported(node) for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
        foreign = {n for some in taken for n, at in some.items() if not (found := tree.find(at)) or not found[1]}
        for node in nodes:
            if isinstance(node, ast.Subscript) and last(node.value) in MAPPINGS and isinstance(node.slice, ast.Tuple):
                loose += [(module, node)] * (last(node.slice.elts[-1]) == "Any")
            elif isinstance(node, ast.Call) and last(node.func) in ("hasattr", "getattr") and len(node.args) > 1:
                constant = isinstance(node.args[1], ast.Constant) and isinstance(node.args[1].value, str)
                if constant and (dotted(node.args[0]) or ("",))[0] not in foreign:
                    asked.append((module, node))
    loose, asked = (
        [tree.where(*at) for at in sorted(f, key=lambda at: (at[0].name, at[1].lineno))] for f in (loose, asked)
    )
    return {
        "any": Figure("mappings of `Any`", len(loose), places=loose),
        "asked": Figure("contracts asked for with `hasattr` or `getattr`", len(asked), places=asked),
    }


def _names(tree: Tree) -> dict[str, Figure]:
    stems, public = defaultdict(list), defaultdict(list)
    for module in tree.modules.values():
        if not module.package:
            stems[module.name.rpartition(".")[2]].append(tree.short(module.name))
        for name, nodes in module.bound.items():
            if isinstance(nodes, list) and isinstance(nodes[0], (*FUNCTION, ast.ClassDef)) and not name.startswith("_"):
                public[name].append(tree.short(module.name))
    twice, shared = (
        [f"{n}: {', '.join(at)}" for n, at in sorted(some.items()) if len(at) > 1] for some in (stems, public)
    )
    return {
        "modules_twice": Figure("names of two modules or more", len(twice), places=twice),
        "names_twice": Figure("public functions and classes that share a name", len(shared), places=shared),
    }


def _rooms(tree: Tree) -> dict[str, Figure]:
    arrows = [f"{tree.short(a)} -> {tree.short(b)}" for a, ends in sorted(tree.rooms.items()) for b in sorted(ends)]
    rooms, modules = ([" <-> ".join(map(tree.short, c)) for c in cycles(graph)] for graph in (tree.rooms, tree.arrows))
    return {
        "rooms": Figure("rooms", len(tree.rooms), places=[tree.short(name) for name in sorted(tree.rooms)]),
        "arrows": Figure("arrows between rooms", len(arrows), places=arrows),
        "room_cycles": Figure("cycles of rooms", len(rooms), places=rooms),
        "module_cycles": Figure("cycles of modules", len(modules), places=modules),
    }


def _reading(tree: Tree) -> dict[str, Figure]:
    starts = {
        what: {f"{group} {name}": at for (group, name), at in tree.points.items() if group in groups}
        for what, groups in FOLLOWED.items()
    }
    folder = f"{tree.name}.training"
    loops = [
        n
        for n, m in tree.modules.items()
        if f"{n}.".startswith(f"{folder}.") and isinstance(m.bound.get("train"), list)
    ]
    starts["training step"] = {f"{tree.short(name)}:train": (name, "train") for name in loops}
    known = sorted(map(tree.short, tree.vocabulary))
    found = {"vocabulary": Figure(f"modules that more than {KNOWN} others import", len(known), places=known)}
    for what, places in starts.items():
        for name in [name for name, at in places.items() if not at or not at[1]]:
            print(f"{name}: what it names is not in the package", file=sys.stderr)
        for key, vocabulary, rest in (("", tree.vocabulary, ""), ("_all", set(), ", nothing known")):
            read = {name: tree.follow(at, vocabulary) for name, at in places.items() if at and at[1]}
            worst = max(read, key=lambda name: len(read[name]), default="")
            listed = [f"{name} {len(files)}: {', '.join(files)}" for name, files in read.items()]
            counts = [len(files) for files in read.values()]
            label, stem = f"files to follow a {what}{rest}".replace("a o", "an o"), what.replace(" ", "_") + key
            if len(counts) > 1:
                found[f"{stem}_median"] = Figure(f"{label}, median", median(counts))
            most = len(read[worst]) if read else None
            found[f"{stem}_most"] = Figure(
                f"{label}, most" if len(counts) > 1 else label, most, worst and f"`{worst}`", listed
            )
    return found


def table(now: dict[str, Figure], before: dict[str, Figure] | None = None) -> str:
    """A Markdown table, one figure a row."""
    rows = [["", *(["before", "after"] if before else ["here"])]]
    for key in [*now, *(key for key in before or {} if key not in now)]:
        sides = [before.get(key), now.get(key)] if before else [now[key]]
        rows.append([next(f for f in reversed(sides) if f).label, *(str(side or "-") for side in sides)])
    rows.insert(1, ["---"] * len(rows[0]))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def read(path: Path) -> dict[str, Figure]:
    """The figures of a checkout, or those that were written of one."""
    if path.is_dir():
        return figures(Tree(path))
    return {key: Figure(**figure) for key, figure in json.loads(path.read_text("utf-8")).items()}


FLOOR, DOOR = "import no folder", "imported by no folder"  # two boxes for the modules at the package's top
WIDTH, SPACE, GAP, MARGIN, LINE = 172, 22, 74, 28, 15  # pixels


def boxes(tree: Tree) -> tuple[dict[str, list[str]], Graph]:
    """What stands in each box of the picture, and which boxes it needs, where that does not follow from other arrows.

    Modules at the top share two boxes: those that import no folder even by others, and those that no folder imports.
    Rooms of a cycle share one.
    """
    far, box = reach(tree.rooms), {}
    folders = {room for room in tree.rooms if tree.modules[room].package and room != tree.name}
    used = {end for folder in folders for end in far[folder]}
    for room in tree.rooms:
        floor = room != tree.name and not far[room] & folders
        box[room] = room if room in folders else FLOOR if floor else room if room in used else DOOR
    for cycle in cycles(merged(tree.rooms, box)):
        box |= {room: cycle[0] for room in box if box[room] in cycle}
    graph = merged(tree.rooms, box)
    far = reach(graph)
    inside = {name: sorted(tree.short(room) for room in box if box[room] == name) for name in graph}
    return inside, {a: {b for b in ends if not any(b in far[c] for c in ends)} for a, ends in graph.items()}


def levels(graph: Graph) -> dict[str, int]:
    """How many layers stand below each box: 0 for one that needs none."""
    found: dict[str, int] = {}
    while len(found) < len(graph):
        found |= {
            n: 1 + max((found[e] for e in graph[n]), default=-1)
            for n in graph
            if n not in found and graph[n] <= {*found}
        }
    return found


def place(wanted: list[float], gaps: list[float]) -> list[float]:
    """Positions in this order and at least ``gaps`` apart, nearest to those wanted (pool adjacent violators)."""
    offsets = [sum(gaps[:n]) for n in range(len(wanted))]
    pools: list[list[float]] = []
    for want, offset in zip(wanted, offsets, strict=True):
        pools.append([want - offset])
        while len(pools) > 1 and mean(pools[-2]) > mean(pools[-1]):
            pools[-2:] = [pools[-2] + pools[-1]]
    return [mean(pool) + offset for pool, offset in zip((p for p in pools for _ in p), offsets, strict=True)]


class Picture:
    """Boxes in rows, the floor below, and lines from row to row; a long one passes a row at a bend, called "a>b n"."""

    def __init__(self, tree: Tree):
        inside, graph = boxes(tree)
        self.texts = {name: self.words(tree, name, rooms) for name, rooms in inside.items()}
        at = levels(graph)
        self.rows: list[list[str]] = [[] for _ in range(max(at.values()) + 1)]
        for name in sorted(at):
            self.rows[at[name]].append(name)
        self.lines: list[list[str]] = []
        for upper, lower in sorted((a, b) for a, ends in graph.items() for b in ends):
            bends = {f"{upper}>{lower} {n}": n for n in range(at[upper] - 1, at[lower], -1)}
            for bend, n in bends.items():
                self.rows[n].append(bend)
            self.lines.append([upper, *bends, lower])
        self.near: dict[str, dict[int, list[str]]] = {name: {-1: [], 1: []} for row in self.rows for name in row}
        for upper, lower in [pair for line in self.lines for pair in pairwise(line)]:
            self.near[upper][-1].append(lower)
            self.near[lower][1].append(upper)
        self.sort()
        self.x = self.across()

    def words(self, tree: Tree, name: str, rooms: list[str]) -> tuple[float, list[str], list[str]]:
        """Width of a box, its title and what stands below it: the first sentence of the room, or the modules."""
        if name in (FLOOR, DOOR):
            return (
                4.4 * WIDTH,
                [f"modules at the top that {'are ' * (name == DOOR)}{name}"],
                wrap(", ".join(rooms), 108),
            )
        first, *others = [room.replace(".", "/") for room in rooms]
        if all(other.startswith(f"{first}/") for other in others):
            others = [other.removeprefix(f"{first}/") for other in others]
        title = [first, *wrap(f"with {', '.join(others)}" if others else "", 20, break_long_words=False)]
        said = (ast.get_docstring(tree.modules[name].tree) or "").split("\n\n")[0].replace("`", "")
        lines = wrap(re.split(r"[.;](?:\s|$)", said)[0], 26, max_lines=5, placeholder=" …")
        return max(WIDTH, 9.2 * max(map(len, title)) + 16), title, lines

    def sort(self) -> None:
        """Order each row by where its neighbours stand, up and down, and keep the order with fewest crossings."""
        best, fewest = [list(row) for row in self.rows], self.crossings()
        for turn in range(40):
            side = -1 if turn % 2 == 0 else 1
            spots = {name: n for row in self.rows for n, name in enumerate(row)}
            for row in self.rows if side < 0 else self.rows[::-1]:
                middle = {name: mean([spots[o] for o in self.near[name][side]] or [spots[name]]) for name in row}
                row.sort(key=lambda name: (middle[name], name))
                spots |= {name: n for n, name in enumerate(row)}
            for row in self.rows:
                for n in range(len(row) - 1):
                    before = self.crossings()
                    row[n : n + 2] = row[n : n + 2][::-1]
                    if self.crossings() >= before:
                        row[n : n + 2] = row[n : n + 2][::-1]
            if self.crossings() < fewest:
                best, fewest = [list(row) for row in self.rows], self.crossings()
        self.rows = best

    def crossings(self) -> int:
        spots = {name: n for row in self.rows for n, name in enumerate(row)}
        count = 0
        for row in self.rows:
            ends = [(spots[name], spots[end]) for name in row for end in self.near[name][-1]]
            count += sum((a - c) * (b - d) < 0 for n, (a, b) in enumerate(ends) for c, d in ends[:n])
        return count

    def width(self, name: str) -> float:
        return self.texts[name][0] if name in self.texts else 0

    def across(self) -> dict[str, float]:
        """The middle of each box and bend: as near to its neighbours as the others of its row let it."""
        gaps = [[(self.width(a) + self.width(b)) / 2 + SPACE for a, b in pairwise(row)] for row in self.rows]
        x = {
            n: at
            for row, gap in zip(self.rows, gaps, strict=True)
            for n, at in zip(row, place([0] * len(row), gap), strict=True)
        }
        for turn in range(60):
            for n in range(len(self.rows)) if turn % 2 else range(len(self.rows))[::-1]:
                row = self.rows[n]
                wanted = [mean([x[o] for side in self.near[name].values() for o in side] or [x[name]]) for name in row]
                x |= dict(zip(row, place(wanted, gaps[n]), strict=True))
        left = min(x[name] - self.width(name) / 2 for name in x)
        return {name: at - left + MARGIN for name, at in x.items()}

    def ports(self) -> dict[tuple[str, str], float]:
        """Where the line from one box or bend to another leaves the first: side by side, towards the other."""
        found = {}
        for name, sides in self.near.items():
            half = max(self.width(name) / 2 - 14, 0)
            for others in sides.values():
                others = sorted(others, key=lambda other: (self.x[other], other))
                step = min(16.0, 2 * half / max(len(others) - 1, 1))
                wanted = [min(max(self.x[other], self.x[name] - half), self.x[name] + half) for other in others]
                low, high, last = self.x[name] - half, self.x[name] + half, len(others) - 1
                for n, at in enumerate(place(wanted, [step] * last)):
                    found[name, others[n]] = min(max(at, low + n * step), high - (last - n) * step)
        return found

    def svg(self) -> str:
        heights = [
            max([LINE * (len(t) + len(s)) + 18 for n in row if n in self.texts for _, t, s in [self.texts[n]]] or [0])
            for row in self.rows
        ]
        tops, top = [0.0] * len(heights), 58.0
        for n in range(len(heights))[::-1]:
            tops[n], top = top, top + heights[n] + GAP
        right = max(self.x[name] + self.width(name) / 2 for name in self.x) + MARGIN
        row_of, ports = {name: n for n, row in enumerate(self.rows) for name in row}, self.ports()
        size = f'width="{right:.0f}" height="{top - GAP + MARGIN:.0f}"'
        out = [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {right:.0f} {top - GAP + MARGIN:.0f}" '
            'font-family="DejaVu Sans, Verdana, sans-serif" font-size="11" fill="#1f2933">',
            "<title>The layers of the package</title>",
            '<defs><marker id="tip" markerWidth="9" markerHeight="8" refX="8" refY="4" orient="auto">'
            '<path d="M0,0 L9,4 L0,8 z" fill="#52606d"/></marker></defs>',
            '<rect width="100%" height="100%" fill="#fdfdfb"/>',
            f'<text x="{MARGIN}" y="26" font-size="12">An arrow leads from a room to one that it imports. '
            "Arrows that follow from others are left out; rooms that import each other share a box.</text>",
        ]
        for line in self.lines:
            path = ""
            for upper, lower in pairwise(line):
                a, b, y = ports[upper, lower], ports[lower, upper], tops[row_of[upper]] + heights[row_of[upper]]
                end = tops[row_of[lower]]
                half = f"{(y + end) / 2:.0f}"
                path += f"{'L' if path else 'M'}{a:.0f},{y:.0f} C{a:.0f},{half} {b:.0f},{half} {b:.0f},{end:.0f} "
            out.append(
                f'<path d="{path.strip()}" fill="none" stroke="#52606d" stroke-width="1.3" marker-end="url(#tip)"/>'
            )
        for name, (width, title, said) in self.texts.items():
            n = row_of[name]
            shape = f'x="{self.x[name] - width / 2:.0f}" y="{tops[n]:.0f}" width="{width:.0f}" height="{heights[n]}"'
            fill = "#eef1f4" if name in (FLOOR, DOOR) else "#e3effa"
            out.append(f'<rect {shape} rx="7" fill="{fill}" stroke="#52606d"/>')
            y = tops[n] + (heights[n] - LINE * (len(title) + len(said))) / 2
            for k, text in enumerate([*title, *said]):
                style = 'text-anchor="middle"' + ' font-size="13" font-weight="bold"' * (k < len(title))
                spot = f'x="{self.x[name]:.0f}" y="{y + LINE * k + 12:.0f}"'
                out.append(f"<text {spot} {style}>{escape(text)}</text>")
        return "\n".join([*out, "</svg>", ""])


def picture(tree: Tree) -> str:
    """The layers of a tree as SVG."""
    return Picture(tree).svg()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("root", nargs="?", type=Path, default=Path(__file__).parents[1], help="a checkout")
    parser.add_argument("--before", type=Path, help="another checkout, or the JSON of one, for a column beside")
    parser.add_argument("--list", action="store_true", help="the places behind each figure, after the table")
    parser.add_argument("--json", action="store_true", help="figures and places as JSON")
    parser.add_argument("--picture", action="store_true", help="write docs/images/layers.svg")
    options = parser.parse_args()
    if options.picture:
        path = options.root / "docs/images/layers.svg"
        path.write_text(picture(Tree(options.root)), "utf-8")
        print(path)
        return
    now = read(options.root)
    if options.json:
        rows = (f"{json.dumps(key)}: {json.dumps(asdict(figure))}" for key, figure in now.items())
        print("{\n" + ",\n".join(rows) + "\n}")
        return
    print(table(now, read(options.before) if options.before else None))
    for figure in now.values() if options.list else ():
        if figure.places:
            print(f"\n## {figure.label}\n\n" + "\n".join(f"- {place}" for place in figure.places))


if __name__ == "__main__":
    main()
