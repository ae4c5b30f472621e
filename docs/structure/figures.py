"""What is counted in a checkout.

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
- Files of its own room: of the files to follow a plugin, vocabulary left out, those that lie in the room at the top of
  the package where the plugin is defined, with the rooms inside of it: ``objectives`` for an objective, ``core`` for a
  sampler. What an objective uses of ``core``, sigma schedules and the contract of solvers, has the sampler's figures.
"""

import ast
import sys
from collections import defaultdict
from statistics import median

from .modules import FUNCTION, dotted, last
from .tables import Figure
from .tree import Tree, cycles

LONG, SHORT, MANY = 300, 60, 7
FOLLOWED = {"sampler": ("solvers", "samplers"), "objective": ("train_ct", "distill")}  # groups of entry points
MAPPINGS = {"dict", "Mapping", "MutableMapping"}


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
    found = {"vocabulary": Figure(f"modules that more than {tree.known} others import", len(known), places=known)}
    for what, places in starts.items():
        for name in [name for name, at in places.items() if not at or not at[1]]:
            print(f"{name}: what it names is not in the package", file=sys.stderr)
        begin = {name: at for name, at in places.items() if at and at[1]}
        opened = {name: tree.follow(at, tree.vocabulary) for name, at in begin.items()}
        every = {name: tree.follow(at, set()) for name, at in begin.items()}
        key, label = what.replace(" ", "_"), f"to follow {'an' if what[0] in 'aeiou' else 'a'} {what}"
        found |= _counted(key, f"files {label}", opened)
        if what in FOLLOWED:  # plugins, which lie in different rooms; one training step has no such question
            own = {
                name: [file for file in files if file.split(".")[0] == tree.top_room(begin[name][0])]
                for name, files in opened.items()
            }
            found[f"{key}_room_most"] = _most(f"files of its own room {label}, most", own)
        found |= _counted(f"{key}_all", f"files {label}, nothing known", every)
    return found


def _counted(key: str, label: str, files: dict[str, list[str]]) -> dict[str, Figure]:
    """The most files, and where there are several beginnings the median."""
    if len(files) < 2:
        return {f"{key}_most": _most(label, files)}
    middle = Figure(f"{label}, median", median(map(len, files.values())))
    return {f"{key}_median": middle, f"{key}_most": _most(f"{label}, most", files)}


def _most(label: str, files: dict[str, list[str]]) -> Figure:
    worst = max(files, key=lambda name: len(files[name]), default="")
    listed = [f"{name} {len(some)}: {', '.join(some)}" for name, some in files.items()]
    return Figure(label, len(files[worst]) if files else None, worst and f"`{worst}`", listed)
