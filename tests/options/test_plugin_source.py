"""Facts and options read from source text, without importing it."""

import sys

import pytest

from cmtool.options.plugin_option import default_text, options_of
from cmtool.options.plugin_source import PluginSource, SourceOption, read_source

SHARED = """
from typing import Annotated
from cmtool.options.plugin_option import Option
raise SystemExit("nobody may import this")
KINDS = {"gap": 1, "output": 2}
MORE = ("own", *KINDS)
ShareOption = Annotated[float, Option("share of " "the steps")]
"""
PLUGIN = '''
from typing import Annotated
import cmtool.options.plugin_option as po
from cmtool.options.plugin_option import Option
from .shared import KINDS as WORDS, MORE, ShareOption
raise SystemExit("nobody may import this")
WHO = "nobody"

def solver(a, b=1, *, share: ShareOption = 0.5, again: "ShareOption | None" = None,
           weight: Annotated[str, Option("weight for " + WHO, choices=tuple(WORDS))] = "gap",
           mode: Annotated[str | None, po.Option(help=f"{WHO}: {'/'.join(WORDS)}", choices=sorted(MORE))] = None,
           wild: Annotated[int, Option(str(1), choices=make())] = 3, bare=(1, 2), needed):
    """Summary."""

other = solver
made = wrap(1, read=solver)
FILE = dict(name="x")
"""A file."""
plain = 3
'''
OPTIONS = (
    SourceOption("share", "0.5", "share of the steps"),
    SourceOption("again", "None", "share of the steps"),
    SourceOption("weight", "'gap'", "weight for nobody", ("gap", "output")),
    SourceOption("mode", "None", "nobody: gap/output", ("gap", "output", "own")),
    SourceOption("wild", "3"),
    SourceOption("bare", "(1, 2)"),
    SourceOption("needed"),
)


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "unseen_package"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "from .plugin import solver as first\nraise SystemExit('nobody may import this')\n"
    )
    (folder / "shared.py").write_text(SHARED)
    (folder / "plugin.py").write_text(PLUGIN)
    (folder / "round.py").write_text("from .trip import f\na = b\nb = a\n")
    (folder / "trip.py").write_text("from .round import f\n")
    (folder / "torn.py").write_text("def (")
    monkeypatch.syspath_prepend(tmp_path)
    yield "unseen_package"
    assert not {name for name in sys.modules if name.startswith("unseen_package")}


@pytest.mark.parametrize("target", ["plugin:solver", "plugin:other", "plugin:made", ":first"])
def test_a_factory_is_followed_to_where_it_is_defined(package, target):
    module, _, name = target.partition(":")
    where = f"{package}.{module}" if module else package
    assert read_source(f"{where}:{name}") == PluginSource("Summary.", OPTIONS)


def test_a_constant_is_what_the_text_below_it_says(package):
    assert read_source(f"{package}.plugin:FILE") == PluginSource("A file.")


@pytest.mark.parametrize(
    "target",
    ["plugin:plain", "plugin:absent", "absent:solver", "round:f", "round:a", "torn:f", "plugin:", ":", "plugin"],
)
def test_what_is_not_there_is_none(package, target):
    assert read_source(f"{package}.{target}") is None
    assert read_source(f"absent_package.{target}") is None


def test_the_source_says_what_the_signature_says():
    from cmtool.features.inception import inception

    read = read_source("cmtool.features.inception:inception")
    assert read and read.docstring.split() == (inception.__doc__ or "").split()
    known = options_of(inception).values()
    assert [(o.name, o.help, o.choices) for o in read.options] == [(o.name, o.help, o.choices) for o in known]
    assert [o.default.strip("'\"").lower() for o in read.options] == [default_text(o.default) for o in known]
