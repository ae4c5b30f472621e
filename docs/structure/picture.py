"""The layers of a checkout as a picture: boxes in rows, and an arrow from a box to each that it needs."""

import ast
import re
from itertools import pairwise
from statistics import mean
from textwrap import wrap
from xml.sax.saxutils import escape

from .tree import Graph, Tree, cycles, merged, reach

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
