"""cmtool where POSIX is not, and files are as those of Windows: ``python without_posix.py '[["info"], ...]'``.

Modules and names that Windows does not have are gone before cmtool is imported. A file that is open or mapped in this
process is neither renamed nor removed, a folder is not opened, and a text file whose encoding or line ends nobody
chose is an error. Locks are those of the system under it, taken through the function of filelock. What this cannot
show: how paths are parsed, and what Windows itself does.
"""

import builtins
import contextlib
import importlib.abc
import io
import json
import os
import signal
import sys

import filelock
import numpy
import platformdirs.unix
import safetensors.torch
import sklearn.datasets
import torch
import typer.main
from PIL import Image

MODULES = {"fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios", "tty"}
NAMES = {
    *("O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "chown", "fchown", "fork", "forkpty", "getegid"),
    *("geteuid", "getgid", "getgroups", "getloadavg", "getpgid", "getuid", "killpg", "lchown", "lockf", "mkfifo"),
    *("mknod", "nice", "posix_fadvise", "posix_fallocate", "pread", "preadv", "pwrite", "pwritev", "readv"),
    *("sched_getaffinity", "sched_setaffinity", "sendfile", "setpgid", "setsid", "setuid", "sync"),
    *("sysconf", "uname", "wait", "wait3", "wait4", "writev"),
}
SIGNALS = {
    *("SIGALRM", "SIGCHLD", "SIGCONT", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGQUIT", "SIGSTOP", "SIGTSTP", "SIGUSR1"),
    *("SIGUSR2", "SIGXCPU", "SIGXFSZ", "alarm", "pthread_sigmask", "setitimer", "siginterrupt", "sigwait"),
}
LIBRARIES = (filelock, numpy, platformdirs.unix, safetensors.torch, sklearn.datasets, torch, typer.main, Image)


class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname, path=None, target=None):
        if fullname.partition(".")[0] in MODULES:
            raise ModuleNotFoundError(f"No module named '{fullname}'", name=fullname)


def is_in_use(path) -> bool:
    """Whether this process has a file open, or mapped."""
    real = os.path.realpath(path)
    opened = set()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # another thread has closed it
            opened.add(os.readlink(f"/proc/self/fd/{number}"))
    with real_open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
        return real in opened or any(line.rstrip().endswith(f" {real}") for line in maps)


def guard(function, files):
    def guarded(*paths, **options):
        for path in paths[:files]:
            if os.path.isfile(path) and is_in_use(path):
                raise PermissionError(13, "the process cannot access the file because it is being used", str(path))
        return function(*paths, **options)

    return guarded


def open_text(file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, closefd=True, opener=None):
    caller = sys._getframe(1).f_globals.get("__name__", "")
    if caller == "pathlib":
        caller = sys._getframe(2).f_globals.get("__name__", "")
        caller = sys._getframe(3).f_globals.get("__name__", "") if caller == "pathlib" else caller
    if caller.startswith("cmtool") and "b" not in mode:
        assert encoding, f"{caller} opens {file} in whatever encoding the system has"
        assert newline is not None or not set(mode) & set("wax"), f"{caller} writes whatever line ends the system has"
    return real_open(file, mode, buffering, encoding, errors, newline, closefd, opener)


def open_number(path, flags, *mode, **options):
    if os.path.isdir(path):
        raise PermissionError(13, "Permission denied", str(path))
    return real_os_open(path, flags, *mode, **options)


def take_away() -> None:
    sys.meta_path.insert(0, Missing())
    for name in MODULES:
        sys.modules.pop(name, None)
    for place, names in ((os, NAMES), (signal, SIGNALS)):
        for name in names:
            if hasattr(place, name):
                delattr(place, name)
    os.replace, os.rename = guard(os.replace, 2), guard(os.rename, 2)
    os.unlink = os.remove = guard(os.unlink, 1)
    os.open = open_number
    builtins.open = io.open = open_text


real_open, real_os_open = open, os.open

if __name__ == "__main__":
    take_away()
    from cmtool.files import atomic

    atomic.WINDOWS = True
    from cmtool.cli import run

    print(json.dumps([run(words) for words in json.loads(sys.argv[1])]))
    assert not MODULES & set(sys.modules)
