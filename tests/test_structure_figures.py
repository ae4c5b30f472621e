"""What docs/structure counts in a made-up package, and that its picture and table of this one are up to date."""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "docs/structure"
BEFORE = ROOT / "docs/structure_before.json"
PICTURE = ROOT / "docs/images/layers.svg"
DESIGN = ROOT / "docs/design.md"
with pytest.MonkeyPatch.context() as patched:
    patched.syspath_prepend(SCRIPT.parent)
    figures, picture, tables, tree = (
        importlib.import_module(f"structure.{name}") for name in ("figures", "picture", "tables", "tree")
    )

FILES = {
    "pyproject.toml": """
        [project]
        name = "tiny"
        [project.scripts]
        tiny = "tiny.__main__:main"
        [project.entry-points."tiny.solvers"]
        one = "tiny.maths:one"
        two = "tiny.maths.two:two"
        [project.entry-points."tiny.distill"]
        far = "tiny.aims.far:far"
        """,
    "tiny/__init__.py": "",
    "tiny/__main__.py": """
        from tiny.training.loop import train
        def main(): return train({})
        """,
    "tiny/errors.py": """
        class Bad(Exception): pass
        """,
    "tiny/maths/__init__.py": """
        from tiny.maths.first import one
        """,
    "tiny/maths/first.py": """
        from tiny.maths.base import Step as Base, unused
        from tiny.errors import Bad
        def one(*, a=1, b=2, c=3, d=4, e=5, f=6, g=7, h=8) -> "Base":
            unused = a
            def later():
                from tiny.maths.halves import half
                return half(unused)
            return later
        """,
    "tiny/maths/two.py": """
        from tiny.maths import base
        def two(): return [base.Step() for half in ()]
        """,
    "tiny/maths/base.py": """
        import os
        from typing import Any, Mapping
        class Step:
            def __init__(self, a, b, c, d, e, f, g): self.kept: dict[str, Any] = {}
            def wide(self, a, b, c, d, e, f, g, *, h): return getattr(self, "begin", None)
            @staticmethod
            def flat(a, b, c, d, e, f, g, h): return hasattr(os, "fork") or getattr(os.path, "x", 0)
        def unused(x: Mapping[str, list[Any]], y: Mapping[str, Any], name): return getattr(x, name)
        """,
    "tiny/maths/halves.py": """
        def half(x): return x / 2
        """,
    "tiny/aims/__init__.py": "",
    "tiny/aims/far.py": """
        from tiny.aims.base import AIM
        from tiny.errors import Bad
        def far(teacher): return AIM
        """,
    "tiny/aims/base.py": """
        from tiny.maths.halves import half
        AIM = {"half": half}
        class Step: pass
        """,
    "tiny/training/__init__.py": "",
    "tiny/training/loop.py": """
        from tiny.aims.base import Step
        from tiny.errors import Bad
        def train(told):
            if not hasattr(told, "keys"):
                raise Bad
            return Step
        """,
}


@pytest.fixture
def tiny(tmp_path):
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(re.sub(r"^ {8}", "", text, flags=re.MULTILINE).lstrip("\n"))
    return tmp_path


def counted(root, **options):
    return figures.figures(tree.Tree(root, **options))


def test_sizes_and_signatures(tiny):
    found = counted(tiny)
    assert (found["files"].value, found["files_short"].value, found["files_long"].value) == (13, 13, 0)
    assert (found["file_longest"].value, found["file_longest"].name) == (8, "`maths.base`")
    # the lines, sorted: 0 0 0 1 1 1 2 2 3 3 6 8 8; an empty __init__ is a file, too
    assert found["file_median"].value == 2
    assert (found["function_longest"].value, found["function_longest"].name) == (6, "`maths.first:one`")
    assert found["function_median"].value == 1
    assert found["parameters"].places == ["maths.base:Step.wide 8", "maths.base:Step.flat 8"]
    assert found["options"].places == ["maths.first:one 8"]


def test_loose_types_and_names(tiny):
    found = counted(tiny)
    assert [place.split()[0] for place in found["any"].places] == ["maths.base:4", "maths.base:8"]
    assert found["asked"].places == [
        "maths.base:5 getattr(self, 'begin', None)",
        "training.loop:4 hasattr(told, 'keys')",
    ]
    assert found["modules_twice"].places == ["base: aims.base, maths.base"]
    assert found["names_twice"].places == ["Step: aims.base, maths.base"]


