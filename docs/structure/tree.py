"""A checkout: its modules, what leads from one to another, and what a reader of a definition opens."""

import ast
import tomllib
from collections import Counter
from functools import cached_property
from pathlib import Path

from .modules import Module, Names, Place

KNOWN = 15
Graph = dict[str, set[str]]


class Tree:
    """All modules of a checkout, by name; what more than ``known`` others import is vocabulary."""

    def __init__(self, root: Path, known: int = KNOWN):
        self.known = known
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
        """The modules from which more than ``known`` others take something, straight or through a re-export."""
        found = {(m.name, at[0]) for m in self.modules.values() for place in m.imports if (at := self.find(place))}
        return {name for name, n in Counter(to for by, to in found if by != to).items() if n > self.known}

    def room(self, name: str) -> str:
        """The folder of a module, and a module at the top of the package itself."""
        folder = name if self.modules[name].package else name.rpartition(".")[0]
        return name if folder == self.name else folder

    def top_room(self, name: str) -> str:
        """The first part of a module's name below the package: the folder at its top, or the module there."""
        return self.short(name).split(".")[0]

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
