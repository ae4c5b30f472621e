"""The documents render as they were meant: whole tables, and links that lead somewhere."""

import re

import pytest
from documents import ROOT

PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("plugins/*/*.md"))]
FENCE = re.compile(r"^(```|~~~).*?^\1[^\S\n]*$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]+`")
LINK = re.compile(r"\]\(<?([^)>\s]+)>?(?:\s+\"[^\"]*\")?\)|^\[[^\]]+\]:\s*(\S+)", re.MULTILINE)
RULE = re.compile(r"\|(\s*:?-+:?\s*\|)+")
BAR = re.compile(r"(?<!\\)\|")  # a bar splits a row even between back-ticks, unless it is escaped


def prose(text):
    """The text with its fenced blocks emptied, line for line."""
    return FENCE.sub(lambda match: "\n" * match[0].count("\n"), text)


def tables(text):
    """The runs of lines that begin with a bar, each with the number of its first line."""
    block, found = [], []
    for number, line in enumerate([*prose(text).split("\n"), ""], 1):
        if line.startswith("|"):
            block.append(line.rstrip())
        elif block:
            found.append((number - len(block), block))
            block = []
    return found


def table_faults(text):
    """What keeps rows from being a table, a sentence each."""
    for first, rows in tables(text):
        if len(rows) < 2 or not RULE.fullmatch(rows[1]):
            yield f"line {first}: a table begins with a header and a line of dashes; did a blank line cut it?"
            continue
        width = len(BAR.findall(rows[0]))
        for number, row in enumerate(rows, first):
            if not row.endswith("|") or row.endswith("\\|"):
                yield f"line {number}: a row ends with a bar"
            elif len(BAR.findall(row)) != width:
                yield f"line {number}: {len(BAR.findall(row)) - 1} cells below a header of {width - 1}"


def anchors(text):
    """What ``#...`` may name on a page: its headings in lower case, without signs, spaces as dashes."""
    headings = re.findall(r"^#+ +(.+?) *#*$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dead_links(page, text):
    """The relative links of a page that lead to no file of the repository, or to no heading of it."""
    for match in LINK.finditer(CODE.sub("", prose(text))):
        link = match[1] or match[2]
        if re.match(r"[a-z]+:", link):
            continue
        name, _, heading = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.is_relative_to(ROOT.resolve()) or not target.exists():
            yield f"{link}: there is no such file"
        elif heading and heading not in anchors(text if not name else target.read_text("utf-8")):
            yield f"{link}: there is no such heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_tables_and_links(page):
    text = page.read_text("utf-8")
    assert [*table_faults(text), *dead_links(page, text)] == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("| a | b |\n|---|:-:|\n| 1 | 2 |\n", None),
        ("| a |\n|---|\n| `x \\| y` |\n", None),
        ("```text\n| a\n\n| b\n```\n", None),
        ("| a | b |\n|---|---|\n| 1 | 2 |\n\n| 3 | 4 |\n| 5 | 6 |\n", "line 5: a table begins"),
        ("| a | b |\n| 1 | 2 |\n", "line 1: a table begins"),
        ("| a | b |\n|---|---|\n| 1 |\n", "line 3: 1 cells below a header of 2"),
        ("| a |\n|---|\n| `x | y` |\n", "line 3: 2 cells below a header of 1"),
        ("| a | b |\n|---|---|\n| 1 | 2\n", "line 3: a row ends with a bar"),
    ],
)
def test_broken_tables_are_found(text, said):
    found = list(table_faults(text))
    assert len(found) == (said is not None)
    assert not said or found[0].startswith(said)


def test_dead_links_are_found():
    text = (
        "# A heading, *with* signs\n[a](README.md) [b](#a-heading-with-signs) `[c](no.md)` [d](https://example.org/no)\n"
        "![e](docs/no.png) [f](#nowhere) [g](../outside.md)\n[h]: gone.md\n"
    )
    assert [fault.split(":")[0] for fault in dead_links(ROOT / "README.md", text)] == [
        *("docs/no.png", "#nowhere", "../outside.md", "gone.md"),
    ]


PATH = re.compile(r"\w[\w./*-]*(?:/|\.py\b)")  # a folder or a file of Python


def missing_files(text):
    """The paths in back-ticks that end in .py and lead to no file: below the package, the root, or a folder before it.

    Such a folder is named before the path in the same cell or line, or holds a file that is.
    """
    for number, line in enumerate(prose(text).split("\n"), 1):
        for cell in BAR.split(line):
            folders = [ROOT / "cmtool", ROOT]
            for path in (found for code in CODE.findall(cell) for found in PATH.findall(code)):
                places = [place for folder in folders for place in folder.glob(path)]
                if path.endswith(".py") and not any(place.is_file() for place in places):
                    yield f"line {number}: {path}"
                else:
                    folders += [place if place.is_dir() else place.parent for place in places]


@pytest.mark.parametrize("page", ["docs/design.md", "CONTRIBUTING.md"])
def test_named_files_exist(page):
    assert [*missing_files((ROOT / page).read_text("utf-8"))] == []


def test_missing_files_are_found():
    text = (
        "`core/noise.py: Philox` and `pyproject.toml`\n```\n`core/gone.py`\n```\n"
        "| `core/solvers/`: `heun.py`, `solver.py` | `solver.py` |\n"
        "| `files/atomic.py`, `runs.py`, `streams/z*.py`, `python tests/none*.py` |\n"
    )
    assert [*missing_files(text)] == ["line 5: heun.py", "line 5: solver.py", "line 6: tests/none*.py"]