def test_rooms_and_cycles(tiny):
    found = counted(tiny)
    assert found["rooms"].places == ["tiny", "__main__", "aims", "errors", "maths", "training"]
    assert found["arrows"].value == 6
    assert (found["room_cycles"].value, found["module_cycles"].value) == (0, 0)
    (tiny / "tiny/maths/halves.py").write_text("from tiny.aims.base import AIM\ndef half(x): return AIM\n")
    found = counted(tiny)
    assert found["room_cycles"].places == ["aims <-> maths"]
    assert found["module_cycles"].places == ["aims.base <-> maths.halves"]


def test_reading(tiny):
    found = counted(tiny)
    # of ``one``: a type in quotes under another name, and what a function within it imports; the parameter of that
    # name is not the imported ``unused``, and the re-export in ``maths`` is not a file to read
    assert found["sampler_most"].places == [
        "solvers one 3: maths.base, maths.first, maths.halves",
        "solvers two 2: maths.base, maths.two",
    ]
    assert (found["sampler_most"].value, found["sampler_most"].name) == (3, "`solvers one`")
    assert found["sampler_median"].value == 2.5
    assert found["objective_most"].places == ["distill far 3: aims.base, aims.far, maths.halves"]
    assert found["training_step_most"].places == ["training.loop:train 3: aims.base, errors, training.loop"]
    found = counted(tiny, known=2)
    assert found["vocabulary"].places == ["errors"]
    assert found["training_step_most"].value == 2
    assert found["training_step_all_most"].value == 3


def test_files_of_its_own_room(tiny):
    found = counted(tiny)
    assert found["sampler_room_most"].value == 3
    # the third file that explains ``far`` is in ``maths``
    assert found["objective_room_most"].places == ["distill far 2: aims.base, aims.far"]
    assert "training_step_room_most" not in found
    # rooms inside of a room at the top belong to it
    (tiny / "tiny/maths/deep").mkdir()
    (tiny / "tiny/maths/deep/__init__.py").write_text("")
    (tiny / "tiny/maths/halves.py").rename(tiny / "tiny/maths/deep/halves.py")
    first = tiny / "tiny/maths/first.py"
    first.write_text(first.read_text().replace("tiny.maths.halves", "tiny.maths.deep.halves"))
    found = counted(tiny)
    assert found["sampler_room_most"].places[0] == "solvers one 3: maths.base, maths.deep.halves, maths.first"


def test_a_table_takes_its_place_on_a_page(tiny):
    rows = "| a |\n| --- |\n| 1 |"
    page = f"# P\n\n| kept |\n\n{tables.HEADING}\n\nSaid.\n\n{{}}\n\n## Next\n\n| kept |\n"
    assert tables.with_table(page.format("| old |\n| --- |"), rows) == page.format(rows)
    assert tables.with_table(page.format(rows), rows) == page.format(rows)
    last = f"# P\n\n{tables.HEADING}\n\n{{}}\n"
    assert tables.with_table(last.format("| old |"), rows) == last.format(rows)
    for wrong in ("# P\n\n| a |\n", page.format("none"), page.format("| a |\n\n| b |")):
        with pytest.raises(ValueError, match="instead of one"):
            tables.with_table(wrong, rows)


