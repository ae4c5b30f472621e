"""Figures as a table: on a page of its own, as JSON, and in docs/design.md."""

import json
import re
from dataclasses import asdict, dataclass, field

HEADING = "## The structure in figures"


@dataclass
class Figure:
    label: str
    value: float | None
    name: str = ""
    places: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        value = "-" if self.value is None else f"{self.value:g}"
        return f"{value} ({self.name})" if self.name else value


def table(now: dict[str, Figure], before: dict[str, Figure] | None = None) -> str:
    """A Markdown table, one figure a row."""
    rows = [["", *(["before", "after"] if before else ["here"])]]
    for key in [*now, *(key for key in before or {} if key not in now)]:
        sides = [before.get(key), now.get(key)] if before else [now[key]]
        rows.append([next(f for f in reversed(sides) if f).label, *(str(side or "-") for side in sides)])
    rows.insert(1, ["---"] * len(rows[0]))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def to_json(figures: dict[str, Figure]) -> str:
    """Figures with their places, one a line."""
    rows = (f"{json.dumps(key)}: {json.dumps(asdict(figure))}" for key, figure in figures.items())
    return "{\n" + ",\n".join(rows) + "\n}\n"


def from_json(text: str) -> dict[str, Figure]:
    """The figures that ``to_json`` wrote."""
    return {key: Figure(**figure) for key, figure in json.loads(text).items()}


def with_table(page: str, rows: str) -> str:
    """The page with these rows in place of the one table of its section ``HEADING``.

    ValueError for a page without that section or without one table in it.
    """
    parts = re.split(r"^(?=## )", page, flags=re.MULTILINE)
    count = 0
    for n, part in enumerate(parts):
        if part.startswith(f"{HEADING}\n"):
            parts[n], count = re.subn(r"(?:^\|.*\n)+", lambda _: f"{rows}\n", part, flags=re.MULTILINE)
    if count != 1:
        raise ValueError(f"{HEADING!r}: {count} tables instead of one")
    return "".join(parts)
