import hashlib
from pathlib import Path

import pytest

from cmtool.assets import Asset, folders, locate
from cmtool.errors import BadFile, MissingAsset, MissingInput

CONTENTS = b"weights"
ASSET = Asset(
    "net", "net.pt", len(CONTENTS), hashlib.sha256(CONTENTS).hexdigest(), "https://example.org/net.pt", "or do without"
)


@pytest.fixture
def places(tmp_path, monkeypatch):
    """The three folders that are searched, in order, none of which exists yet."""
    monkeypatch.setenv("CMTOOL_ASSETS", str(tmp_path / "assets"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return folders()


def put(folder: Path, contents: bytes = CONTENTS) -> Path:
    folder.mkdir(parents=True)
    path = folder / ASSET.filename
    path.write_bytes(contents)
    return path


def test_the_folders_are_the_documented_ones(places, tmp_path):
    expected = ["assets", "cache/cmtool/assets", "torch/hub/checkpoints"]
    assert [place.relative_to(tmp_path).as_posix() for place in places] == expected


def test_the_first_folder_that_has_it_wins(places):
    for folder in reversed(places):
        path = put(folder)
        assert locate(ASSET) == path


def test_without_the_variable_the_cache_comes_first(places, monkeypatch):
    monkeypatch.delenv("CMTOOL_ASSETS")
    assert folders() == places[1:]


def test_absent_weights_say_everything_that_is_needed_to_get_them(places):
    with pytest.raises(MissingAsset) as caught:
        locate(ASSET)
    assert caught.value.code == 69
    for fact in ("net.pt", "7 bytes", ASSET.sha256, *map(str, places)):
        assert fact in caught.value.message
    assert str(caught.value.hint) == (
        "on a machine with internet: cmtool fetch net, or curl -L --create-dirs "
        f"-o {places[0]}/net.pt https://example.org/net.pt; or do without"
    )


def test_a_path_that_was_given_is_taken_whatever_its_name(places, tmp_path):
    put(places[0], b"another")
    given = tmp_path / "mine.bin"
    with pytest.raises(MissingInput, match=r"no file .*mine\.bin"):
        locate(ASSET, given)
    given.write_bytes(CONTENTS)
    assert locate(ASSET, str(given)) == given


def test_another_file_is_refused_with_both_hashes_and_left_alone(places):
    path = put(places[1], b"weightz")
    with pytest.raises(BadFile) as caught:
        locate(ASSET)
    assert caught.value.code == 65
    assert ASSET.sha256 in caught.value.message
    assert hashlib.sha256(b"weightz").hexdigest() in caught.value.message
    assert path.read_bytes() == b"weightz"
