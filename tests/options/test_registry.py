"""Plugins found by metadata: fake distributions in a folder on the path stand for installed packages."""

import sys

import pytest

from cmtool.errors import MissingAsset, UsageError
from cmtool.options import registry

MODULE = """
def ralston(*, stages: int = 4, tableau: str = "classic"): return ("ralston", stages, tableau)
def needy(a, b=2, *, level): return (a, b, level)
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """``install("one", "ralston = one:ralston", code)`` makes a package with entry points of ``cmtool.solvers``."""
    count = 0

    def make(name, points, code=MODULE, group="solvers"):
        nonlocal count
        count += 1
        site = tmp_path / f"site{count}"
        info = site / f"{name}-1.{count}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.{count}\n")
        (info / "entry_points.txt").write_text(f"[cmtool.{group}]\n{points}\n")
        (site / f"{name}.py").write_text(code)
        monkeypatch.syspath_prepend(site)
        monkeypatch.delitem(sys.modules, name, raising=False)

    yield make
    for name in ("one", "two", "broken"):
        sys.modules.pop(name, None)


def test_every_group_has_a_built_in_of_ours():
    for group in registry.GROUPS:
        owners = {entry.dist.name for entries in registry.providers(group).values() for entry in entries}
        assert "cmtool" in owners


def test_names_are_listed_without_an_import(install):
    install("one", "ralston = one:ralston")
    assert registry.names("solvers") == sorted({*registry.names("solvers"), "euler", "heun", "ralston"})
    (entry,) = registry.providers("solvers")["ralston"]
    assert (entry.dist.name, entry.dist.version, entry.value) == ("one", "1.1", "one:ralston")
    assert "one" not in sys.modules
    assert registry.get("solvers", "ralston")() == ("ralston", 4, "classic")
    assert "one" in sys.modules


def test_a_name_belongs_to_its_group(install):
    install("one", "ralston = one:ralston", group="features")
    assert "ralston" in registry.names("features")
    with pytest.raises(UsageError, match="unknown solver 'ralston'"):
        registry.get("solvers", "ralston")


def test_two_packages_with_one_name_are_both_named(install):
    install("one", "ralston = one:ralston\nmine = one:ralston")
    install("two", "ralston = two:ralston")
    assert registry.names("solvers").count("ralston") == 1
    with pytest.raises(UsageError, match="solver 'ralston' is provided twice, by one and two") as caught:
        registry.get("solvers", "ralston")
    assert caught.value.hint == "uninstall one of them"
    assert not {"one", "two"} & set(sys.modules)
    assert registry.get("solvers", "mine")() == ("ralston", 4, "classic")


def test_a_plugin_cannot_shadow_a_built_in(install):
    install("one", "heun = one:ralston")
    with pytest.raises(UsageError, match="provided twice, by cmtool and one"):
        registry.build("solvers", "heun")


def test_a_package_that_is_on_the_path_twice_is_one_package(install):
    install("one", "ralston = one:ralston")
    install("one", "ralston = one:ralston")
    assert registry.build("solvers", "ralston") == ("ralston", 4, "classic")


@pytest.mark.parametrize(
    ("point", "code", "words"),
    [
        ("bad = broken:ralston", "import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("bad = broken:ralston", "1 / 0", "ZeroDivisionError"),
        ("bad = broken:ralston", "def (", "SyntaxError"),
        ("bad = broken:absent", MODULE, "AttributeError"),
        ("bad = nowhere:ralston", MODULE, "No module named 'nowhere'"),
    ],
)
def test_a_broken_plugin_hurts_only_whoever_asks_for_it(install, point, code, words):
    install("broken", point, code)
    install("one", "ralston = one:ralston")
    assert {"bad", "ralston"} <= set(registry.names("solvers"))
    assert registry.build("solvers", "ralston") == ("ralston", 4, "classic")
    assert registry.build("solvers", "heun").order == 2
    with pytest.raises(UsageError, match="solver 'bad' of package broken cannot be imported") as caught:
        registry.get("solvers", "bad")
    assert words in caught.value.message
    assert caught.value.hint == "repair or uninstall broken"


def test_what_a_plugin_says_to_the_user_is_passed_on(install):
    install("broken", "bad = broken:x", "from cmtool.errors import MissingAsset\nraise MissingAsset('fetch it', 'so')")
    with pytest.raises(MissingAsset, match="fetch it"):
        registry.get("solvers", "bad")


def test_a_name_that_is_nearly_right_gets_the_right_one():
    with pytest.raises(UsageError, match="unknown solver 'huen'") as caught:
        registry.get("solvers", "huen")
    assert caught.value.hint == "did you mean 'heun'?"


def test_a_name_that_is_far_off_gets_the_list():
    with pytest.raises(UsageError, match="unknown solver 'zzzzzz'") as caught:
        registry.get("solvers", "zzzzzz")
    assert caught.value.hint == "there are: " + ", ".join(registry.names("solvers"))


def test_options_are_the_keyword_only_arguments(install):
    install("one", "ralston = one:ralston")
    assert registry.options(registry.get("solvers", "ralston")) == {"stages": 4, "tableau": "classic"}


def test_build_takes_a_name_or_a_mapping_and_leaves_it_as_it_is(install):
    install("one", "ralston = one:ralston")
    spec = {"name": "ralston", "stages": 3}
    assert registry.build("solvers", spec) == ("ralston", 3, "classic")
    assert spec == {"name": "ralston", "stages": 3}


def test_the_program_gives_what_the_factory_has_and_the_user_has_the_last_word(install):
    install("one", "ralston = one:ralston")
    assert registry.build("solvers", "ralston", stages=7, device="cpu") == ("ralston", 7, "classic")
    assert registry.build("solvers", {"name": "ralston", "stages": 3}, stages=7) == ("ralston", 3, "classic")


def test_arguments_of_the_program_come_first(install):
    install("one", "needy = one:needy")
    assert registry.build("solvers", {"name": "needy", "level": 5}, 1) == (1, 2, 5)


def test_an_unknown_option_is_named_with_the_nearest(install):
    install("one", "ralston = one:ralston")
    with pytest.raises(UsageError, match="unknown option of solver 'ralston' 'stagse'") as caught:
        registry.build("solvers", {"name": "ralston", "stagse": 3})
    assert caught.value.hint == "did you mean 'stages'? it has stages=4, tableau=classic"


def test_an_option_of_a_plugin_that_has_none(install):
    install("one", "ralston = one:ralston\nplain = one:plain", MODULE + "def plain(): return 1\n")
    with pytest.raises(UsageError, match="unknown option of solver 'plain' 'x'") as caught:
        registry.build("solvers", {"name": "plain", "x": 3})
    assert caught.value.hint == "it has no options"


def test_a_missing_option_and_a_missing_name_are_named(install):
    install("one", "needy = one:needy")
    with pytest.raises(UsageError, match="solver 'needy' needs the option 'level'"):
        registry.build("solvers", "needy", 1)
    with pytest.raises(UsageError, match="a solver needs a name") as caught:
        registry.build("solvers", {"stages": 3})
    assert "heun" in caught.value.hint
