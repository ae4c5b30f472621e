"""A process that has imported everything, and forks one child for each case: fast, and each in limits of its own."""

import contextlib
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

from commandlines import command_line
from samples import Form

import cmtool
from cmtool.cli import run

__all__ = ["CODES", "Told", "attempt", "made", "prepare"]

CODES = {0, 2, 65, 66, 69, 70}  # what odd input may end with
SECONDS, MEMORY = 10, 1536 << 20  # of processor time, and bytes, beyond those of a sound file
WALL = 90


@dataclass(frozen=True)
class Told:
    """How a case ended."""

    case: str
    argv: Sequence[str]
    code: int
    seconds: float
    memory: int
    text: str
    wrong: str


def prepare() -> None:
    """Import what commands import, so that no case has to."""
    for found in walk_packages(cmtool.__path__, "cmtool."):
        if not found.name.startswith(("cmtool.features.train", "cmtool.__main__")):
            with contextlib.suppress(ImportError):
                import_module(found.name)


def made(form: Form | None, seed: int, root: Path, at: Path) -> list[str]:
    """The files of a case in the folder ``at``, and its command; ``form`` None is a random command line."""
    dice = random.Random(seed)
    if form is None:
        return command_line(dice, at, root)
    shutil.copytree(root / form.name, at, dirs_exist_ok=True)
    path = at / form.file
    data = path.read_bytes()
    for _ in range(dice.choice((1, 1, 1, 2))):
        try:
            data = dice.choice(form.changes)(data, dice)
        except Exception:  # a second change of what the first one broke
            break
    path.write_bytes(data)
    return list(dice.choice(form.commands))


def attempt(form: Form | None, seed: int, root: Path, base: tuple[float, int] = (0.0, 0)) -> Told:
    """Run a case in a child; ``base`` is what a sound file costs."""
    name = f"{form.name if form else 'words'}:{seed}"
    with tempfile.TemporaryDirectory(prefix="cm-fuzz-") as folder:
        at, log = Path(folder) / "here", Path(folder) / "log"
        at.mkdir()
        argv = made(form, seed, root, at)
        child = os.fork()
        if not child:
            inside(argv, at, log)
        code, usage, late = ended(child)
        text = log.read_bytes().decode("utf-8", "replace") if log.exists() else ""
    seconds, memory = usage.ru_utime + usage.ru_stime, usage.ru_maxrss << 10
    reasons = {
        "late": late,
        f"code {code}": code not in CODES,
        "traceback": "Traceback" in text or "internal error" in text,
        "errors": code not in (0, None) and text.count("cmtool: error:") != 1,
        "control characters": bool(re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", text.replace("\x1b[K", ""))),
        "time": seconds > base[0] + SECONDS and (form is not None or code != 0),  # a sound command may have work to do
        "memory": bool(base[1]) and memory > base[1] + MEMORY,
    }
    wrong = ", ".join(reason for reason, so in reasons.items() if so)
    return Told(name, argv, code, seconds, memory, text[-1500:], wrong)


def inside(argv: Sequence[str], at: Path, log: Path) -> None:
    """The child: never returns."""
    try:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 30, 2 << 30))
        room = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + (5 << 30)
        resource.setrlimit(resource.RLIMIT_AS, (room, room))
        os.chdir(at)
        for name in ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
            os.environ[name] = str(at.parent / "home")
        os.environ["CMTOOL_DEVICE"] = "cpu"
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for number in (1, 2):
            os.dup2(handle, number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdout, sys.stderr = (open(number, "w", closefd=False, encoding="utf-8") for number in (1, 2))  # noqa: SIM115
        code = run(argv)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    except BaseException as error:
        os.write(2, f"Traceback: {error!r}".encode())
        os._exit(1)


def ended(child: int) -> tuple[int, resource.struct_rusage, bool]:
    """Wait for a child; the code (negative for a signal), what it used, and whether it had to be stopped."""
    began, late = time.monotonic(), False
    while True:
        pid, status, usage = os.wait4(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status), usage, late
        if time.monotonic() - began > WALL and not late:
            late = True
            os.killpg(child, signal.SIGKILL)
        time.sleep(0.003)
