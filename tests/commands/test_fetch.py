"""Fetching from a server of our own: whole and verified, or nothing."""

import dataclasses
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cmtool.features.inception import TORCHSCRIPT
from cmtool.options import registry

CONTENTS = bytes(range(256)) * 12_000  # 3 MB: several parts


class Server(BaseHTTPRequestHandler):
    """``/whole`` gives everything, ``/cut`` breaks off, ``/long`` does not end in time, ``/other`` is another file."""

    def do_GET(self):
        what = self.path.strip("/")
        if what not in ("whole", "cut", "long", "other"):
            return self.send_error(404)
        self.send_response(200)
        if what == "whole":
            self.send_header("Content-Length", str(len(CONTENTS)))
        self.end_headers()
        body = {"cut": CONTENTS[:-70_000], "long": CONTENTS + b"x", "other": CONTENTS[::-1]}.get(what, CONTENTS)
        return self.wfile.write(body)

    def log_message(self, format, *args):
        pass


@pytest.fixture(scope="module")
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def published(server, tmp_path, monkeypatch):
    """Make the published file the one at ``/what``; the folders that are searched are empty."""
    for name, folder in (("CMTOOL_ASSETS", "assets"), ("XDG_CACHE_HOME", "cache"), ("TORCH_HOME", "torch")):
        monkeypatch.setenv(name, str(tmp_path / folder))
    for name in ("CMTOOL_OFFLINE", "HF_HUB_OFFLINE", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    get = registry.get

    def publish(what, url=None):
        sha256 = hashlib.sha256(CONTENTS).hexdigest()
        asset = dataclasses.replace(TORCHSCRIPT, size=len(CONTENTS), sha256=sha256, url=url or f"{server}/{what}")
        monkeypatch.setattr(registry, "get", lambda group, name: asset if group == "assets" else get(group, name))
        return tmp_path / "assets" / TORCHSCRIPT.filename

    return publish


def test_what_was_asked_for_is_told_fetched_once_and_found_afterwards(cm, well, published, tmp_path):
    path = published("whole")
    told = cm("fetch", "inception")
    assert (told.code, told.out) == (0, f"{path}\n") and path.read_bytes() == CONTENTS
    assert f"3,072,000 bytes, sha256 {hashlib.sha256(CONTENTS).hexdigest()}" in told.err
    assert f"/whole to {path}" in told.err
    again = json.loads(well("fetch", "inception", "--json"))["fetched"]
    assert again == [{"name": "inception", "path": str(path), "bytes": len(CONTENTS), "downloaded": False}]
    assert str(path) in well("fetch")
    well("fetch", "inception", "-o", tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere" / path.name).read_bytes() == CONTENTS


@pytest.mark.parametrize(
    ("what", "code", "sentence"),
    [
        ("cut", 69, "broke off after 3,002,000 of 3,072,000 bytes"),
        ("long", 65, "is larger than the published 3,072,000 bytes"),
        ("other", 65, "is not the published file: its sha256 is"),
        ("nowhere", 69, "Not Found"),
    ],
)
def test_nothing_is_kept_of_what_is_not_the_file(cm, published, what, code, sentence):
    path = published(what)
    told = cm("fetch", "inception")
    assert told.code == code and sentence in told.error[0]
    assert list(path.parent.iterdir()) == []


def test_without_a_network_it_says_what_to_do_elsewhere(cm, published):
    path = published("whole", url="http://127.0.0.1:9/x.pt")
    told = cm("fetch", "inception")
    assert told.code == 69 and "cannot be fetched" in told.error[0]
    assert told.error[1] == f"on a machine with internet: curl -LO http://127.0.0.1:9/x.pt, and copy the file to {path}"


@pytest.mark.parametrize("variable", ["CMTOOL_OFFLINE", "HF_HUB_OFFLINE"])
def test_a_variable_forbids_it(cm, published, monkeypatch, variable):
    path = published("whole")
    monkeypatch.setenv(variable, "1")
    told = cm("fetch", "inception")
    assert told.code == 69 and f"${variable} forbids downloads" in told.error[0]
    assert not path.exists()


def test_a_damaged_file_that_is_here_is_named_and_left_alone(cm, published):
    path = published("whole")
    path.parent.mkdir()
    path.write_bytes(b"weights")
    told = cm("fetch", "inception")
    assert told.code == 65 and "is not the published" in told.error[0] and path.read_bytes() == b"weights"


def test_every_asset_is_listed_under_its_own_name(well, published, tmp_path, monkeypatch):
    for name in registry.names("assets"):
        assert registry.get("assets", name).name == name
    rows = json.loads(well("fetch", "--json"))["assets"]
    assert {row["name"] for row in rows} >= {"inception", "inception-pth", "vgg16", "lpips-vgg"}
    assert all(row["path"] is None and len(row["sha256"]) == 64 for row in rows)


def test_an_unknown_name_is_a_typo(cm):
    told = cm("fetch", "incepton")
    assert (told.code, told.error[1]) == (2, "did you mean 'inception'?")