def test_table_json_and_picture(tiny):
    run = [sys.executable, str(SCRIPT), str(tiny)]
    kept = tiny / "before.json"
    kept.write_text(subprocess.run([*run, "--json"], check=True, capture_output=True, text=True).stdout)
    (tiny / "tiny/aims/near.py").write_text("")
    done = subprocess.run([*run, "--before", str(kept)], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[:3] == ["|  | before | after |", "| --- | --- | --- |", "| files | 13 | 14 |"]
    (tiny / "docs/images").mkdir(parents=True)
    (tiny / "docs/design.md").write_text(f"{tables.HEADING}\n\n| old |\n")
    subprocess.run([*run, "--before", str(kept), "--write"], check=True, capture_output=True)
    assert (tiny / "docs/design.md").read_text() == f"{tables.HEADING}\n\n{done.stdout}"
    subprocess.run([*run, "--picture"], check=True, capture_output=True)
    texts = ElementTree.parse(tiny / "docs/images/layers.svg").getroot().itertext()
    assert {"aims", "maths", "training", "__main__, tiny", "errors"} <= set(texts)


def boxes_and_paths(svg):
    """The corners of every box, and the bends of every arrow, in pixels."""
    root = ElementTree.fromstring(svg)
    rectangles = [node.attrib for node in root.iter() if node.tag.endswith("rect") and "x" in node.attrib]
    boxes = [[float(box[key]) for key in ("x", "y", "width", "height")] for box in rectangles]
    paths = [node.attrib["d"] for node in root.iter() if "marker-end" in node.attrib]
    return [(x, y, x + w, y + h) for x, y, w, h in boxes], paths


def test_the_picture_is_that_of_the_source():
    written = picture.picture(tree.Tree(ROOT))
    assert PICTURE.read_text("utf-8") == written, "run: python docs/structure --picture"
    boxes, paths = boxes_and_paths(written)
    for n, (left, top, right, bottom) in enumerate(boxes):
        assert not any(left < r and li < right and top < b and t < bottom for li, t, r, b in boxes[:n])
    for (
        path
    ) in paths:  # between rows an arrow bends; beside boxes, from the end of one bend to the next, it is straight
        for x, top, below in re.findall(r"(\d+),(\d+) L\1,(\d+)", path):
            crossed = [box for box in boxes if box[0] < int(x) < box[2] and int(top) < box[3] and box[1] < int(below)]
            assert not crossed


def test_the_figures_of_before_are_those_of_today():
    keys = set(json.loads(BEFORE.read_text("utf-8")))
    assert keys == set(counted(ROOT))


def test_the_table_of_the_design_has_the_rows_of_the_script():
    """Its figures of today move with every change; who regroups runs ``python docs/structure --write``."""
    rows = tables.table(counted(ROOT), tables.from_json(BEFORE.read_text("utf-8")))
    page = DESIGN.read_text("utf-8")
    assert tables.with_table(page, rows)
    for row in rows.splitlines():
        _, name, before, *_ = row.split("|")
        assert f"|{name}|{before}|" in page, "run: python docs/structure --write"


# Files of fewer than 60 lines that are no ``__init__``, and why each stands alone.
PLUGIN_OR_CONTRACT = "one plugin or one contract, which is what its reader looks for"
LEAF = "many rooms use it, and none of them is its place"
EDGE = "the border between two layers, which must not import either"
SMALL = {
    **dict.fromkeys(("evaluation.psnr_ssim", "features.points", "core.editing.masks"), PLUGIN_OR_CONTRACT),
    **dict.fromkeys(("testing.metric", "testing.objective", "testing.operator"), PLUGIN_OR_CONTRACT),
    **dict.fromkeys(("loggers.jsonl", "loggers.tensorboard", "testing.logger"), PLUGIN_OR_CONTRACT),
    **dict.fromkeys(("core.deterministic", "core.inversion", "core.pixels", "features.inputs"), LEAF),
    **dict.fromkeys(("evaluation.metrics", "files.streams.formats", "files.streams.labels", "testing.common"), LEAF),
    **dict.fromkeys(("text_files", "training.devices", "options.lr_schedule", "options.data_spec"), LEAF),
    **dict.fromkeys(("data_paths", "datasets.archive_names", "datasets.per_process"), LEAF),
    **dict.fromkeys(("options.save_interval", "commands.training.numerics", "files.rewind"), LEAF),
    **dict.fromkeys(("pipelines.classify", "options.plugin_facts", "commands.shared.manifest"), LEAF),
    **dict.fromkeys(("options.call", "options.hint_words", "pipelines.reporter"), EDGE),
    **dict.fromkeys(
        ("__main__", "startup", "commands.signals"), "runs before anything else may be imported, or beside it"
    ),
    **dict.fromkeys(
        ("commands.edit", "commands.information.presets"), "a command, or what one of them prints, is a file"
    ),
}


def test_a_small_file_has_its_reason():
    """A new one joins what it is read with, or says here why it does not."""
    small = {place.split()[0] for place in counted(ROOT)["files_short"].places}
    packages = {
        path.parent.relative_to(ROOT / "cmtool").as_posix().replace("/", ".")
        for path in ROOT.glob("cmtool/**/__init__.py")
    }
    assert small - packages - {"cmtool"} <= SMALL.keys()


def test_the_house_stays_readable():
    """Four files of its room at most to follow a sampler or an objective; no file is long; no circle of modules."""
    found = counted(ROOT)
    assert found["files_long"].value == found["module_cycles"].value == 0
    for kind in ("sampler", "objective"):
        assert found[f"{kind}_room_most"].value <= 4
