"""A user without a home folder, and what is looked for in it."""

import pwd
from pathlib import Path

import pytest

from cmtool.assets import Asset, folders, own_folder
from cmtool.errors import UsageError
from cmtool.options.data_spec import data_spec
from cmtool.user_paths import cache_folder, config_folder, expand_home

VARIABLES = ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "TORCH_HOME", "CMTOOL_ASSETS")


@pytest.fixture
def homeless(monkeypatch):
    def gone(*_):
        raise KeyError("uid not found")

    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", gone)
    monkeypatch.setattr(pwd, "getpwnam", gone)


def test_without_a_home_nothing_is_looked_for_in_it(homeless, monkeypatch, tmp_path):
    assert (config_folder(), cache_folder(), folders()) == (None, None, [])
    assert expand_home("~/x") == "~/x"
    assert data_spec("~/pictures[:3]") == {"name": "folder", "source": "~/pictures", "slice": ":3"}
    with pytest.raises(UsageError, match="no home folder"):
        own_folder()
    net = Asset("net", "net.pt", 7, "0" * 64, "https://example.org/net.pt", "or do without")
    assert "-o net.pt https://example.org/net.pt" in str(net.fetching())
    monkeypatch.setenv("CMTOOL_ASSETS", str(tmp_path))
    assert own_folder() == tmp_path


def test_folders_that_are_named_need_no_home(homeless, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert config_folder() == tmp_path / "config" / "cmtool"
    assert folders()[0] == tmp_path / "cache" / "cmtool" / "assets"


def test_the_home_is_written_out_everywhere(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CMTOOL_ASSETS", "~/weights")
    assert folders()[0] == tmp_path / "weights"
    assert expand_home("~") == str(tmp_path)
    assert expand_home(Path("a~/~")) == "a~/~"
    assert expand_home("~nobody-of-this-name/x") == "~nobody-of-this-name/x"
