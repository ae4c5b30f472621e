"""What a run keeps of its data, and what is said of a file that is damaged."""

import json
import types

import pytest

from cmtool.errors import BadFile
from cmtool.files import data_fingerprint
from cmtool.files.data_fingerprint import Inventory, read_inventory, write_inventory


class Data(types.SimpleNamespace):
    def __len__(self):
        return 2


DATA = Data(shape=(1, 8, 8), classes=("cat", "dog"), inventory={"cat/a.png": 7, "dog/b.png": 9, "labels": 3})


def test_what_was_kept_is_read_again(tmp_path):
    assert read_inventory(tmp_path) is None
    write_inventory(tmp_path, DATA)
    found = read_inventory(tmp_path)
    assert found == Inventory.of(DATA)
    assert found is not None
    assert found.document["files"] == DATA.inventory
    assert (found.document["images"], found.document["classes"]) == (2, ["cat", "dog"])


def test_of_many_files_the_digest_is_kept(tmp_path, monkeypatch):
    digest = Inventory.of(DATA).document["sha256"]
    monkeypatch.setattr(data_fingerprint, "MOST", 2)
    write_inventory(tmp_path, DATA)
    found = read_inventory(tmp_path)
    assert found is not None
    assert (found.document["files"], found.document["sha256"]) == (None, digest)


def test_data_without_files():
    plain = Data(shape=(2,), classes=(), inventory=None)
    assert Inventory.of(plain).document["files"] == {}


@pytest.mark.parametrize("change", ["{", "[]", "null", '{"files": 1}', "classes", "images", "sha256", "shape", "files"])
def test_a_damaged_one_is_said(tmp_path, change):
    write_inventory(tmp_path, DATA)
    path = tmp_path / "data.json"
    if change in Inventory.of(DATA).document:
        path.write_text(json.dumps({**json.loads(path.read_text()), change: 0.5}))
    else:
        path.write_text(change)
    with pytest.raises(BadFile, match=r"data\.json is damaged"):
        read_inventory(tmp_path)
