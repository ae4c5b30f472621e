"""How the source is cut, in figures, and its layers, in a picture; both are read from the source, which is never run.

    python docs/structure [ROOT] [--before OTHER] [--list]     a table of ROOT, or of OTHER and ROOT
    python docs/structure [ROOT] --json                        the same of ROOT, to be OTHER later
    python docs/structure [ROOT] --picture                     docs/images/layers.svg
    python docs/structure [ROOT] --write                       the table in docs/design.md

ROOT is a checkout, by default the one this folder lies in; OTHER is a checkout or the JSON of one. Nothing is known of
a tree but ``pyproject.toml``: the package is that of its script, the plugins are its entry points. What is counted, and
how, is said in ``figures.py``. ``--write`` compares with docs/structure_before.json, unless OTHER is given.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # python puts this folder there, in which it is no package

from structure.figures import figures
from structure.picture import picture
from structure.tables import Figure, from_json, table, to_json, with_table
from structure.tree import Tree


def read(path: Path) -> dict[str, Figure]:
    """The figures of a checkout, or those that were written of one."""
    return figures(Tree(path)) if path.is_dir() else from_json(path.read_text("utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python docs/structure", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("root", nargs="?", type=Path, default=Path(__file__).parents[2], help="a checkout")
    parser.add_argument("--before", type=Path, help="another checkout, or the JSON of one, for a column beside")
    parser.add_argument("--list", action="store_true", help="the places behind each figure, after the table")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--json", action="store_true", help="print figures and places as JSON")
    kind.add_argument("--picture", action="store_true", help="write docs/images/layers.svg")
    kind.add_argument("--write", action="store_true", help="write the table in docs/design.md")
    options = parser.parse_args()
    docs = options.root / "docs"
    if options.picture:
        path = docs / "images/layers.svg"
        path.write_text(picture(Tree(options.root)), "utf-8")
        print(path)
    elif options.write:
        rows = table(read(options.root), read(options.before or docs / "structure_before.json"))
        path = docs / "design.md"
        path.write_text(with_table(path.read_text("utf-8"), rows), "utf-8")
        print(path)
    elif options.json:
        print(to_json(read(options.root)), end="")
    else:
        now = read(options.root)
        print(table(now, read(options.before) if options.before else None))
        for figure in now.values() if options.list else ():
            if figure.places:
                print(f"\n## {figure.label}\n\n" + "\n".join(f"- {place}" for place in figure.places))


if __name__ == "__main__":
    main()
