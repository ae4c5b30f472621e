"""Files given as models that are none are named for what they are, whatever their suffix says."""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import cmtool
from cmtool.errors import BadFile, UsageError

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1183014352\n"


def tree(mode):
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode=mode) as archive:
        archive.addfile(tarfile.TarInfo("net.pt"), io.BytesIO())
    return made.getvalue()


def zipped(name):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr(name, b"x")
    return made.getvalue()


def arrays():
    made = io.BytesIO()
    np.savez(made, a=np.zeros(3))
    return made.getvalue()


def saved():
    made = io.BytesIO()
    torch.save({"w": torch.zeros(3)}, made)
    return made.getvalue()


@pytest.mark.parametrize("name", ["net.pt", "net.safetensors", "net.pkl", "checkpoint_8.pth"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty$"),
        (b"\0" * 5000, "holds nothing but zeros"),
        (POINTER, "is a pointer of Git LFS, not the file itself"),
        (b"\xef\xbb\xbf\r\n<!DOCTYPE html><html lang=en>", "is a web page"),
        (b"<HTML><head><title>403</title>", "is a web page"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "is an XML text"),
        (gzip.compress(b"x"), r"is compressed \(gzip\)"),
        (tree("w:gz"), r"is compressed \(gzip\)"),
        (tree("w"), "is a tar archive"),
        (lzma.compress(b"x"), r"is compressed \(xz\)"),
        (bz2.compress(b"x"), r"is compressed \(bzip2\)"),
        (b"\x28\xb5\x2f\xfd\x04\x00", r"is compressed \(zstd\)"),
        (zipped("net.pt"), "is a zip archive"),
        (arrays(), "is an archive of numpy's arrays"),
        (saved()[:400], "is a zip, as torch.save writes, that is cut short"),
    ],
    ids=lambda value: value.replace("\\", "") if isinstance(value, str) else "",
)
def test_what_is_no_model_is_named(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(BadFile, match=message) as told:
        cmtool.load(path)
    assert told.value.hint


def test_named_tensors_of_no_known_network_are_not_named_wrongly(tmp_path):
    (tmp_path / "net.pt").write_bytes(saved())
    with pytest.raises(BadFile, match="no model in a format that cmtool reads"):
        cmtool.load(tmp_path / "net.pt")


@pytest.mark.parametrize("said", [{}, {"kind": "score", "side": 8}])
def test_safetensors_of_an_unknown_network_say_what_is_needed(tmp_path, said):
    save_file({"blocks.0.attn.qkv.weight": torch.zeros(6, 2)}, tmp_path / "net.safetensors")
    with pytest.raises(BadFile, match="not a checkpoint of cmtool, and its tensors are those of no network") as told:
        cmtool.load(tmp_path / "net.safetensors", format=said)
    assert "of diffusers name the whole folder" in told.value.hint


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_what_stands_beside_a_model_may_be_saved_by_windows(tmp_path, encoding):
    (tmp_path / "net.pt").write_bytes(saved())
    (tmp_path / "net.pt.yaml").write_bytes("format:\r\n  name: openia\r\n".encode(encoding))
    with pytest.raises(UsageError, match="unknown checkpoint format 'openia'"):
        cmtool.load(tmp_path / "net.pt")
    (tmp_path / "net.pt.yaml").write_bytes(b"format: {name: \xff\xe9}")
    with pytest.raises(UsageError, match="is not a text"):
        cmtool.load(tmp_path / "net.pt")
