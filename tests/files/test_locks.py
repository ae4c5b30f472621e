"""File systems that have no locks, or that cannot force a folder to the disk."""

import errno
import fcntl
import os
import stat

import pytest

from cmtool.errors import WriteFailed
from cmtool.files.atomic import has_no_locks, take_lock, write_bytes
from cmtool.files.runs import locked
from cmtool.files.streams.manifest import hold_manifest


@pytest.fixture(params=[errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def no_locks(request, monkeypatch):
    def refuse(*_):
        raise OSError(request.param, "no locks")

    monkeypatch.setattr(fcntl, "flock", refuse)


def test_without_locks_the_work_goes_on_and_it_is_told(tmp_path, no_locks):
    with locked(tmp_path), hold_manifest(tmp_path / "new" / "x.part") as file:
        file.write(b"1")
    assert (tmp_path / "new" / "x.part").read_bytes() == b"1"
    (remark,) = has_no_locks(tmp_path / "not" / "yet")
    assert remark.startswith(f"the file system of {tmp_path} has no locks")


def test_with_locks_nothing_is_told_and_two_cannot_have_one(tmp_path):
    assert has_no_locks(tmp_path) == []
    assert os.listdir(tmp_path) == []
    with (tmp_path / "x").open("w") as one, (tmp_path / "x").open("r+") as two:
        assert take_lock(one) is True
        with pytest.raises(BlockingIOError):
            take_lock(two)


def test_a_lock_that_fails_otherwise_is_an_error(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(WriteFailed, match=f"cannot lock {tmp_path}"), locked(tmp_path):
        pass


def unsynced(monkeypatch, code, folders_only=True):
    real = os.fsync

    def fsync(number):
        if not folders_only or stat.S_ISDIR(os.fstat(number).st_mode):
            raise OSError(code, os.strerror(code))
        return real(number)

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES])
def test_what_cannot_be_forced_to_the_disk_is_written(tmp_path, monkeypatch, code):
    unsynced(monkeypatch, code, folders_only=code != errno.EINVAL)
    write_bytes(tmp_path / "x", b"1")
    assert (tmp_path / "x").read_bytes() == b"1"
    assert os.listdir(tmp_path) == ["x"]


@pytest.mark.parametrize("folders_only", [True, False])
def test_a_disk_that_fails_is_told_with_the_name(tmp_path, monkeypatch, folders_only):
    unsynced(monkeypatch, errno.EIO, folders_only)
    with pytest.raises(WriteFailed, match=f"cannot write {tmp_path / 'x'}: Input/output error"):
        write_bytes(tmp_path / "x", b"1")
