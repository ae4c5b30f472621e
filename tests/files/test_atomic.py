import os
import subprocess
import sys

import pytest

from cmtool.errors import WriteFailed
from cmtool.files.atomic import make_folder, replace_folder, sweep, write_bytes


def test_the_new_file_appears_at_the_end_only(tmp_path):
    path = tmp_path / "deep" / "x"
    write_bytes(path, b"old")
    with replace_folder(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert os.listdir(path.parent) == ["x"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, SystemExit])
def test_a_block_that_fails_leaves_the_old_file(tmp_path, error):
    write_bytes(tmp_path / "x", b"old")
    with pytest.raises(error), replace_folder(tmp_path / "x") as file:
        file.write(b"half")
        raise error
    assert (tmp_path / "x").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x"]


def test_a_killed_writer_leaves_the_old_file_and_litter_that_is_swept(tmp_path):
    write_bytes(tmp_path / "x", b"old")
    script = "import os, sys; from cmtool.files.atomic import replace_folder as replacing\n"
    script += "with replacing(sys.argv[1]) as file: file.write(b'half'); file.flush(); os._exit(9)"
    assert subprocess.run([sys.executable, "-c", script, tmp_path / "x"], check=False).returncode == 9
    assert (tmp_path / "x").read_bytes() == b"old"
    assert len(os.listdir(tmp_path)) == 2
    sweep(tmp_path)
    assert os.listdir(tmp_path) == ["x"]


KILLED_AT_EVERY_STEP = """
import os, signal, sys
from cmtool.files import atomic

path, old, new, deaths = sys.argv[1], b"old" * 100_000, b"new" * 200_000, 0
while True:
    atomic.write_bytes(path, old)
    child = os.fork()
    if child == 0:
        steps = 0

        def count(event, _=None):
            global steps
            if event in ("open", "os.rename", "os.remove", "os.mkdir", "fsync"):
                steps += 1
                if steps > deaths:
                    os.kill(os.getpid(), signal.SIGKILL)

        fsync, os.fsync = os.fsync, lambda handle: (count("fsync"), fsync(handle))
        sys.addaudithook(count)
        atomic.write_bytes(path, new)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    with open(path, "rb") as file:
        found = file.read()
    assert found in (old, new), deaths
    if status == 0:
        assert found == new
        break
    deaths += 1
print(deaths)
"""


def test_a_writer_killed_at_any_step_leaves_the_old_file_or_the_new(tmp_path):
    command = [sys.executable, "-c", KILLED_AT_EVERY_STEP, tmp_path / "x"]
    deaths = int(subprocess.run(command, capture_output=True, check=True).stdout)
    assert deaths >= 5  # mkdir, open, fsync, rename, open of the folder, its fsync


def test_what_the_system_says_is_passed_on(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WriteFailed, match="Is a directory"):
        write_bytes(tmp_path, b"")
    with pytest.raises(WriteFailed, match="a file is in the way"):
        write_bytes(tmp_path / "file" / "x", b"")
    with pytest.raises(WriteFailed):
        make_folder(tmp_path / "file" / "x")
    with pytest.raises(BrokenPipeError), replace_folder(tmp_path / "x"):
        raise BrokenPipeError
    assert os.listdir(tmp_path) == ["file"]


def test_devices_and_pipes_are_written_to_and_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_bytes(tmp_path / "pipe", b"through")
    assert os.read(reader, 100) == b"through"
    os.close(reader)
    assert (tmp_path / "pipe").is_fifo()
    with pytest.raises(WriteFailed, match="No space left on device"):
        write_bytes("/dev/full", b"x")


def linked(tmp_path, name="x"):
    """A link, through another in a linked folder, to a file on the large disk."""
    (tmp_path / "big").mkdir()
    (tmp_path / "disk").symlink_to("big")
    (tmp_path / "disk" / "middle").symlink_to(name)
    (tmp_path / "x").symlink_to(tmp_path / "disk" / "middle")
    return tmp_path / "x", tmp_path / "big" / name


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("place", [None, ".x.part"])
def test_a_link_stays_and_its_file_is_replaced(tmp_path, there, place):
    link, file = linked(tmp_path)
    if there:
        file.write_bytes(b"old")
    with replace_folder(link, place=place and tmp_path / place) as opened:
        assert [name for name in os.listdir(tmp_path / "big") if name not in ("x", "middle")], "written elsewhere"
        opened.write(b"new")
    assert link.is_symlink()
    assert file.read_bytes() == b"new"
    assert sorted(os.listdir(tmp_path / "big")) == ["middle", "x"]


def test_a_folder_behind_a_link_is_made_where_its_disk_is(tmp_path):
    link, folder = linked(tmp_path)
    make_folder(link)
    assert folder.is_dir()
    (tmp_path / "y").symlink_to("unmounted/y")
    for write in (make_folder, lambda path: write_bytes(path, b"")):
        with pytest.raises(WriteFailed, match=r"is a symbolic link to .*unmounted/y, and there is no folder"):
            write(tmp_path / "y")
    assert not (tmp_path / "unmounted").exists()


def test_a_link_to_itself(tmp_path):
    (tmp_path / "x").symlink_to("y")
    (tmp_path / "y").symlink_to("x")
    with pytest.raises(WriteFailed, match="leads to itself"):
        write_bytes(tmp_path / "x", b"1")
    assert (tmp_path / "x").is_symlink()
