"""``docs/methods``: written from the plugins, and whole."""

from pathlib import Path

import pytest

from cmtool.options import registry
from cmtool.plugin_reference import missing_facts, pages, write_pages
from cmtool.plugin_usage import USAGE

DOCS = Path(__file__).parents[1] / "docs"
HOW = "python -c \"from cmtool.plugin_reference import write_pages; write_pages('docs')\""
NOT_YET: set[str] = set()  # groups whose plugins do not say everything of themselves


def test_the_documented_plugins_are_the_plugins():
    documented = {"methods.md", *(f"methods/{path.name}" for path in (DOCS / "methods").iterdir())}
    found = pages()
    assert documented == set(found), HOW
    for name, text in found.items():
        assert (DOCS / name).read_text("utf-8") == text, f"{name}: {HOW}"


@pytest.mark.parametrize("group", sorted(set(registry.GROUPS) - NOT_YET))
def test_every_plugin_says_what_it_is_when_to_take_it_and_what_its_options_are(group):
    assert missing_facts(group) == []


def test_every_group_has_a_heading_and_a_command():
    assert set(registry.GROUPS) <= set(USAGE)


def test_pages_are_written(tmp_path):
    write_pages(tmp_path)
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.md")} == set(pages())
